"""Pipeline schedules as tables: who runs what in which tick, and what is held meanwhile."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Schedule(NamedTuple):
    """Which micro-batch every device runs in every tick; -1 where it is idle.

    A device may run one forward and one backward in a tick, in this order. What it sends arrives
    before the next tick. With v chunks, device ``s`` of S holds the virtual stages ``c * S + s``.

    Attributes:
      name: of the schedule.
      forward: micro-batch whose forward runs, int ``[ticks, stages]``.
      backward: micro-batch whose backward runs, int ``[ticks, stages]``.
      forward_chunk: chunk that runs forward, int ``[ticks, stages]``; 0 where idle.
      backward_chunk: chunk that runs backward, int ``[ticks, stages]``; 0 where idle.
      microbatches: M.
      chunks: v, virtual stages of a device.
    """

    name: str
    forward: np.ndarray
    backward: np.ndarray
    forward_chunk: np.ndarray
    backward_chunk: np.ndarray
    microbatches: int
    chunks: int

    @property
    def ticks(self) -> int:
        """Number of ticks."""
        return self.forward.shape[0]

    @property
    def stages(self) -> int:
        """S, the number of devices in the pipeline."""
        return self.forward.shape[1]


def gpipe(stages: int, microbatches: int) -> Schedule:
    """Makes GPipe: all forwards, then all backwards.

    Bubble ``(S - 1) / (M + S - 1)``; every stage holds M micro-batches. Messages, with the empty
    ones of fill and drain, are ``(M + S - 1) / M`` of those needed.

    Args:
      stages: S.
      microbatches: M.

    Returns:
      The schedule, of ``2 (M + S - 1)`` ticks.

    Raises:
      ValueError: a number is below 1.

    References:
      Huang et al., GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism,
      2019.

    Example:
      >>> gpipe(2, 3).forward.T.tolist()
      [[0, 1, 2, -1, -1, -1, -1, -1], [-1, 0, 1, 2, -1, -1, -1, -1]]
    """
    m, _, s = _grid(stages, microbatches)
    flush = microbatches + stages - 1
    return _schedule("gpipe", m + s, flush + m + stages - 1 - s)


def one_f_one_b(stages: int, microbatches: int) -> Schedule:
    """Makes 1F1B with a flush: a backward as soon as there is one, so that little is held.

    Bubble ``(S - 1) / (M + S - 1)`` as in GPipe; stage s holds ``min(S - s, M)`` micro-batches.
    Forwards lie on ticks of the parity of the stage, backwards on the others. Thus in each tick
    every second stage sends forward and the others send backward: ``(M + S - 1) / M`` of the
    messages needed.

    Args:
      stages: S.
      microbatches: M.

    Returns:
      The schedule, of ``2 (M + S - 1)`` ticks.

    Raises:
      ValueError: a number is below 1.

    References:
      Narayanan et al., PipeDream: Generalized Pipeline Parallelism for DNN Training, 2019.
      Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training, 2021 (PipeDream-Flush).

    Example:
      >>> stash(one_f_one_b(4, 8))
      [4, 3, 2, 1]
    """
    m, _, s = _grid(stages, microbatches)
    return _schedule("one_f_one_b", 2 * m + s, 2 * m + 2 * stages - 1 - s)


def fused(stages: int, microbatches: int) -> Schedule:
    """Makes 1F1B for programs in lock-step: a forward and a backward share a tick.

    Bubble ``(S - 1) / (M + S - 1)``, in lock-step too, where that of `one_f_one_b` is larger; stage
    s holds ``min(2 (S - 1 - s) + 1, M)`` micro-batches. Messages are ``(M + 2 S - 2) / M`` of those
    needed.

    Args:
      stages: S.
      microbatches: M.

    Returns:
      The schedule, of ``M + 2 S - 2`` ticks.

    Raises:
      ValueError: a number is below 1.

    Example:
      >>> fused(2, 3).forward.T.tolist(), fused(2, 3).backward.T.tolist()
      ([[0, 1, 2, -1, -1], [-1, 0, 1, 2, -1]], [[-1, -1, 0, 1, 2], [-1, 0, 1, 2, -1]])
    """
    m, _, s = _grid(stages, microbatches)
    return _schedule("fused", m + s, m + 2 * (stages - 1) - s)


def interleaved(stages: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Makes interleaved 1F1B: every device holds v chunks of the model, S stages apart.

    The order on each device is that of Megatron; here a forward and a backward share a tick, as in
    `fused`. Bubble ``(S - 1) / (v M + S - 1)``, for v times the messages. Device s holds
    ``min(2 (S - 1 - s) + (v - 1) S + 1, v M)`` inputs of chunks.

    Each of M micro-batches crosses ``v S - 1`` cuts both ways, ``2 M (v S - 1)`` messages. Within a
    turn of ``v S`` ticks, the link from the last device to the first is left out of the permute
    while the last chunk runs, so messages are ``1 + S / M + (S - 2)^2 / (2 M (v S - 1))`` of those
    needed (from ``M = 2 S`` on; fewer for ``M = S``), at most ``(M + 2 S - 2) / M`` as in `fused`.
    What remains is the fill and the drain: in lock-step a permute of one program has the same pairs
    in every turn.

    Args:
      stages: S, the number of devices.
      microbatches: M, a multiple of S.
      chunks: v.

    Returns:
      The schedule, of ``v M + v S + S - 2`` ticks.

    Raises:
      ValueError: a number is below 1, or M is no multiple of S.

    References:
      Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
      Megatron-LM, 2021.

    Example:
      >>> interleaved(2, 2, chunks=2).forward_chunk.T.tolist()
      [[0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]
    """
    m, c, s = _grid(stages, microbatches, chunks)
    if microbatches % stages:
        near = -(-microbatches // stages) * stages
        raise ValueError(
            f"microbatches must be a multiple of the {stages} stages, got {microbatches}; the next "
            f"is {near}"
        )
    group, place = (m // stages) * chunks * stages, m % stages
    forward = group + c * stages + place + s
    backward = group + (chunks - 1 - c) * stages + place + (stages - 1 - s)
    return _schedule("interleaved", forward, chunks * stages - 1 + backward)


def pipedream(stages: int, microbatches: int) -> Schedule:
    """Makes asynchronous 1F1B: the order of `one_f_one_b`, for a run that never flushes.

    A micro-batch here is a whole minibatch, after whose backward a stage may update its weights:
    see `asynchronous`. Over a run of M minibatches the bubble is ``(S - 1) / (M + S - 1)``, once
    for the run and not once for each update, so none in the steady state.

    Args:
      stages: S.
      microbatches: M, minibatches of the run.

    Returns:
      The schedule, of ``2 (M + S - 1)`` ticks.

    Raises:
      ValueError: a number is below 1.

    References:
      Harlap et al., PipeDream: Fast and Efficient Pipeline Parallel DNN Training, 2018. Narayanan
      et al., PipeDream: Generalized Pipeline Parallelism for DNN Training, 2019.

    Example:
      >>> pipedream(2, 3).backward.T.tolist()
      [[-1, -1, -1, 0, -1, 1, -1, 2], [-1, -1, 0, -1, 1, -1, 2, -1]]
    """
    return one_f_one_b(stages, microbatches)._replace(name="pipedream")


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    make.__name__: make for make in (gpipe, one_f_one_b, fused, interleaved, pipedream)
}
"""The schedules by name, as configurations give them."""


def times(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Inverts the tables.

    Args:
      schedule: a schedule.

    Returns:
      The tick of every forward and of every backward, each int ``[microbatches, virtual stages]``.

    Raises:
      ValueError: something never runs, or runs twice; names it.

    Example:
      >>> times(fused(2, 2))[1].tolist()
      [[2, 1], [3, 2]]
    """
    shape = (schedule.microbatches, schedule.chunks * schedule.stages)
    both = []
    for kind in ("forward", "backward"):
        m, c = getattr(schedule, kind), getattr(schedule, f"{kind}_chunk")
        t, s = np.nonzero(m >= 0)
        m, k = m[t, s], c[t, s] * schedule.stages + s
        count = np.zeros(shape, int)
        np.add.at(count, (m, k), 1)
        if (count != 1).any():
            m, k = np.argwhere(count != 1)[0]
            raise ValueError(
                f"{schedule.name}: the {kind} of micro-batch {m} at stage {k} runs "
                f"{count[m, k]} times, not once"
            )
        tick = np.zeros(shape, int)
        tick[m, k] = t
        both.append(tick)
    return both[0], both[1]


def check(schedule: Schedule) -> Schedule:
    """Refuses a schedule that breaks a dependency.

    Args:
      schedule: tables of any origin.

    Returns:
      The schedule.

    Raises:
      ValueError: something does not run exactly once, or runs before what it needs; names it.

    Example:
      >>> late = fused(2, 3)
      >>> check(late._replace(forward=late.forward[:, ::-1]))
      Traceback (most recent call last):
        ...
      ValueError: fused: the forward of micro-batch 0 at stage 1 runs in tick 0, but needs what
      stage 0 runs in tick 1
    """
    forward, backward = times(schedule)

    def refuse(kind: str, tick: np.ndarray, step: int) -> None:
        # The stage that is needed lies `step` away, and must have run in an earlier tick.
        own = tick[:, 1:] if step < 0 else tick[:, :-1]
        other = tick[:, :-1] if step < 0 else tick[:, 1:]
        for m, k in np.argwhere(own <= other)[:1]:
            stage = k + (step < 0)
            raise ValueError(
                f"{schedule.name}: the {kind} of micro-batch {m} at stage {stage} runs in tick "
                f"{own[m, k]}, but needs what stage {stage + step} runs in tick {other[m, k]}"
            )

    refuse("forward", forward, -1)
    refuse("backward", backward, 1)
    for m, k in np.argwhere(backward < forward)[:1]:
        raise ValueError(
            f"{schedule.name}: the backward of micro-batch {m} at stage {k} runs in tick "
            f"{backward[m, k]}, before its forward in tick {forward[m, k]}"
        )
    return schedule


def stash(schedule: Schedule) -> list[int]:
    """Counts the micro-batches that each device holds at most, from forward to backward.

    Args:
      schedule: a schedule.

    Returns:
      One number a device; with chunks, inputs of chunks.

    Example:
      >>> stash(gpipe(3, 8)), stash(fused(3, 8))
      ([8, 8, 8], [5, 3, 1])
    """
    forward, backward = times(schedule)
    held = [((forward <= t) & (backward >= t)).sum(0) for t in range(schedule.ticks)]
    by_device = np.array(held).reshape(schedule.ticks, schedule.chunks, schedule.stages).sum(1)
    return by_device.max(0).tolist()


def _grid(stages: int, microbatches: int, chunks: int = 1) -> list[np.ndarray]:
    for name, value in (("stages", stages), ("microbatches", microbatches), ("chunks", chunks)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return np.meshgrid(*map(np.arange, (microbatches, chunks, stages)), indexing="ij")


def _schedule(name: str, forward: np.ndarray, backward: np.ndarray) -> Schedule:
    """Makes the tables from the tick of every task, each ``[microbatches, chunks, stages]``."""
    microbatches, chunks, stages = forward.shape
    m, c, s = _grid(stages, microbatches, chunks)
    tables = []
    for values, idle in ((m, -1), (c, 0)):
        for tick in (forward, backward):
            table = np.full((backward.max() + 1, stages), idle)
            table[tick, s] = values
            tables.append(table)
    return check(Schedule(name, *tables, microbatches, chunks))
