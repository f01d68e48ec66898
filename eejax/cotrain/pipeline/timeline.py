"""When every task of a schedule runs, and the share of time in which devices wait: modelled."""

from typing import Literal, NamedTuple

import numpy as np

from eejax.cotrain.pipeline.schedule import Schedule


class Task(NamedTuple):
    """One forward or backward on the time line.

    Attributes:
      kind: ``"forward"`` or ``"backward"``.
      microbatch: its number.
      stage: the device.
      chunk: the chunk on that device.
      start: when it begins, in the unit of the costs.
      end: when it ends.
    """

    kind: Literal["forward", "backward"]
    microbatch: int
    stage: int
    chunk: int
    start: float
    end: float


def timeline(
    schedule: Schedule, forward: float = 1.0, backward: float = 2.0, *, lockstep: bool = False
) -> list[Task]:
    """Models when every task runs; messages take no time.

    Args:
      schedule: a schedule.
      forward: cost of the forward of one device, all its chunks; any unit.
      backward: cost of the backward; 3 instead of 2 with full rematerialisation.
      lockstep: a tick begins when the neighbours have ended the tick before, as in one SPMD program
        that exchanges messages after every tick. If False, a task begins when its device is free
        and its message there.

    Returns:
      The tasks in order of ticks.

    Example:
      >>> from eejax.cotrain.pipeline import fused
      >>> timeline(fused(1, 1))[1]
      Task(kind='backward', microbatch=0, stage=0, chunk=0, start=1.0, end=3.0)
    """
    stages, chunks = schedule.stages, schedule.chunks
    last = stages * chunks - 1
    free, done, tasks = np.zeros(stages), {}, []
    for t in range(schedule.ticks):
        before = free.copy()
        for s in range(stages):
            if lockstep:
                around = (s - 1, s, s + 1)
                # Only chunks close the chain of devices to a ring.
                free[s] = max(before[i % stages] for i in around if chunks > 1 or 0 <= i < stages)
            for kind, cost, step in (("forward", forward, -1), ("backward", backward, 1)):
                m, c = getattr(schedule, kind)[t, s], getattr(schedule, f"{kind}_chunk")[t, s]
                if m < 0:
                    continue
                k = c * stages + s
                needs = (kind, m, k + step) if 0 <= k + step <= last else ("forward", m, k)
                start = max(free[s], done.get(needs, 0.0))
                free[s] = done[kind, m, k] = start + cost / chunks
                tasks.append(Task(kind, int(m), s, int(c), float(start), float(free[s])))
    return tasks


def bubble(
    schedule: Schedule, forward: float = 1.0, backward: float = 2.0, *, lockstep: bool = False
) -> float:
    """Gives the share of time in which devices are idle, modelled by `timeline`.

    Args:
      schedule: a schedule.
      forward: as for `timeline`.
      backward: as for `timeline`.
      lockstep: as for `timeline`.

    Returns:
      A share in [0, 1).

    Example:
      >>> from eejax.cotrain.pipeline import gpipe
      >>> round(bubble(gpipe(4, 16)), 4), round(3 / (16 + 3), 4)
      (0.1579, 0.1579)
    """
    tasks = timeline(schedule, forward, backward, lockstep=lockstep)
    busy = sum(task.end - task.start for task in tasks)
    return 1 - busy / (schedule.stages * max(task.end for task in tasks))
