"""What a pipeline runs: stages of one function, and the form of their parameters and batches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from eejax import trees
from eejax.cotrain.pipeline.schedule import Schedule
from eejax.tiers.mesh import cast_varying

PyTree = Any


class Stages(NamedTuple):
    """A model cut into stages for a pipeline; see `equal` and `unequal`.

    Attributes:
      branches: functions ``(params, x, inputs, targets, first, last) -> (y, loss)`` of one
        micro-batch: one for all stages, or one for each in the order of the model. ``x`` is the
        output of the stage before; the first stage reads ``inputs`` instead. ``loss`` is what this
        stage adds to the loss. ``first`` and ``last`` tell where it is, as traced booleans.
      activation: ``(inputs of one micro-batch) -> zeros`` shaped as what crosses the cuts.
      skip: whether idle work is left out by `lax.cond`, else it is done and thrown away.
    """

    branches: tuple[Callable[..., tuple[PyTree, jax.Array]], ...]
    activation: Callable[[PyTree], PyTree]
    skip: bool = True


def equal(
    stage_fn: Callable[..., PyTree], loss_fn: Callable[..., jax.Array], *, skip: bool = True
) -> Stages:
    """Makes stages of one function that keeps the shape of its input.

    Args:
      stage_fn: ``(params, x) -> y`` of one stage and one micro-batch; ``y`` as ``x``, a tree of
        floats ``[batch, ...]``. It may hold collectives over other axes of the mesh.
      loss_fn: ``(y, targets) -> scalar``, the mean over the micro-batch.
      skip: False computes even where a stage is idle, and masks the result: for accelerators on
        which collectives inside `lax.cond` do not work.

    Returns:
      The stages, as many as parameters are given for.

    Raises:
      ValueError: when traced, ``y`` has another shape or dtype than ``x``.
    """

    def apply(params, x, inputs, targets, first, last):
        y = stage_fn(params, jax.tree.map(lambda a, b: jnp.where(first, a, b), inputs, x))
        if trees.abstract(y) != trees.abstract(x):
            raise ValueError(
                f"stage_fn must keep the form of its input {trees.abstract(x)}, but it returns "
                f"{trees.abstract(y)}; see unequal"
            )
        if not skip:
            return y, jnp.where(last, loss_fn(y, targets), 0)
        nothing = zeros_of(jax.eval_shape(loss_fn, y, targets))
        return y, lax.cond(last, loss_fn, lambda *_: nothing, y, targets)

    return Stages((apply,), lambda inputs: jax.tree.map(jnp.zeros_like, inputs), skip)


def stack(stages: Sequence[PyTree], schedule: Schedule) -> PyTree:
    """Stacks the parameters of equal stages as a pipeline wants them.

    Args:
      stages: one tree for each (virtual) stage in the order of the model: the form of checkpoints,
        which no schedule changes.
      schedule: gives the numbers of chunks and devices.

    Returns:
      Leaves ``[chunks, stages, ...]``.

    Raises:
      ValueError: the number of trees does not suit the schedule.

    Example:
      >>> from eejax.cotrain.pipeline import interleaved
      >>> stack([0.0, 1.0, 2.0, 3.0], interleaved(2, 2, chunks=2)).tolist()  # Device 0: 0 and 2.
      [[0.0, 1.0], [2.0, 3.0]]
    """
    shape = (schedule.chunks, schedule.stages)
    if len(stages) != schedule.chunks * schedule.stages:
        raise ValueError(
            f"stages must be {schedule.chunks} chunks on {schedule.stages} devices, "
            f"{schedule.chunks * schedule.stages} in all; got {len(stages)}"
        )
    return jax.tree.map(lambda *p: jnp.stack(p).reshape(shape + jnp.shape(p[0])), *stages)


def unstack(params: PyTree) -> list[PyTree]:
    """Undoes `stack`.

    Args:
      params: leaves ``[chunks, stages, ...]``.

    Returns:
      One tree for each stage, in the order of the model.
    """
    chunks, stages = jax.tree.leaves(params)[0].shape[:2]
    places = [(c, s) for c in range(chunks) for s in range(stages)]
    return [jax.tree.map(lambda p, place=place: p[place], params) for place in places]


def microbatches(batch: PyTree, count: int) -> PyTree:
    """Splits a batch for a pipeline.

    Args:
      batch: leaves ``[batch, ...]``.
      count: M, a divisor of the batch.

    Returns:
      Leaves ``[count, batch / count, ...]``.

    Raises:
      ValueError: ``count`` does not divide the batch.

    Example:
      >>> microbatches(jnp.arange(6), 3).tolist()
      [[0, 1], [2, 3], [4, 5]]
    """

    def split(x):
        if x.shape[0] % count:
            near = [d for d in range(1, x.shape[0] + 1) if x.shape[0] % d == 0]
            near = min(near, key=lambda d: abs(d - count))
            raise ValueError(
                f"count must divide the batch of {x.shape[0]}, got {count}; the nearest is {near}"
            )
        return x.reshape(count, -1, *x.shape[1:])

    return jax.tree.map(split, batch)


def zeros_of(abstract: PyTree) -> PyTree:
    """Makes zeros that vary over the same mesh axes as the abstract values, inside a `shard_map`.

    Args:
      abstract: from `jax.eval_shape`.

    Returns:
      Zeros.
    """
    return jax.tree.map(lambda x: cast_varying(jnp.zeros(x.shape, x.dtype), varying(x)), abstract)


def varying(tree: PyTree) -> tuple[str, ...]:
    """Names the mesh axes over which any leaf varies, inside a `shard_map`.

    Args:
      tree: arrays or abstract arrays.

    Returns:
      The names, sorted.
    """
    return tuple(sorted({a for x in jax.tree.leaves(tree) for a in _axes(x)}))


def _axes(x: Any) -> frozenset[str]:
    kind = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    return kind.manual_axis_type.varying
