"""`eejax run` over processes: one folder, one voice, one stop, and resuming with any number."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from eejax.experiment.cli import main
from eejax.experiment.launch import launch
from eejax.experiment.metrics import read_metrics
from eejax.experiment.workdir import RunDir

CONFIG = str(Path(__file__).with_name("multihost_worker_config.py"))
TINY = str(Path(__file__).parents[2] / "configs" / "parallel" / "language_model.py") + ":tiny"
PROGRAM = "import sys; from eejax.experiment.cli import main; sys.exit(main())"
DEADLINE_S, ALARM_S = 150, 300


def run(*argv, processes=2, devices=2, **options):
    lines = []
    command = [sys.executable, "-c", PROGRAM, "run", *argv]
    options = {"devices_per_process": devices, "deadline_s": DEADLINE_S} | options
    return launch(command, processes, write=lines.append, **options), "".join(lines)


def results(root):
    return json.loads((root / "summary.json").read_text()), read_metrics(RunDir(root))


@pytest.fixture(autouse=True)
def deadline():
    """Ends a test in which the launcher itself hangs."""

    def late(signum, frame):
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(ALARM_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of this process alone."""
    root = tmp_path_factory.mktemp("alone") / "run"
    assert main(["run", CONFIG, "--workdir", str(root), "--quiet"]) == 0
    return root


def test_process_0_has_the_folder_and_the_voice(alone, tmp_path):
    root = tmp_path / "run"
    code, out = run(CONFIG, "--workdir", str(root))
    assert code == 0, out
    assert results(root) == results(alone)
    assert {p.name for p in root.iterdir()} == {p.name for p in alone.iterdir()}
    said = out.splitlines()
    assert said[0] == f"[0] run folder: {root}"
    assert said[1].startswith("[0] count        4/4")
    assert len(said) == 2
    # The folder is taken, which is said once, and nobody waits for process 0.
    code, out = run(CONFIG, "--workdir", str(root), deadline_s=60)
    assert code == 2
    assert out.count("is not empty; add --resume") == 1
    assert not [line for line in out.splitlines() if line.startswith("[1]")], out


def test_a_restart_goes_on_in_the_same_folder(alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    code, out = run(CONFIG, "--config.fault=0:1:2:SIGKILL", restarts=1)
    assert code == 0, out
    assert "launch: process 1 was ended by SIGKILL" in out
    assert "[0] resuming after step 2 of 4" in out
    (root,) = (tmp_path / "runs" / "multihost_worker_config").iterdir()
    assert results(root) == results(alone)


def test_a_signal_to_one_stops_all_and_one_process_goes_on(alone, tmp_path, capsys):
    argv = [CONFIG, "--workdir", str(tmp_path / "run"), "--config.fault=0:1:1:SIGTERM"]
    code, out = run(*argv)
    assert code == 128 + signal.SIGTERM, out
    assert out.count("stopped by SIGTERM; saved step 2; go on with: eejax run") == 1
    assert main(["run", *argv, "--resume"]) == 0
    assert "resuming after step 2 of 4" in capsys.readouterr().out
    assert results(tmp_path / "run") == results(alone)


def test_a_run_of_one_process_is_refused(tmp_path):
    code, out = run(CONFIG, "--workdir", str(tmp_path / "run"), "--config.spread=False",
                    deadline_s=60)  # fmt: skip
    assert code == 2, out
    assert "[0] eejax: this run keeps its state in 1 of 2 processes" in out
    assert "Traceback" not in out


@pytest.mark.slow
def test_the_language_model_learns_the_same_over_processes(tmp_path):
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    assert main(["run", TINY, "--workdir", str(one), "--quiet"]) == 0
    code, out = run(TINY, "--workdir", str(two), devices=4)
    assert code == 0, out
    # As if the two processes had been killed after the first of two checkpoints.
    shutil.copytree(two, resumed)
    shutil.rmtree(resumed / "checkpoints" / "00000002")
    assert main(["run", TINY, "--workdir", str(resumed), "--resume", "--quiet"]) == 0
    expected, rows = results(one)
    for root in (two, resumed):
        summary, metrics = results(root)
        for name, value in summary.items():
            if name != "params_sha256":
                assert value == pytest.approx(expected[name], rel=1e-5), name
        for a, b in zip(metrics, rows, strict=True):
            assert a == {k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v
                         for k, v in b.items()}  # fmt: skip
