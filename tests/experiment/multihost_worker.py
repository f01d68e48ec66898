"""One process of the multi-host tests: trains on digits, fails as told, and checks its checkpoints.

Usage: multihost_worker.py FOLDER STEPS [ATTEMPT:PROCESS:STEP:FAULT ...]
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from eejax.cotrain.multihost import (
    end_on_error,
    initialize_from_env,
    is_elastic,
    leave,
    process_mesh,
)
from eejax.experiment import checkpoint
from eejax.experiment.runs.multihost_digits import train, train_elastic
from eejax.experiment.signals import catch_signals

ROWS = 24


def sharded_state(mesh):
    """Arrays that no process has whole, with values that a careless copy would change."""
    rows = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
    rows[::5], rows[1::5] = -0.0, np.nan
    spread = NamedSharding(mesh, PartitionSpec(("process", "device")))

    def lay(x):
        return jax.make_array_from_callback(x.shape, spread, lambda index: x[index])

    everywhere = NamedSharding(mesh, PartitionSpec())
    key = jax.jit(lambda: jax.random.key(5), out_shardings=everywhere)()
    return {
        "rows": lay(rows),
        "halves": lay(rows.astype(jnp.bfloat16)),
        "key": key,
        "empty": jnp.zeros((0, 3)),
        "host": np.arange(3, dtype=np.int64) << 40,
    }


def same_parts(a, b):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    if isinstance(a, np.ndarray):
        return a.tobytes() == b.tobytes()
    parts = zip(a.addressable_shards, b.addressable_shards, strict=True)
    same = all(np.asarray(x.data).tobytes() == np.asarray(y.data).tobytes() for x, y in parts)
    return same and a.sharding == b.sharding


def check_sharded(folder, mesh):
    state = sharded_state(mesh)
    restored = checkpoint.restore_newest(folder, state)
    if restored is None:
        for _ in range(2):  # The second time the step is there.
            checkpoint.save(folder, 7, state, {"at": "seven"})
        restored = checkpoint.restore_newest(folder, state)
    assert (restored.step, restored.meta) == (7, {"at": "seven"})
    for name, leaf in state.items():
        assert same_parts(restored.tree[name], leaf), name
    try:
        checkpoint.restore_newest(folder, state | {"host": np.zeros(4)})
    except ValueError as error:
        refused = str(error)
    assert "does not fit this run: array 'host'" in refused


def main():
    folder, steps, faults = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    here = (os.environ["EEJAX_ATTEMPT"], os.environ["EEJAX_PROCESS_ID"])
    count = 0

    def after_step():
        nonlocal count
        count += 1
        for fault in faults:
            attempt, process, step, what = fault.split(":")
            if (attempt, process, int(step)) == (*here, count):
                if what == "raise":
                    raise RuntimeError("a fault of one process")
                os.kill(os.getpid(), getattr(signal, what))
        return stop.requested() is not None

    mesh = process_mesh()
    say = print if jax.process_index() == 0 else lambda text: None
    with catch_signals() as stop:
        options = {"steps": steps, "stop": after_step, "say": say}
        if is_elastic():
            _, done = train_elastic(folder / "checkpoints", **options)
        else:
            _, done = train(folder / "checkpoints", mesh, **options)
    if done == steps and not is_elastic():
        check_sharded(folder / "sharded", mesh)
        say("all is well")
    return 0 if done == steps else 143


if __name__ == "__main__":
    # A kill must not damage the programs that other tests share.
    jax.config.update("jax_enable_compilation_cache", False)
    frozen = any(fault.endswith("SIGSTOP") for fault in sys.argv[3:])
    heartbeat_s = 3 if frozen or is_elastic() else 10
    initialize_from_env(heartbeat_s=heartbeat_s, shutdown_s=5, collective_s=5)
    with end_on_error():
        code = main()
    if is_elastic():
        leave(code)
    sys.exit(code)
