"""Kill -9 at 20 seeded times and damage of 60 bytes: nothing is lost, nothing is wrong."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eejax.experiment import checkpoint
from eejax.experiment.config import load_config
from eejax.experiment.steps import FOLDER

TOY = str(Path(__file__).with_name("toy_config.py"))
LIFECYCLE = str(Path(__file__).parents[2] / "configs" / "lifecycle_mnist.py") + ":tiny"
KILLS, FLIPS = 20, 60


def start(config, folder, *options):
    # A cache of its own: a kill may leave half a program in it, which must do no harm either.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "xla"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "eejax.experiment.cli", "run", config, "--quiet",
               "--workdir", str(folder), "--resume", *options]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def finish(config, folder, *options):
    process = start(config, folder, *options)
    out, _ = process.communicate(timeout=580)
    assert process.returncode == 0, out
    return out


def files_of(folder):
    names = ("summary.json", "metrics.jsonl", "config.json")
    return {name: (folder / name).read_bytes() for name in names}


@functools.cache
def unbroken(root):
    """A run that nobody disturbs, and how long it takes once it has begun to save."""
    process, began = start(TOY, root / "unbroken"), None
    while process.poll() is None:
        if began is None and (root / "unbroken" / FOLDER / "00000001").exists():
            began = time.monotonic()
        time.sleep(0.01)
    seconds = time.monotonic() - began
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return files_of(root / "unbroken"), seconds


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("reliability")


def steps_in(folder):
    return sorted(p.name for p in (folder / FOLDER).glob("*") if p.name.isdecimal())


def kill_until_done(config, folder, kills, wait, seed=0):
    """Kills a run again and again, a random while after it has started to work."""
    rng = random.Random(seed)
    killed = 0
    while killed < kills:
        before = steps_in(folder)
        process = start(config, folder)
        # From any moment of the start to some steps later.
        patience = None if rng.random() < 0.8 else rng.uniform(0.2, 2.0)
        began = time.monotonic()
        while process.poll() is None and steps_in(folder) == before:
            if patience is not None and time.monotonic() - began > patience:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, wait))
        ended = process.poll() is not None
        process.kill()
        out, _ = process.communicate()
        if ended:
            assert process.returncode == 0, out
            return killed
        killed += 1
    return killed


def test_killed_at_20_moments_the_run_ends_bit_identical(root):
    expected, seconds = unbroken(root)
    folder = root / "killed"
    killed = kill_until_done(TOY, folder, KILLS, wait=seconds / KILLS)
    out = finish(TOY, folder)
    assert killed == KILLS
    assert "damaged" not in out
    assert files_of(folder) == expected


def test_any_flipped_byte_is_noticed_and_the_step_before_is_used(root, tmp_path):
    expected, _ = unbroken(root)
    rng = random.Random(1)
    pristine = root / "unbroken"
    newest = steps_in(pristine)[-1]
    files = [p for p in (pristine / FOLDER / newest).rglob("*") if p.is_file() and p.stat().st_size]
    config, run = load_config(TOY)
    like = run.__globals__["make"](config)[1].arrays
    for _ in range(FLIPS):
        folder = tmp_path / "checkpoints"
        shutil.copytree(pristine / FOLDER, folder)
        victim = folder / rng.choice(files).relative_to(pristine / FOLDER)
        content = bytearray(victim.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(content)
        said = []
        restored = checkpoint.restore_newest(folder, like, said.append)
        assert restored.step == int(newest) - 1
        assert len(said) == 1
        assert newest in said[0]
        assert "quarantine" in said[0]
        assert (folder / "quarantine" / f"{newest}-0").exists()
        shutil.rmtree(folder)

    # And a run that goes on from such a folder ends as if nothing had been.
    folder = tmp_path / "run"
    shutil.copytree(pristine, folder)
    victim = folder / FOLDER / newest / "manifest.json"
    victim.write_bytes(victim.read_bytes()[:-1])
    out = finish(TOY, folder)
    assert f"checkpoint {newest} is damaged" in out
    assert files_of(folder) == expected


def test_sigterm_saves_and_says_how_to_go_on(root):
    expected, _ = unbroken(root)
    folder = root / "terminated"
    process = start(TOY, folder)
    while process.poll() is None and not steps_in(folder):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "saved step" in out
    assert "--resume" in out
    finish(TOY, folder)
    assert files_of(folder) == expected


@pytest.mark.slow
def test_the_life_cycle_survives_20_kills(root):
    finish(LIFECYCLE, root / "life")
    killed, runs = 0, 0
    while killed < KILLS:  # A run has fewer steps than that, so it takes several.
        folder = root / f"life{runs}"
        killed += kill_until_done(LIFECYCLE, folder, KILLS - killed, wait=1.0, seed=runs)
        finish(LIFECYCLE, folder)
        assert files_of(folder) == files_of(root / "life")
        runs += 1
    assert len(json.loads((root / "life" / "summary.json").read_text())["params_sha256"]) == 64
