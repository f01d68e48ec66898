"""Experimental: the survivors of a killed process go on at once, on a smaller mesh.

What JAX supports, as measured with JAX 0.10.2 on CPU processes that gloo connects; JAX itself calls
the interface unstable, and whole only on GPUs:

- A process other than 0 may be killed, whenever it is. The others notice after the time-outs of
  ``initialize_from_env``, a few seconds, and go on from the step before.
- Process 0 may not: it holds the coordination service, and without it all abort. Recovery is then a
  restart from the last checkpoint (``eejax launch --restarts``).
- All-reduce (``psum``, ``pmean``) is what was seen to fail and to go on well, so the state must be
  whole on every device: data parallelism. Sharded states cannot be put together again without the
  dead one anyway.
- On CPUs it needs a time-out of collective operations, which also ends a run in which one process
  is slower than the others by more than that.
- The dead do not come back: a process that is started again cannot join before a restart of all.

Start it with ``eejax launch --elastic``, which sets ``EEJAX_ELASTIC=1``.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.cotrain.multihost.batches import global_batch, process_mesh
from eejax.cotrain.multihost.host import to_devices
from eejax.cotrain.multihost.processes import ELASTIC

PyTree = Any


def is_elastic() -> bool:
    """Tells whether this process was started to go on without dead ones.

    Returns:
      Whether ``EEJAX_ELASTIC`` is 1.

    Example:
      >>> is_elastic()
      False
    """
    return os.environ.get(ELASTIC) == "1"


def elastic_steps(
    make_step: Callable[[Mesh], Callable[[PyTree, int], tuple[PyTree, Any]]],
    state: PyTree,
    done: int,
    steps: int,
    *,
    after: Callable[[int, PyTree, Any, bool], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> tuple[PyTree, int]:
    """Trains with the processes that are alive.

    A step counts when all living processes have ended it; one during which a process died is done
    again by the others. All processes must call it, after ``initialize_from_env``.

    Args:
      make_step: makes ``(state, number of the step) -> (state, metrics)`` for a mesh of
        `process_mesh`. Its program may send all-reduces only, and may not donate the state.
      state: arrays that are whole on every device, or numpy arrays, the same everywhere; no typed
        keys.
      done: steps done before.
      steps: steps of the whole training.
      after: called on every living process with ``(done, state, metrics, stopping)``.
      stop: asked before every step, whether this process was told to stop; all stop after it.
      say: takes lines of text.

    Returns:
      ``(state, done)``, the state whole on every device of the living.
    """
    everyone, step, stopping = jax.devices(), None, False
    while done < steps and not stopping:
        # The living leave a block together, however long it takes, and all with an error if one
        # has died in it. So slow work has a block of its own: collective operations cannot wait.
        try:
            if step is None:
                with multihost_utils.live_devices(everyone) as living:
                    mesh = process_mesh(living)
                    state = _lay(state, mesh)
                    step, any_living = make_step(mesh), _any_living(mesh)
            with multihost_utils.live_devices(everyone):
                ahead, metrics = jax.block_until_ready(step(state, done))
                asked = any_living(stop())
            state, done, stopping = ahead, done + 1, asked
            with multihost_utils.live_devices(everyone):
                after(done, state, metrics, stopping)
        except multihost_utils.ProcessFailureError as error:
            dead = sorted({device.process_index for device in error.failed_devices})
            say(f"lost process {', '.join(map(str, dead))} after step {done}: going on without")
            step = None
    return state, done


def leave(code: int = 0) -> None:
    """Ends an elastic process; ordinary exits would wait for the dead.

    Args:
      code: its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Process 0 goes last: the others abort without it.
    if jax.process_index() == 0:
        time.sleep(1)
    os._exit(code)


def _lay(state: PyTree, mesh: Mesh) -> PyTree:
    """Copies what this process holds of the state to the devices of the mesh."""
    whole = NamedSharding(mesh, PartitionSpec())

    def copy(x):
        mine = x.addressable_data(0) if isinstance(x, jax.Array) else x
        return to_devices(np.asarray(mine), whole)

    return jax.tree.map(copy, state)


def _any_living(mesh: Mesh) -> Callable[[bool], bool]:
    """Makes the `any_process` of a mesh: an all-reduce instead of an all-gather."""
    rows, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    total = jax.jit(jax.shard_map(
        lambda x: jax.lax.psum(x, mesh.axis_names), mesh=mesh, in_specs=rows, out_specs=whole
    ))  # fmt: skip

    def any_living(flag: bool) -> bool:
        flags = global_batch(mesh, np.full(mesh.local_mesh.size, flag, np.float32))
        return float(total(flags)[0]) > 0

    return any_living
