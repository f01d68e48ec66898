"""What the executor does in every tick, worked out of a schedule before anything is traced."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from eejax.cotrain.pipeline.schedule import Schedule, check, times

Pairs = tuple[tuple[int, int], ...]
"""Source and destination devices of a permute."""


class Row(NamedTuple):
    """Numbers that a device reads in a tick; a plan has int32 ``[ticks, stages]``, -1 unused.

    Attributes:
      forward: micro-batch to run forward.
      forward_chunk: its chunk.
      forward_input: slot of the stash that holds its input.
      forward_saved: slot for what its backward needs.
      backward: micro-batch to run backward.
      backward_chunk: its chunk.
      backward_input: slot of its input, when it is recomputed.
      backward_saved: slot of what its forward saved.
      backward_gradient: slot of the gradient of its output; -1 at the last stage.
      arriving_input: slot for the activation that arrives at the end of the tick.
      arriving_gradient: slot for the gradient that arrives at the end of the tick.
      versions: further tables, for weights that change on the way.
    """

    forward: np.ndarray
    forward_chunk: np.ndarray
    forward_input: np.ndarray
    forward_saved: np.ndarray
    backward: np.ndarray
    backward_chunk: np.ndarray
    backward_input: np.ndarray
    backward_saved: np.ndarray
    backward_gradient: np.ndarray
    arriving_input: np.ndarray
    arriving_gradient: np.ndarray
    versions: tuple = ()


class Step(NamedTuple):
    """What the code of a tick does at all, on any device.

    Attributes:
      forward: whether there are forwards.
      backward: whether there are backwards.
      activations: who sends activations to whom.
      gradients: who sends gradients to whom.
    """

    forward: bool
    backward: bool
    activations: Pairs
    gradients: Pairs


class Phase(NamedTuple):
    """Some ticks that run the same code, in turn if there are several steps.

    Attributes:
      start: first tick.
      stop: the tick after the last.
      steps: of a period of ticks, one each; equal ones in a row share their code.
    """

    start: int
    stop: int
    steps: tuple[Step, ...]


class Plan(NamedTuple):
    """A schedule made ready for execution.

    Attributes:
      schedule: the schedule.
      rows: the numbers of all ticks.
      input_slots: activations that a device has room for.
      gradient_slots: gradients of activations that a device has room for.
      saved_slots: sets of residuals that a device has room for; 0 when all is recomputed.
      phases: in the order of time.
    """

    schedule: Schedule
    rows: Row
    input_slots: int
    gradient_slots: int
    saved_slots: int
    phases: tuple[Phase, ...]


def make_plan(schedule: Schedule, recompute: bool) -> Plan:
    """Works out slots, messages and phases.

    A device keeps what waits in slots that are used again as soon as they are free, as few as can
    be; all devices of an SPMD program have room for as many as the fullest needs. In a tick the
    forward comes first, then the backward, then messages arrive.

    Args:
      schedule: any schedule that `check` accepts.
      recompute: whether a backward starts from the stashed input; the last stage, whose backward
        follows at once, then never runs a separate forward. If False, it starts from residuals that
        its forward saved.

    Returns:
      The plan.

    Raises:
      ValueError: the schedule breaks a dependency.

    Example:
      >>> from eejax.cotrain.pipeline import one_f_one_b
      >>> make_plan(one_f_one_b(4, 32), recompute=True).input_slots  # Of stage 1: S - 1.
      3
    """
    forward_tick, backward_tick = times(check(schedule))
    stages, (microbatches, depth) = schedule.stages, forward_tick.shape
    rows = Row(*(np.full((schedule.ticks, stages), -1, np.int32) for _ in Row._fields[:-1]))
    rows.forward[:], rows.forward_chunk[:] = schedule.forward, schedule.forward_chunk
    rows.backward[:], rows.backward_chunk[:] = schedule.backward, schedule.backward_chunk

    room = {"input": 0, "gradient": 0, "saved": 0}
    for s in range(stages):
        waiting = {name: [] for name in room}  # (start, end, tick and row of each use)
        for m in range(microbatches):
            for k in range(s, depth, stages):
                f, b = int(forward_tick[m, k]), int(backward_tick[m, k])
                if k > 0:
                    sent = int(forward_tick[m, k - 1])
                    uses = [(rows.arriving_input, sent), (rows.forward_input, f)]
                    uses += [(rows.backward_input, b)] * recompute
                    end = backward_ends(b) if recompute else forward_ends(f)
                    waiting["input"].append((arrives(sent), end, uses))
                if k < depth - 1:
                    sent = int(backward_tick[m, k + 1])
                    uses = [(rows.arriving_gradient, sent), (rows.backward_gradient, b)]
                    waiting["gradient"].append((arrives(sent), backward_ends(b), uses))
                if not recompute:
                    uses = [(rows.forward_saved, f), (rows.backward_saved, b)]
                    waiting["saved"].append((forward_ends(f), backward_ends(b), uses))
        for name, entries in waiting.items():
            slots = assign_slots([entry[:2] for entry in entries])
            room[name] = max([room[name], *(slot + 1 for slot in slots)])
            for slot, (_, _, uses) in zip(slots, entries):
                for table, tick in uses:
                    table[tick, s] = slot
    if recompute:
        last = (schedule.forward_chunk == schedule.chunks - 1) & (np.arange(stages) == stages - 1)
        rows.forward[last] = -1
    return Plan(schedule, rows, *room.values(), _phases(schedule, rows))


def forward_ends(tick: int) -> int:
    """Gives the moment after the forward of a tick."""
    return 4 * tick + 1


def backward_ends(tick: int) -> int:
    """Gives the moment after the backward of a tick."""
    return 4 * tick + 2


def arrives(tick: int) -> int:
    """Gives the moment in which what was sent in a tick arrives."""
    return 4 * tick + 3


def assign_slots(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """Gives every interval a slot that no other uses meanwhile, with as few slots as can be.

    Args:
      intervals: start and end; a slot may be written in the moment in which its last use ends.

    Returns:
      One slot each.

    Example:
      >>> assign_slots([(0, 4), (1, 3), (3, 5), (4, 6)])
      [0, 1, 1, 0]
    """
    ends, slots = [], [0] * len(intervals)
    for i in sorted(range(len(intervals)), key=lambda i: intervals[i][0]):
        start, end = intervals[i]
        slot = next((n for n, free in enumerate(ends) if free <= start), len(ends))
        ends[slot : slot + 1] = [end]
        slots[i] = slot
    return slots


def _phases(schedule: Schedule, rows: Row) -> tuple[Phase, ...]:
    """Cuts where forwards have ended before backwards begin, or before whole turns of chunks."""
    forward, backward = (np.flatnonzero((t >= 0).any(1)) for t in schedule[1:3])
    split = int(forward[-1]) + 1
    if split > backward[0]:
        split = schedule.ticks % _turn(schedule)
    cuts = sorted({0, split, schedule.ticks})
    return tuple(_phase(schedule, rows, start, stop) for start, stop in pairwise(cuts))


def _phase(schedule: Schedule, rows: Row, start: int, stop: int) -> Phase:
    """Takes ticks in periods in which devices take turns, so that few messages are empty.

    These are the two ticks of devices that alternate, and the turn of a device through its chunks,
    of which only some cross from the last device to the first, or back.
    """
    both = [table[start:stop] >= 0 for table in (schedule.forward, schedule.backward)]
    alternate = all(t.any() and not (t[::2].any(0) & t[1::2].any(0)).any() for t in both)
    period = 2 if alternate else _turn(schedule)
    period = 1 if (stop - start) % period else period
    return Phase(
        start,
        stop,
        tuple(_step(schedule, rows, slice(start + i, stop, period)) for i in range(period)),
    )


def _turn(schedule: Schedule) -> int:
    """Counts the ticks after which a device runs the same chunk for the next micro-batches."""
    return schedule.chunks * schedule.stages if schedule.chunks > 1 else 1


def _step(schedule: Schedule, rows: Row, ticks: slice) -> Step:
    stages, last = schedule.stages, schedule.chunks - 1

    def pairs(micro: np.ndarray, chunk: np.ndarray, end: int, last: int, step: int) -> Pairs:
        sends = micro[ticks] >= 0
        # The stage at the end of the model has nobody to send to.
        sends[:, end] &= chunk[ticks, end] != last
        return tuple((int(s), int(s + step) % stages) for s in np.flatnonzero(sends.any(0)))

    return Step(
        bool((rows.forward[ticks] >= 0).any()),
        bool((rows.backward[ticks] >= 0).any()),
        pairs(schedule.forward, schedule.forward_chunk, stages - 1, last, 1),
        pairs(schedule.backward, schedule.backward_chunk, 0, 0, -1),
    )
