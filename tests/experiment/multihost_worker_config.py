"""A config of the multi-host tests: integers over all devices, a step each, and a fault as told."""

import os
import signal
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from eejax import trees
from eejax.cotrain.multihost import process_mesh
from eejax.experiment.steps import RunState, Step, run_steps

STEPS = 4


@dataclass
class Config:
    fault: str = ""  # ATTEMPT:PROCESS:STEP:SIGNAL
    spread: bool = True


def get_config(arg=None):
    return Config()


def run(config, context):
    mesh = process_mesh()
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    update = jax.jit(lambda x: (3 * x + 1, x.sum()), out_shardings=(rows, whole))
    here = [os.environ.get("EEJAX_ATTEMPT"), os.environ.get("EEJAX_PROCESS_ID")]

    def step(number):
        def run(state, write):
            x, total = update(state.arrays["x"])
            write(number, {"total": int(total)})
            if config.fault.split(":")[:3] == [*here, str(number)]:
                os.kill(os.getpid(), getattr(signal, config.fault.split(":")[3]))
            return RunState({"x": x}, {"total": int(total)}, ()), ""

        return Step("count", run)

    x = jnp.arange(8, dtype=jnp.int32)
    first = RunState(
        {"x": jax.jit(lambda: x, out_shardings=rows)() if config.spread else x}, {}, ()
    )
    state = run_steps([step(i) for i in range(STEPS)], first, context)
    summary = {"total": state.results["total"], "sha256": trees.sha256(state.arrays)}
    context.workdir.write_json("summary.json", summary)
    return summary
