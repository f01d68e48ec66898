"""Data-parallel training over processes: an MLP on digits that survives the death of a worker.

Shows the parts of a multi-host run on little: joining, batches by process, sums up the hierarchy,
and one checkpoint that any number of processes and devices can go on from. Start it with::

  eejax launch --processes 2 --restarts 3 -- \
      python -m eejax.experiment.runs.multihost_digits runs/multihost

or, on every host of a TPU pod, the same program without a launcher. Run again with the same folder,
it goes on where it was. Experimental: with ``--elastic`` instead of ``--restarts 3`` the survivors
of a killed process go on at once without it, see `eejax.cotrain.multihost.elastic`.
"""

import argparse
import itertools
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax import data
from eejax.cotrain.multihost import (
    DEVICE,
    PROCESS,
    any_process,
    elastic_steps,
    end_on_error,
    global_batch,
    initialize_from_env,
    is_elastic,
    is_first,
    leave,
    process_mesh,
    process_place,
    process_slice,
)
from eejax.experiment import checkpoint
from eejax.experiment.signals import catch_signals
from eejax.tiers import cast_varying

PyTree = Any

WIDTHS = (64, 32, 10)
OPTIMISER = optax.sgd(0.1, momentum=0.9)


def train(
    folder: Path,
    mesh: Mesh,
    *,
    steps: int = 60,
    batch: int = 48,
    save_every: int = 10,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> tuple[PyTree, int]:
    """Trains, or goes on training, until all steps are done or a stop is requested.

    Args:
      folder: where the checkpoints are.
      mesh: of `process_mesh`.
      steps: length of the whole training.
      batch: samples of a step, over all processes.
      save_every: steps between checkpoints.
      seed: of the initial parameters and the order of the samples.
      stop: asked after every step, whether this process was told to stop.
      say: takes lines of text.

    Returns:
      The state ``(params, optimiser state)`` and how many steps are done.
    """
    state, done = _restore(folder, init(mesh, seed), say)
    step, stopping = _make_numbered_step(mesh, batch, seed), False
    while done < steps and not stopping:
        state, loss = step(state, done)
        done, stopping = done + 1, any_process(stop())
        if done % save_every == 0 or done == steps or stopping:
            say(f"step {done}: loss {float(loss):.4f}")
            checkpoint.save(folder, done, state, None)
    return state, done


def train_elastic(
    folder: Path,
    *,
    steps: int = 60,
    batch: int = 48,
    save_every: int = 10,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> tuple[PyTree, int]:
    """Trains like `train`, and goes on without processes that die.

    Args:
      folder: see `train`; the rest too.
      steps: of the whole training.
      batch: samples of a step, shared by those who live.
      save_every: steps between checkpoints.
      seed: of parameters and order.
      stop: asked before every step.
      say: takes lines of text.

    Returns:
      What `train` does.

    Raises:
      ValueError: some number of survivors could not share the batch equally.
    """
    for count in range(1, jax.process_count() + 1):
        process_slice(batch, 0, count * jax.local_device_count())
    state, done = _restore(folder, init(process_mesh(), seed), say)

    def after(done: int, state: PyTree, loss: jax.Array, stopping: bool) -> None:
        if done % save_every == 0 or done == steps or stopping:
            say(f"step {done}: loss {float(loss):.4f}")
            if is_first():
                _save_alone(folder, done, state)

    make = partial(_make_numbered_step, batch=batch, seed=seed, donate=False)
    return elastic_steps(make, state, done, steps, after=after, stop=stop, say=say)


def _save_alone(folder: Path, done: int, state: PyTree) -> None:
    # `checkpoint.save` waits for all processes, also for the dead.
    final = folder.absolute() / f"{done:08d}"
    if not final.exists():
        kinds = {name: checkpoint._kind(x) for name, x in checkpoint._leaves(state).items()}
        checkpoint._write(final, done, checkpoint._to_host(state), kinds, "null", keep=2)


def _restore(folder: Path, first: PyTree, say: Callable[[str], None]) -> tuple[PyTree, int]:
    restored = checkpoint.restore_newest(folder, first, say)
    if restored is None:
        return first, 0
    say(f"resuming after step {restored.step}")
    return restored.tree, restored.step


def _make_numbered_step(mesh: Mesh, batch: int, seed: int, donate: bool = True) -> Callable:
    """Makes a step that finds its batch by its number."""
    digits = data.load("digits", "train")
    images = digits.images.reshape(len(digits.labels), -1).astype(np.float32) / 255
    choose = jax.jit(partial(data.batch_indices, batch=batch, n_max=len(images)))
    mine, update = process_slice(batch, *process_place(mesh)), make_step(mesh, donate)

    def step(state: PyTree, number: int) -> tuple[PyTree, jax.Array]:
        rows = np.asarray(choose(jax.random.key(seed), len(images), number))[mine]
        return update(state, global_batch(mesh, {"x": images[rows], "y": digits.labels[rows]}))

    return step


def init(mesh: Mesh, seed: int = 0) -> PyTree:
    """Makes the state before the first step, the same on every device.

    Args:
      mesh: of `process_mesh`.
      seed: of the parameters.

    Returns:
      ``(params, optimiser state)``.
    """
    keys = jax.random.split(jax.random.key(seed), len(WIDTHS) - 1)
    params = {
        f"layer{i}": {
            "kernel": jax.random.normal(key, shape) * shape[0] ** -0.5,
            "bias": jnp.zeros(shape[1]),
        }
        for i, (key, shape) in enumerate(zip(keys, itertools.pairwise(WIDTHS)))
    }
    return jax.device_put((params, OPTIMISER.init(params)), NamedSharding(mesh, PartitionSpec()))


def make_step(mesh: Mesh, donate: bool = True) -> Callable:
    """Compiles one step of data-parallel training.

    Gradients are summed over the devices of a process first, then over the processes, so the
    network carries one gradient a process.

    Args:
      mesh: of `process_mesh`.
      donate: whether a step may overwrite the state it is given.

    Returns:
      ``(state, {"x": [batch, 64], "y": [batch]}) -> (state, mean loss)``.
    """
    axes = (PROCESS, DEVICE)

    def step(state, rows):
        params, moments = state
        loss, grads = jax.value_and_grad(_loss)(cast_varying(params, axes), rows["x"], rows["y"])
        total = jax.lax.psum(jax.lax.psum((loss, grads), DEVICE), PROCESS)
        loss, grads = jax.tree.map(lambda x: x / mesh.size, total)
        updates, moments = OPTIMISER.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    everywhere, rows = PartitionSpec(), PartitionSpec(axes)
    laid = jax.shard_map(
        step, mesh=mesh, in_specs=(everywhere, rows), out_specs=(everywhere, everywhere)
    )
    return jax.jit(laid, donate_argnums=(0,) if donate else ())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example as one process of several.

    Args:
      argv: arguments; those of the process if None.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=48)
    args = parser.parse_args(argv)

    say = print if is_first() else lambda text: None
    say(f"{jax.process_count()} processes of {jax.local_device_count()} devices")
    with catch_signals() as stop:
        work = train_elastic if is_elastic() else partial(train, mesh=process_mesh())
        _, done = work(
            args.folder / "checkpoints", steps=args.steps, batch=args.batch, say=say,
            stop=lambda: stop.requested() is not None,
        )  # fmt: skip
        if done < args.steps:
            say(f"stopped and saved at step {done}")
            return 128 + (stop.requested() or signal.SIGTERM)
    return 0


def _loss(params: PyTree, x: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ params["layer0"]["kernel"] + params["layer0"]["bias"][None])
    logits = hidden @ params["layer1"]["kernel"] + params["layer1"]["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    initialize_from_env()
    with end_on_error():
        code = main()
    if is_elastic():
        leave(code)
    # All come here together, so an orderly exit waits for nobody.
    sys.exit(code)
