"""Gradient accumulation: micro-batch after micro-batch, with no traffic between them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.cotrain.replica.replica import Batch, GradFn
from eejax.tiers import cast_varying

PyTree = Any


class Sums(NamedTuple):
    """Weighted sums over the samples of one device.

    Attributes:
      grads: sum of weight times gradient.
      weight: sum of the weights.
      metrics: sum of weight times metric, scalars.
    """

    grads: PyTree
    weight: Any
    metrics: dict[str, Any]


def accumulate(
    grad_fn: GradFn,
    params: PyTree,
    batch: Batch,
    keys: jax.Array,
    *,
    each: Callable[[PyTree], PyTree] = lambda grads: grads,
) -> Sums:
    """Sums the gradients of micro-batches, one after the other.

    The mean over all samples is sum over weight, to the last sample: a mean of the means of unequal
    micro-batches would not be. Inside `jax.shard_map`, ``params`` must vary over the mesh axes (see
    `tiers.cast_varying`), or the compiler would sum every gradient over the devices, once a
    micro-batch.

    Args:
      grad_fn: gradient of one micro-batch.
      params: the model.
      batch: leaves ``[micro, batch, ...]``.
      keys: ``[micro]``.
      each: what happens to the weighted gradient of each micro-batch before it is added.

    Returns:
      The sums. A micro-batch of weight 0 adds nothing, even when its gradient is NaN.

    Example:
      >>> grad_fn = lambda w, batch, key: (w - batch.data.mean(), {})
      >>> batch = Batch(jnp.array([[1.0, 3.0], [6.0, 6.0]]), jnp.ones((2, 2)))
      >>> sums = accumulate(grad_fn, jnp.array(0.0), batch, jnp.zeros(2))
      >>> float(sums.grads), float(sums.weight)
      (-16.0, 4.0)
    """

    def one(micro, key):
        grads, metrics = grad_fn(params, micro, key)
        weight = micro.weights.sum()
        grads, metrics = jax.tree.map(
            lambda x: jnp.where(weight > 0, weight.astype(x.dtype) * x, 0), (grads, metrics)
        )
        return Sums(each(grads), weight, metrics)

    return add_up(one, (batch, keys))


def add_up(one: Callable[..., PyTree], xs: tuple[PyTree, ...]) -> PyTree:
    """Adds up the results of a function, one after the other.

    Args:
      one: ``(*x) -> tree``.
      xs: its arguments, leaves ``[n, ...]``.

    Returns:
      The sum of the n trees.

    Example:
      >>> add_up(lambda a, b: a * b, (jnp.array([1, 2]), jnp.array([3, 4]))).tolist()
      11
    """

    def add(sums, x):
        return jax.tree.map(jnp.add, sums, one(*x)), None

    def zeros(x):
        kind = x.manual_axis_type  # None outside of shard_map.
        return cast_varying(jnp.zeros(x.shape, x.dtype), kind.varying if kind else ())

    first = jax.eval_shape(lambda xs: one(*jax.tree.map(lambda x: x[0], xs)), xs)
    return jax.lax.scan(add, jax.tree.map(zeros, first), xs)[0]


def node_keys(key: jax.Array, count: Any, shape: tuple[int, int], axes: tuple[str, ...]):
    """Makes the keys of the nodes on this device, the same on any number of devices.

    Args:
      key: key of the run.
      count: steps taken.
      shape: ``(nodes on this device, micro-batches)``.
      axes: mesh axes of the nodes.

    Returns:
      Keys ``[nodes, micro]``.
    """
    nodes, micro = shape
    here = jax.lax.axis_index(axes) * nodes + jnp.arange(nodes)
    number = here[:, None] * micro + jnp.arange(micro)[None]
    return jax.vmap(jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, count), i)))(
        number
    )


def flatten(batch: Batch, *rest: PyTree) -> tuple[PyTree, ...]:
    """Joins the nodes of a device into one row of micro-batches.

    Args:
      batch: leaves ``[nodes, micro, ...]``.
      *rest: other trees of such leaves.

    Returns:
      The same with leaves ``[nodes * micro, ...]``.
    """
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (batch, *rest))


def mean(sums: PyTree, weight: Any) -> PyTree:
    """Divides weighted sums by the weight; zeros where there is none."""
    return jax.tree.map(
        lambda x: x / jnp.maximum(weight, jnp.finfo(weight.dtype).tiny).astype(x.dtype), sums
    )
