import io
import sys

import numpy as np
from rich.console import Console

from eejax.data import Info, list_datasets, store


def show(data_dir=None, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(list_datasets(data_dir))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_what_is_ready_comes_first_and_the_rest_has_its_command(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    info = Info("mine", ("a", "b"), (2, 3, 1), "imported", "none", "none")
    arrays = np.zeros((1, 2, 3, 1), np.uint8), np.zeros(1, np.int32)
    store.write(tmp_path / "data/mine", info, {"train": arrays})
    title, header, *rows, caption = show()
    assert title == "Data sets"
    assert header.split() == ["name", "samples", "shape", "classes", "ready"]
    assert [row.split(maxsplit=4) for row in rows[:6]] == [
        ["mnist_5k", "5,000", "28x28x1", "10", "yes, embedded"],
        ["digits", "1,797", "8x8x1", "10", "yes, embedded"],
        ["mine", "1", "2x3x1", "2", "yes, imported"],
        ["toy", "50", "8x8x1", "10", "yes, prepared"],
        ["toy_tensor", "50", "8x8x1", "10", "yes, prepared"],
        ["mnist", "70,000", "28x28x1", "10", "eejax data prepare mnist"],
    ]
    assert all(len(row.split(maxsplit=4)) == 5 for row in rows)  # Nothing is wrapped or cut.
    assert caption == "IDX files downloaded by hand: eejax data import NAME DIR"


def test_commands_name_the_data_dir():
    text = " ".join(" ".join(show("/x [y]")).split())
    assert "eejax data prepare mnist --data-dir '/x [y]'" in text
    assert "eejax data import NAME DIR --data-dir '/x [y]'" in text


def test_a_broken_set_does_not_hide_the_others(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/manifest.json").write_text("{")
    lines = show(width=300)
    for name, problem in (
        ("toy", "pip install 'eejax[tfds]'"),
        ("mine", "manifest.json is damaged"),
    ):
        (row,) = (line for line in lines if line.startswith(f"{name} "))
        assert problem in row
    assert any(line.startswith("digits") for line in lines)
