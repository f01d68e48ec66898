"""Bytes of collectives in theory: what a device sends in ring algorithms, by tier."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from eejax import trees
from eejax.cotrain.replica.replica import Batch, GradFn, device_count

PyTree = Any


def gather_bytes(nbytes: float, mesh: Mesh, axes: Sequence[str]) -> dict[str, float]:
    """Prices an all-gather of ``nbytes``, or a reduce-scatter, its mirror image: (n - 1) / n of it.

    Args:
      nbytes: bytes of the whole, which each device has at the end or the start.
      mesh: the mesh.
      axes: axes over which the devices work together.

    Returns:
      Bytes that one device sends, under the outermost axis that has more than one device; nothing
      if there is none.

    References:
      Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH,
      2005.

    Example:
      >>> from eejax.tiers import make_mesh
      >>> gather_bytes(100, make_mesh((1, 1), ("edge", "end")), ("edge", "end"))
      {}
    """
    n = device_count(mesh, axes)
    crossed = [axis for axis in mesh.axis_names if axis in axes and mesh.shape[axis] > 1]
    return {crossed[0]: (n - 1) / n * nbytes} if nbytes and crossed else {}


def all_reduce_bytes(nbytes: float, mesh: Mesh, axes: Sequence[str]) -> dict[str, float]:
    """Prices an all-reduce of ``nbytes``: a reduce-scatter and an all-gather.

    Args:
      nbytes: bytes of the value on each device.
      mesh: the mesh.
      axes: axes over which the devices work together.

    Returns:
      Bytes that one device sends, as for `gather_bytes`.
    """
    once = gather_bytes(nbytes, mesh, axes)
    return add_bytes(once, once)


def permute_bytes(
    nbytes: float, pairs: Sequence[tuple[int, int]], mesh: Mesh, axes: Sequence[str]
) -> dict[str, float]:
    """Prices a permute: ``nbytes`` for each device that sends to another one.

    Args:
      nbytes: bytes that a device sends.
      pairs: (from, to) positions along ``axes`` together.
      mesh: the mesh.
      axes: axes of the permute, outermost first.

    Returns:
      Bytes that the mean device sends, each under the outermost axis that its pair crosses.
    """
    shape = [mesh.shape[axis] for axis in axes]
    total: dict[str, float] = {}
    for pair in pairs:
        places = zip(axes, *(np.unravel_index(device, shape) for device in pair))
        crossed = [axis for axis, a, b in places if a != b]
        if crossed:
            total = add_bytes(total, {crossed[0]: nbytes / math.prod(shape)})
    return total


def scalar_bytes(
    grad_fn: GradFn, params: PyTree, batch: Batch, mesh: Mesh, axes: Sequence[str]
) -> dict[str, float]:
    """Prices the all-reduce of the weight and the metrics of a step.

    Args:
      grad_fn: gradient function; only its shapes are asked for.
      params: the model, arrays or abstract arrays.
      batch: a batch, arrays or abstract arrays.
      mesh: the mesh.
      axes: axes of the nodes.

    Returns:
      Bytes that one device sends, by tier.
    """
    micro = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), batch)
    _, metrics = jax.eval_shape(grad_fn, trees.abstract(params), micro, jax.random.key(0))
    scalars = trees.nbytes(metrics) + np.dtype(batch.weights.dtype).itemsize
    return all_reduce_bytes(scalars, mesh, axes)


def add_bytes(*parts: dict[str, float]) -> dict[str, float]:
    """Adds bytes tier by tier.

    Example:
      >>> add_bytes({"edge": 1.0}, {"edge": 2.0, "end": 4.0})
      {'edge': 3.0, 'end': 4.0}
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
