"""The life-cycle run, on little data, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eejax.experiment.config import load_config
from eejax.experiment.context import open_context
from eejax.experiment.metrics import read_metrics
from eejax.experiment.workdir import RunDir

CONFIG = str(Path(__file__).parents[2] / "configs" / "lifecycle_mnist.py")
PROGRAM = """
import socket, sys

def refuse(*args, **kwargs):
    raise OSError("no network at run time")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from eejax.experiment.cli import main
code = main(sys.argv[1:])
loaded = [m for m in ("tensorflow", "tensorflow_datasets", "mlxtend", "sklearn", "pandas", "torch")
          if m in sys.modules]
assert not loaded, loaded
sys.exit(code)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One run in a process of its own, without a network."""
    folder = tmp_path_factory.mktemp("lifecycle") / "run"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", f"{CONFIG}:tiny", "--workdir", str(folder),
         "--tensorboard"],
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_everything_is_in_the_run_folder(tiny):
    folder, out = tiny
    for name in ("config.json", "summary.json", "metrics.jsonl", "metrics.csv", "report.html",
                 "report.json", "timing.json", "environment.json"):  # fmt: skip
        assert (folder / name).stat().st_size, name
    assert list((folder / "checkpoints").glob("*/manifest.json"))
    assert list((folder / "tensorboard").iterdir())
    for phase in ("co-train", "central", "alone", "plan", "co-infer", "drift", "co-update"):
        assert f"\n{phase} " in out
    assert "★" in out
    assert str(folder / "report.html") in out


def test_the_summary_is_flat(tiny):
    summary = summary_of(tiny[0])
    assert all(isinstance(v, int | float | str | None) for v in summary.values())
    assert len(summary["params_sha256"]) == 64
    for name in (
        "cotrain/accuracy_exit3", "central/accuracy_exit3", "alone/accuracy_exit3",
        "plan/all-end/modelled_latency", "plan/all-edge/modelled_energy",
        "plan/all-cloud/modelled_bytes", "before/accuracy", "drifted/accuracy", "after/accuracy",
        "before/hindsight_saving", "before/executed_saving", "drift/kswin/delay",
        "update/centralised/recovered", "update/local/forgetting",
        "update/collaborative/bytes_knowledge", "traffic/end-edge/bytes",
    ):  # fmt: skip
        assert name in summary, name


def test_numbers_fit_each_other(tiny):
    s = summary_of(tiny[0])
    for name in ("before", "drifted", "after"):
        assert sum(s[f"{name}/leaves_exit{i}"] for i in (1, 2, 3)) == pytest.approx(1)
        assert s[f"{name}/accuracy"] <= s[f"{name}/accuracy_oracle"]
        # Padding runs rows that hindsight does not count.
        assert s[f"{name}/executed_saving"] <= s[f"{name}/hindsight_saving"]
    lost = s["before/accuracy"] - s["drifted/accuracy"]
    for mode in ("centralised", "local", "collaborative"):
        won = s[f"update/{mode}/accuracy_new"] - s["drifted/accuracy"]
        assert s[f"update/{mode}/recovered"] == pytest.approx(won / lost)
        kinds = sum(s[f"update/{mode}/bytes_{k}"] for k in ("data", "information", "knowledge"))
        assert s[f"update/{mode}/bytes"] == kinds
    assert s["update/centralised/bytes_data"] > s["update/collaborative/bytes_data"] > 0
    assert s["update/collaborative/bytes_knowledge"] > s["update/centralised/bytes_knowledge"]
    # Raw images are priced as uint8: 784 bytes up, and an answer of 4 down on each link.
    assert s["plan/all-edge/modelled_bytes"] == 784 + 4
    assert s["plan/all-cloud/modelled_bytes"] == 2 * (784 + 4)
    assert s["plan/all-end/modelled_bytes"] == 0
    # The system after the update is that which the update was judged by.
    assert s["after/accuracy"] == pytest.approx(s["update/collaborative/accuracy_new"], abs=0.02)


def test_it_learns_even_in_tiny(tiny):
    s = summary_of(tiny[0])
    assert s["cotrain/accuracy_exit3"] > 0.4
    assert s["central/accuracy_exit3"] > 0.6
    assert s["drifted/accuracy"] < s["before/accuracy"] - 0.1
    assert s["update/collaborative/accuracy_new"] > s["drifted/accuracy"]


def test_metrics_tell_the_curves(tiny):
    rows = read_metrics(RunDir(tiny[0]))
    accuracies = [r["test_accuracy_exit3"] for r in rows if r["phase"] == "co-train"]
    assert len(accuracies) == 2
    assert np.isfinite(accuracies).all()


def test_the_report_is_self_contained(tiny):
    page = (tiny[0] / "report.html").read_text()
    assert page.count("<svg") >= 7
    for outside in ("http://", "https://", "<script", "src="):
        found = [line for line in page.splitlines() if outside in line and "w3.org" not in line]
        assert not found, found[:3]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("coinfer.objective", "latence", "did you mean 'latency'"),
        ("coinfer.placement", "end,edge", "one-per-tier, best, or 3 tiers"),
        ("coinfer.placement", "end,egde,cloud", "did you mean 'edge'"),
        ("coinfer.codec", "int7", "did you mean"),
        ("coinfer.loss_allowed", -1.0, r"must be in \[0, 1\]"),
        ("drift.kind", "rotat", "did you mean 'rotate'"),
        ("drift.detectors", ("kswim",), "did you mean 'kswin'"),
        ("drift.label_share", 0.0, "ddm needs labels"),
        ("data.name", "mnist_5", "did you mean 'mnist_5k'"),
        ("data.partition", "dirichlet", "dirichlet:ALPHA"),
        ("data.new_share", 1.0, r"must be in \(0, 1\)"),
        ("data.validation", 10_000, "do not suffice"),
        ("system.end_devices", ("phon",), "did you mean 'phone'"),
        ("cotrain.k1", 0, "k1 and k2 must be at least 1"),
        ("cotrain.codec", "top", "topk:FRACTION"),
        ("cotrain.clients", "pmap", "none of auto, scan, vmap"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_trained(tmp_path, field, value, message):
    config, run = load_config(f"{CONFIG}:tiny")
    part, _, name = field.partition(".")
    setattr(getattr(config, part), name, value)
    with (
        pytest.raises(ValueError, match=message),
        open_context(config, tmp_path / "run", quiet=True) as context,
    ):
        run(config, context)
    # Corrected, the same folder can be used.
    assert not (tmp_path / "run" / "config.json").exists()
