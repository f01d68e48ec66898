"""The parallel run, its plan and its inspection, on little."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from eejax.experiment.cli import main
from eejax.experiment.config import load_config
from eejax.experiment.devices import ensure_devices
from eejax.experiment.metrics import read_metrics
from eejax.experiment.threads import spare_threads
from eejax.experiment.workdir import RunDir

FOLDER = Path(__file__).parents[2] / "configs" / "parallel"
CONFIG = str(FOLDER / "language_model.py")
MLP, VIT = (str(FOLDER / name) for name in ("mlp_digits.py", "vit_mnist.py"))
ONE = ["--config.layout.data=1", "--config.layout.stages=1", "--config.layout.scheme=serial",
       "--config.layout.grid"]  # fmt: skip


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_perceptron_learns_the_same_on_one_device(tmp_path):
    summaries = []
    for name, options in (("all", []), ("one", ONE)):
        folder = tmp_path / name
        assert main(["run", f"{MLP}:tiny", "--workdir", str(folder), "--quiet", *options]) == 0
        summaries.append(json.loads((folder / "summary.json").read_text()))
    here, there = summaries
    assert here["test_accuracy"] == there["test_accuracy"] > 0.5
    assert here["test_loss"] == pytest.approx(there["test_loss"], rel=1e-5)
    assert 0.999 < here["bytes_over_theory"] <= 1.0
    timing = json.loads((tmp_path / "all" / "timing.json").read_text())
    assert timing["measured_images_per_s"] > 0


def test_a_vision_transformer_trains_and_reports(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", f"{VIT}:tiny", "--workdir", str(folder), "--quiet"]) == 0
    rows = read_metrics(RunDir(folder))
    assert rows[1]["test_loss"] < rows[0]["test_loss"]
    assert 0 <= rows[1]["test_accuracy"] <= 1
    assert json.loads((folder / "summary.json").read_text())["bytes_over_theory"] == 1.0
    assert "1,000 test images" in (folder / "report.html").read_text()


@pytest.mark.parametrize("config", [MLP, VIT], ids=["mlp", "vit"])
def test_models_of_images_are_planned(capsys, config):
    assert main(["parallel", "plan", config, "--json"]) == 0
    candidates = json.loads(capsys.readouterr().out)
    assert {c["layout"]["scheme"] for c in candidates if not c["reason"]} >= {"serial", "2d", "3d"}


def test_a_plan_takes_a_topology(capsys, tmp_path):
    topology = tmp_path / "edges.toml"
    topology.write_text("""
        [[tiers]]
        name = "worker"
        nodes = [{count = 4, device = "jetson_nano", link = "lan", parent = [0, 0, 1, 1]}]
        [[tiers]]
        name = "switch"
        nodes = [{count = 2, device = "edge_server", link = "wan", parent = 0}]
        [[tiers]]
        name = "cloud"
        nodes = [{device = "cloud_gpu"}]
    """)
    option = f"--config.machine.topology={topology}"
    assert main(["parallel", "plan", f"{MLP}:tiny", option, "--json"]) == 0
    best = json.loads(capsys.readouterr().out)[0]
    assert set(best["bytes"]) == {"switch", "worker"}
    assert best["layout"]["data"] * best["layout"]["stages"] <= 4
    assert main(["parallel", "plan", f"{MLP}:tiny", option, "--most=2"]) == 0
    assert "switch" in capsys.readouterr().out
    assert main(["parallel", "plan", f"{MLP}:tiny", "--config.machine.topology=wify"]) == 2
    assert "did you mean 'wifi'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        (VIT, "--config.model.patch=5", "patch must divide 28 and 28"),
        (MLP, "--config.model.classes=8", "classes must be at least 10"),
        (MLP, "--config.data=digit", "did you mean 'digits'"),
        (CONFIG, "--config.data=digits", "data must be 'python_documentation'"),
    ],
)
def test_wrong_models_are_named(capsys, config, option, message):
    assert main(["parallel", "inspect", config, option]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


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


@pytest.mark.parametrize(
    ("given", "cores", "devices", "threads"),
    [(None, 2, 1, None), (None, 2, 2, None), (None, 2, 8, "16"), (None, 1, 2, "4"),
     ("3", 2, 900, "3")],
)  # fmt: skip
def test_more_devices_than_cores_have_more_threads(monkeypatch, given, cores, devices, threads):
    monkeypatch.setattr(os, "environ", {} if given is None else {"NPROC": given})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    spare_threads(devices)
    assert os.environ.get("NPROC") == threads


def test_layouts_are_fields_of_the_config():
    config, _ = load_config(CONFIG, ["--config.layout.grid", "2", "2", "--config.layout.scheme=2d"])
    assert config.layout.grid == (2, 2)
