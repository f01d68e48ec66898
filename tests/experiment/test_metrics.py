import csv
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.experiment.metrics import open_metrics, read_metrics
from eejax.experiment.workdir import RunDir


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def test_rows_are_flat_json_and_csv(run):
    with open_metrics(run) as metrics:
        metrics.write("train", 0, {"loss": jnp.float32(0.5), "exits": np.int64(3)})
        metrics.write("drift", np.int32(1), {"alarm": np.bool_(True), "loss": np.nan, "by": "mean"})
    assert run.path("metrics.jsonl").read_text().splitlines() == [
        '{"phase": "train", "step": 0, "loss": 0.5, "exits": 3}',
        '{"phase": "drift", "step": 1, "alarm": true, "loss": null, "by": "mean"}',
    ]
    with open(run.path("metrics.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["phase", "step", "loss", "exits", "alarm", "by"]
    assert (rows[1]["loss"], rows[1]["alarm"]) == ("", "True")


def test_every_row_is_on_disk_at_once(run):
    with open_metrics(run) as metrics:
        for step in range(3):
            metrics.write("train", step, {"loss": step / 3})
            assert len(read_metrics(run)) == step + 1
            assert metrics.position() == run.path("metrics.jsonl").stat().st_size


@pytest.mark.parametrize("value", [[1.0], np.ones(2), {"a": 1}, object()])
def test_only_scalars(run, value):
    with (
        open_metrics(run) as metrics,
        pytest.raises(ValueError, match="metric 'loss' must be a scalar"),
    ):
        metrics.write("train", 0, {"loss": value})
    assert read_metrics(run) == []


def test_columns_of_the_row_cannot_be_overwritten(run):
    with open_metrics(run) as metrics, pytest.raises(ValueError, match="named 'step'"):
        metrics.write("train", 0, {"step": 1})


def test_a_resumed_file_equals_an_unbroken_one(tmp_path):
    def go(run, steps, position=0):
        with open_metrics(run, position) as metrics:
            for step in steps:
                metrics.write("train", step, {"loss": 1 / (step + 1), f"m{step}": step})
                if step == 4:
                    marked = metrics.position()
        return marked if 4 in steps else None

    whole, broken = RunDir(tmp_path / "whole"), RunDir(tmp_path / "broken")
    whole.root.mkdir()
    broken.root.mkdir()
    go(whole, range(10))
    position = go(broken, range(7))
    with open(broken.path("metrics.jsonl"), "a") as file:
        file.write('{"phase": "train", "st')  # A kill amid a row.
    go(broken, range(5, 10), position)
    for name in ("metrics.jsonl", "metrics.csv"):
        assert broken.path(name).read_bytes() == whole.path(name).read_bytes()


def test_rows_that_the_checkpoint_knows_must_be_there(run):
    with (
        pytest.raises(ValueError, match=r"has 0 bytes but the checkpoint knows of 10"),
        open_metrics(run, 10),
    ):
        pass


def test_tensorboard_shows_the_kept_rows_only(run):
    from tensorboardX.proto.event_pb2 import Event

    with open_metrics(run, tensorboard=True) as metrics:
        metrics.write("train", 1, {"loss": 0.5, "by": "mean"})
        position = metrics.position()
        metrics.write("train", 2, {"loss": 9.0})
    with open_metrics(run, position, tensorboard=True) as metrics:
        metrics.write("train", 2, {"loss": 0.25, "bad": float("nan")})

    (file,) = run.path("tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:  # Each record: length u64, its checksum u32, content, checksum u32.
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert values == [(1, "train/loss", 0.5), (2, "train/loss", 0.25)]


def test_missing_tensorboard_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(ImportError, match=r"pip install 'eejax\[tensorboard\]'"),
        open_metrics(run, tensorboard=True),
    ):
        pass


def test_rows_hold_no_clock(run):
    with open_metrics(run) as metrics:
        metrics.write("train", 0, {"loss": 1})
    assert set(json.loads(run.path("metrics.jsonl").read_text())) == {"phase", "step", "loss"}
