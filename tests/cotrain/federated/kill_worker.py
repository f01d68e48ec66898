"""A small private run over two engines that kills itself: `python kill_worker.py FOLDER NUMBER`.

It dies by kill -9 amid the local step of that NUMBER in this process, and prints a digest at its
end. Clients keep residuals of error feedback, on the device and on disk.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from eejax import trees
from eejax.cotrain.federated import (
    disk_store,
    fedavg,
    population,
    replicate,
    sampled,
    samplers,
    stored,
)
from eejax.data import pack
from eejax.experiment.context import Context
from eejax.experiment.progress import make_progress
from eejax.experiment.signals import Stop
from eejax.experiment.steps import RunState, Step, run_steps
from eejax.experiment.workdir import RunDir
from eejax.protect import sampling, user_level_dp
from eejax.tiers import tier_mesh
from eejax.wire import topk

CLIENTS, ROUNDS, STEPS, KEY = 8, 2, 6, jax.random.key(2)


def dying(last):
    """A gradient whose computation number `last` in this process is its death; 0 never comes."""
    taken = itertools.count(1)

    def count():
        if next(taken) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def grad_fn(w, batch, key):
        del key
        jax.debug.callback(count)
        return w - batch.mean(0), {}

    return grad_fn


def main(folder, last):
    how = sampling("poisson", "add or remove one", clients=CLIENTS, cohort=4)
    algorithm = user_level_dp(
        fedavg(dying(last), optax.sgd(0.1)), how, KEY, noise_multiplier=0.5, bound=0.5
    )
    mesh, sampler = tier_mesh(1, 1, jax.devices()[:1]), samplers.poisson(how.rate)
    settings = {"steps": 2, "batch": 2, "codec": topk(0.4)}
    store = disk_store(folder / "store")
    engines = {
        "device": sampled(algorithm, mesh, sampler, **settings),
        "disk": stored(algorithm, mesh, sampler, store, **settings),
    }
    data = np.random.default_rng(0).normal(size=(4 * CLIENTS, 5)).astype(np.float32)
    index = pack(np.split(np.arange(4 * CLIENTS), CLIENTS))
    rows, data = replicate(mesh, (population(index), data))

    def step(state, write):
        after = {
            name: engine.run(state.arrays[name], rows, data, KEY, rounds=ROUNDS)[0]
            for name, engine in engines.items()
        }
        return state._replace(arrays=jax.block_until_ready(after)), ""

    first = {name: engine.init(jnp.zeros(5), rows) for name, engine in engines.items()}
    (folder / "run").mkdir(exist_ok=True)
    stop = Stop(lambda: None, lambda saved=None: None)
    progress = make_progress(True, Console(quiet=True))
    context = Context(RunDir(folder / "run"), True, progress, stop, tensorboard=False)
    end = run_steps([Step("train", step)] * STEPS, RunState(first, {}, ()), context).arrays
    assert len({int(s.server.spent.rounds) for s in end.values()}) == 1
    on_disk = store.gather((), np.arange(CLIENTS), int(end["disk"].steps))
    residual = jax.device_get(end["device"].clients.codec)
    assert np.abs(residual).max() > 0
    print(int(end["disk"].server.spent.rounds), trees.sha256((jax.device_get(end), on_disk)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
