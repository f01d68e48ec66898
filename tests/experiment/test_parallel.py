"""The parallel run, its plan and its inspection, on little."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from eejax.experiment.cli import main
from eejax.experiment.config import load_config
from eejax.experiment.devices import ensure_devices
from eejax.experiment.metrics import read_metrics
from eejax.experiment.workdir import RunDir

CONFIG = str(Path(__file__).parents[2] / "configs" / "parallel" / "language_model.py")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel") / "run"
    assert main(["run", f"{CONFIG}:tiny", "--workdir", str(folder), "--quiet"]) == 0
    return folder


def test_it_trains_and_reports(tiny):
    summary = json.loads((tiny / "summary.json").read_text())
    rows = read_metrics(RunDir(tiny))
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert summary["test_bits_per_byte"] == pytest.approx(rows[1]["test_loss"] / np.log(2))
    assert 0.999 < summary["bytes_over_theory"] <= 1.0
    assert "<svg" in (tiny / "report.html").read_text()


def test_another_layout_trains_the_same_model(tiny, tmp_path):
    """The curve does not depend on how the model is spread."""
    options = ["--config.layout.data=4", "--config.layout.stages=1",
               "--config.layout.scheme=1d"]  # fmt: skip
    assert main(["run", f"{CONFIG}:tiny", "--workdir", str(tmp_path / "run"), "--quiet",
                 *options]) == 0  # fmt: skip
    here, there = (read_metrics(RunDir(folder)) for folder in (tiny, tmp_path / "run"))
    for a, b in zip(here, there, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)


def test_inspect_says_what_the_program_sends(capsys, tmp_path):
    picture = tmp_path / "schedule.svg"
    assert main(["parallel", "inspect", f"{CONFIG}:tiny", "--json", "--picture",
                 str(picture)]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"stage": 2, "data": 2, "t": 2}
    assert 0.999 < found["bytes_over_theory"] <= 1.0
    assert {row["ratio"] for row in found["collectives"].values()} == {1.0}
    assert found["bubble"]["dataflow"] == pytest.approx(1 / 3)  # (S - 1) / (M + S - 1).
    assert found["memory"]["temporary"] > 0
    assert "stage 1" in found["schedule"]
    assert "<svg" in picture.read_text()


def test_plan_lists_layouts_and_what_hurts_them(capsys):
    assert main(["parallel", "plan", f"{CONFIG}:tiny", "--json"]) == 0
    candidates = json.loads(capsys.readouterr().out)
    usable = [c for c in candidates if not c["reason"]]
    assert usable == candidates[: len(usable)]
    seconds = [c["total_s"] for c in usable]
    assert seconds == sorted(seconds)
    for c in usable[:5]:
        assert c["total_s"] == pytest.approx(sum(c["seconds"].values()))
        assert c["bound"] == max(c["seconds"], key=c["seconds"].get)
    assert main(["parallel", "plan", f"{CONFIG}:tiny", "--most=3"]) == 0
    out = capsys.readouterr().out
    assert "3 fastest" in out
    assert "pruned by" in out


def test_memory_that_does_not_suffice_is_the_bound(capsys):
    option = "--config.machine.memory-bytes=1000"
    assert main(["parallel", "plan", f"{CONFIG}:tiny", "--json", option]) == 0
    candidates = json.loads(capsys.readouterr().out)
    assert {c["bound"] for c in candidates} <= {"memory", "shape"}
    assert any(c["bound"] == "memory" for c in candidates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config.layout.scheme=1d_ps"], "did you mean '1d_sp'"),
        (["--config.layout.schedule=gpip"], "did you mean 'gpipe'"),
        (["--config.layout.data=16"], "cannot be split|divide"),
        (["--config.model.heads=3"], "heads must divide hidden"),
    ],
)
def test_wrong_layouts_are_named(capsys, options, message):
    assert main(["parallel", "inspect", f"{CONFIG}:tiny", *options]) == 2
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(capsys.readouterr().err.replace("\n", " "))


def test_another_config_is_refused(capsys):
    lifecycle = str(Path(CONFIG).parents[1] / "lifecycle_mnist.py")
    assert main(["parallel", "plan", lifecycle]) == 2
    assert "is no config of parallel training" in capsys.readouterr().err


def test_too_few_devices_say_what_to_do():
    with pytest.raises(ValueError, match="JAX_NUM_CPU_DEVICES=1000"):
        ensure_devices(1000)
    ensure_devices(jax.device_count())


def test_layouts_are_fields_of_the_config():
    config, _ = load_config(CONFIG, ["--config.layout.grid", "2", "2", "--config.layout.scheme=2d"])
    assert config.layout.grid == (2, 2)
