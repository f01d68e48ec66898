"""Training over real processes: killed, stopped, frozen, and resumed on another number of them."""

import re
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from eejax import trees
from eejax.cotrain.multihost import process_mesh
from eejax.experiment import checkpoint
from eejax.experiment.launch import launch
from eejax.experiment.runs.multihost_digits import init, train

WORKER = Path(__file__).with_name("multihost_worker.py")
STEPS, DEADLINE_S, ALARM_S = 30, 120, 300


def run(folder, processes, *faults, steps=STEPS, **options):
    lines = []
    command = [sys.executable, str(WORKER), str(folder), str(steps), *faults]
    code = launch(command, processes, deadline_s=DEADLINE_S, write=lines.append, **options)
    return code, "".join(lines)


def state_in(folder, step=STEPS):
    restored = checkpoint.restore_newest(folder / "checkpoints", init(process_mesh()))
    assert restored.step == step
    return restored.tree


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


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
def unbroken(tmp_path_factory):
    """A run of 2 processes with 2 devices each, which nobody disturbs."""
    folder = tmp_path_factory.mktemp("unbroken")
    code, out = run(folder, 2, devices_per_process=2)
    assert (code, "all is well" in out) == (0, True), out
    return folder


def test_a_failed_and_a_killed_worker_cost_nothing_but_time(unbroken, tmp_path):
    # First before any checkpoint, then five steps after the one of step 20.
    code, out = run(tmp_path, 2, "0:1:3:raise", "1:1:25:SIGKILL",
                    devices_per_process=2, restarts=2)  # fmt: skip
    assert code == 0, out
    assert "RuntimeError: a fault of one process" in out
    assert "restart 1 of 2" in out
    assert "restart 2 of 2" in out
    assert "[0] resuming after step 20" in out
    assert trees.sha256(state_in(tmp_path)) == trees.sha256(state_in(unbroken))


def test_one_process_goes_on_where_two_were(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / f"{STEPS:08d}")
    said = []
    state, done = train(tmp_path / "checkpoints", process_mesh(), steps=STEPS, say=said.append)
    assert (done, said[0]) == (STEPS, "resuming after step 20")
    assert_close(state, state_in(unbroken))


def test_a_stopped_run_saves_and_goes_on_with_three_processes(unbroken, tmp_path):
    # Only one process gets the signal, and all must stop after the same step.
    code, out = run(tmp_path, 2, "0:1:12:SIGTERM", devices_per_process=2)
    assert code == 128 + signal.SIGTERM, out
    saved = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert saved == 12
    shutil.copytree(unbroken / "sharded", tmp_path / "sharded")
    code, out = run(tmp_path, 3, steps=saved + 5)
    assert code == 0, out
    assert f"[0] resuming after step {saved}" in out
    # The same steps without a stop, in this process alone.
    state, _ = train(tmp_path / "alone", process_mesh(), steps=saved + 5, say=lambda line: None)
    assert_close(state, state_in(tmp_path, saved + 5))


def test_a_frozen_worker_is_missed(tmp_path):
    began = time.monotonic()
    code, out = run(tmp_path, 2, "0:1:2:SIGSTOP", grace_s=0.5)
    # The other one aborts when the heartbeat of 3 seconds is missing.
    assert code == 128 + signal.SIGABRT, out
    assert time.monotonic() - began < DEADLINE_S / 2


@pytest.mark.slow
def test_survivors_go_on_without_a_killed_process(tmp_path):
    # Process 2 dies before step 21, and the others lay the state over their two devices.
    code, out = run(tmp_path / "elastic", 3, "0:2:21:SIGKILL", elastic=True)
    assert code == 0, out
    assert "launch: process 2 was ended by SIGKILL" in out
    assert "[0] lost process 2 after step 20: going on without" in out
    # The same from the checkpoint of step 20 with two processes from the start.
    shutil.copytree(tmp_path / "elastic", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / f"{STEPS:08d}")
    code, again = run(tmp_path / "two", 2)
    assert code == 0, again
    assert "[0] resuming after step 20" in again
    losses = [re.search(rf"step {STEPS}: loss (\S+)", text)[1] for text in (out, again)]
    assert losses[0] == losses[1]
    assert 0 < float(losses[0]) < 1
    assert_close(state_in(tmp_path / "elastic"), state_in(tmp_path / "two"))


@pytest.mark.slow
def test_without_process_0_nobody_goes_on_but_all_restart(tmp_path):
    code, out = run(tmp_path, 2, "0:0:21:SIGKILL", elastic=True, restarts=1)
    assert code == 0, out
    assert "restart 1 of 1" in out
    assert "[0] resuming after step 20" in out
