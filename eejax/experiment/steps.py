"""A run as a list of steps with a checkpoint after each: whatever kills it, it goes on from there.

A step is a pure function of the state, so a step that was interrupted is simply done again, and a
resumed run ends bit-identical to an unbroken one on the same machine with as many accelerators.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from eejax.cotrain.multihost import several_processes, to_host
from eejax.experiment import checkpoint
from eejax.experiment.context import Context
from eejax.experiment.metrics import open_metrics
from eejax.experiment.workdir import finite
from eejax.tiers import Ledger, ledger

PyTree = Any

FOLDER = "checkpoints"


class RunState(NamedTuple):
    """All that a run has learnt so far.

    Attributes:
      arrays: a pytree of arrays whose structure never changes during the run.
      results: JSON values by name; what later steps and the report read.
      ledger: every transfer so far.
    """

    arrays: PyTree
    results: dict[str, Any]
    ledger: Ledger


class Step(NamedTuple):
    """A piece of a run, small enough to be done again.

    Attributes:
      phase: what the progress bar says; steps of one phase follow each other.
      run: ``(state, write) -> (state, note)``: ``write(step, metrics)`` appends a row to
        ``metrics.jsonl``, ``note`` is a short text beside the bar.
    """

    phase: str
    run: Callable[[RunState, Callable[..., None]], tuple[RunState, str]]


def run_steps(steps: Sequence[Step], first: RunState, context: Context) -> RunState:
    """Does all steps, or those that are left when the run is resumed.

    Args:
      steps: in their order; the same list in every session of a run.
      first: the state before the first step; also the structure to restore.
      context: folder, display and stop flag.

    Returns:
      The state after the last step. Where several processes run, its arrays are whole on every
      host.

    Raises:
      Interrupted: a signal came; the state was saved.
      ValueError: the checkpoint belongs to another list of steps or other shapes, or the state does
        not lie over all processes.
    """
    _check_processes(first.arrays)
    folder = context.workdir.path(FOLDER)
    state, done, position = first, 0, 0
    if context.resume:
        restored = checkpoint.restore_newest(folder, first.arrays, context.progress.say)
        if restored is not None:
            meta, done = restored.meta, restored.step
            if meta["steps"] != len(steps):
                raise ValueError(
                    f"the run had {meta['steps']} steps and has {len(steps)} now; "
                    "was the code changed? Start in a new folder"
                )
            state = RunState(restored.tree, meta["results"], ledger.from_rows(meta["ledger"]))
            position = meta["position"]
            context.progress.say(f"resuming after step {done} of {len(steps)}")

    with open_metrics(context.workdir, position, tensorboard=context.tensorboard) as metrics:
        for phase, group in itertools.groupby(enumerate(steps), lambda item: item[1].phase):
            group = list(group)
            before = max(done - group[0][0], 0)
            if before >= len(group):
                continue
            with context.progress.track(len(group), phase, before) as update:
                for number, step in group[before:]:
                    state, note = step.run(
                        state, lambda at, row, phase=phase: metrics.write(phase, at, row)
                    )
                    # What the next step reads is what a resumed run would read.
                    state = state._replace(results=json.loads(json.dumps(finite(state.results))))
                    meta = {
                        "steps": len(steps),
                        "results": state.results,
                        "ledger": ledger.to_rows(state.ledger),
                        "position": metrics.position(),
                    }
                    checkpoint.save(folder, number + 1, state.arrays, meta)
                    update(number + 1 - group[0][0], note)
                    context.stop.check(saved=number + 1)
    return state._replace(arrays=jax.tree.map(_whole, state.arrays))


def _check_processes(arrays: PyTree) -> None:
    if not several_processes():
        return
    devices = set().union(*(x.devices() for x in jax.tree.leaves(arrays) if hasattr(x, "devices")))
    held = len({device.process_index for device in devices})
    if held < jax.process_count():
        raise ValueError(
            f"this run keeps its state in {held} of {jax.process_count()} processes, so it cannot "
            "be spread over them: start it without `eejax launch`, or with a layout of all devices"
        )


def _whole(x: Any) -> Any:
    """Brings what several processes hold to this host."""
    if getattr(x, "is_fully_addressable", True) or jax.dtypes.issubdtype(
        x.dtype, jax.dtypes.prng_key
    ):
        return x
    return to_host(x)
