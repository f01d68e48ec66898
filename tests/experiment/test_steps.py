"""Runs as steps: whatever interrupts them, the end is the same to the bit."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from eejax.experiment import steps
from eejax.experiment.context import Context
from eejax.experiment.metrics import read_metrics
from eejax.experiment.progress import make_progress
from eejax.experiment.signals import Interrupted, Stop
from eejax.experiment.steps import FOLDER, RunState, Step, run_steps
from eejax.experiment.workdir import RunDir
from eejax.tiers import ledger


class Killed(Exception):
    """Stands for kill -9 amid a step."""


def make_steps(die_at=None):
    def step(number, phase):
        def run(state, write):
            write(number, {"value": float(state.arrays["x"][0])})
            if number == die_at:
                raise Killed
            arrays = {"x": state.arrays["x"] * np.float32(1.1) + number}
            results = state.results | {f"step{number}": float(arrays["x"][1]), "pair": (1, 2)}
            log = ledger.record(state.ledger, "end", "edge", "data", "image", 784, number)
            return RunState(arrays, results, log), f"x {results[f'step{number}']:.2f}"

        return Step(phase, run)

    return [step(n, "learn" if n < 3 else "answer") for n in range(5)]


def first():
    return RunState({"x": jnp.array([1.0, 2.0], jnp.float32)}, {}, ())


def make_context(folder, resume=False, stop=None):
    folder.mkdir(exist_ok=True)
    out = io.StringIO()
    stop = stop or Stop(lambda: None, lambda saved=None: None)
    progress = make_progress(console=Console(file=out))
    return Context(RunDir(folder), resume, progress, stop, tensorboard=False), out


def files_of(folder):
    return read_metrics(RunDir(folder)), (folder / "metrics.jsonl").read_bytes()


def test_all_steps_in_order(tmp_path):
    context, out = make_context(tmp_path / "run")
    state = run_steps(make_steps(), first(), context)
    assert list(state.results) == ["step0", "pair", "step1", "step2", "step3", "step4"]
    assert state.results["pair"] == [1, 2]  # As JSON gives it back.
    assert ledger.total_bytes(state.ledger) == 784 * (1 + 2 + 3 + 4)
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [
        ["learn", "3/3"],
        ["answer", "2/2"],
    ]


@pytest.mark.parametrize("die_at", range(5))
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path, die_at):
    whole, _ = make_context(tmp_path / "whole")
    expected = run_steps(make_steps(), first(), whole)
    broken, _ = make_context(tmp_path / "broken")
    with pytest.raises(Killed):
        run_steps(make_steps(die_at), first(), broken)
    again, out = make_context(tmp_path / "broken", resume=True)
    state = run_steps(make_steps(), first(), again)
    if die_at:
        assert f"resuming after step {die_at} of 5" in out.getvalue()
    assert state.results == expected.results
    assert state.ledger == expected.ledger
    assert state.arrays["x"].tobytes() == expected.arrays["x"].tobytes()
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "broken")


def test_a_finished_run_does_nothing_when_resumed(tmp_path):
    context, _ = make_context(tmp_path / "run")
    expected = run_steps(make_steps(), first(), context)
    again, out = make_context(tmp_path / "run", resume=True)
    assert run_steps(make_steps(), first(), again).results == expected.results
    assert "learn" not in out.getvalue()


def test_a_signal_stops_after_the_save(tmp_path):
    def check(saved=None):
        if saved == 2:
            raise Interrupted(15, saved)

    context, _ = make_context(tmp_path / "run", stop=Stop(lambda: 15, check))
    with pytest.raises(Interrupted):
        run_steps(make_steps(), first(), context)
    assert (tmp_path / "run" / FOLDER / "00000002" / "manifest.json").exists()


def test_another_list_of_steps_is_refused(tmp_path):
    context, _ = make_context(tmp_path / "run")
    run_steps(make_steps(), first(), context)
    again, _ = make_context(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="had 5 steps and has 4 now"):
        run_steps(make_steps()[:4], first(), again)


def test_a_run_of_one_process_is_not_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "several_processes", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    context, _ = make_context(tmp_path / "run")
    with pytest.raises(ValueError, match="keeps its state in 1 of 3 processes"):
        run_steps(make_steps(), first(), context)


def test_a_damaged_checkpoint_costs_one_step(tmp_path):
    context, _ = make_context(tmp_path / "run")
    expected = run_steps(make_steps(), first(), context)
    newest = tmp_path / "run" / FOLDER / "00000005" / "meta.json"
    newest.write_bytes(newest.read_bytes()[:-1])
    again, out = make_context(tmp_path / "run", resume=True)
    assert run_steps(make_steps(), first(), again).results == expected.results
    assert "00000005 is damaged" in out.getvalue()
    assert "resuming after step 4 of 5" in out.getvalue()
