"""Kill -9 amid five seeded rounds: the run ends bit-identical, residuals and privacy count too."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = str(Path(__file__).with_name("kill_worker.py"))
KILLS = 5


def run(folder, cache, last):
    folder.mkdir(exist_ok=True)
    # A cache of its own: a kill may leave half a program in it, which must do no harm either.
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, WORKER, str(folder), str(last)], capture_output=True, text=True,
        timeout=300, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_amid_five_rounds_a_run_ends_bit_identical(tmp_path):
    unbroken = run(tmp_path / "unbroken", tmp_path / "xla", 0)
    assert unbroken.returncode == 0, unbroken.stderr
    rounds, digest = unbroken.stdout.split()
    assert int(rounds) == 12

    rng, reached = random.Random(0), set()
    for _ in range(KILLS):
        # A call of both engines takes about 32 steps.
        died = run(tmp_path / "killed", tmp_path / "xla", rng.randrange(1, 80))
        assert died.returncode == -signal.SIGKILL, died.stderr
        saved = (tmp_path / "killed" / "run" / "checkpoints").glob("[0-9]*")
        reached.add(max((int(p.name) for p in saved), default=0))
    assert len(reached) > 1  # So it was killed amid different calls.
    finished = run(tmp_path / "killed", tmp_path / "xla", 0)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [rounds, digest]
