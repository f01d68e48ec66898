"""Hierarchical all-reduce: the slow tier carries each element once, not once a node."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from eejax.cotrain.replica.price import add_bytes, all_reduce_bytes
from eejax.cotrain.replica.synchronous import Reduce

PyTree = Any


def hier_psum(tree: PyTree, axes: Sequence[str] = ("end", "edge", "cloud")) -> PyTree:
    """Sums over tiers inside `jax.shard_map`: scatter up, reduce at the top, gather down.

    Reduce-scatter over the end axis, then over the edge axis, all-reduce over the cloud axis of the
    ``1 / (n_end n_edge)`` that is left to each device, and all-gather back. Equal to a flat sum but
    for the order of the additions. Leaves are flattened, and padded to a multiple of
    ``n_end n_edge``.

    Args:
      tree: one value for each device.
      axes: mesh axes, fastest link first.

    Returns:
      The sums, equal on all devices of the axes.

    References:
      Jia et al., Highly Scalable Deep Learning Training System with Mixed-Precision: Training
      ImageNet in Four Minutes, 2018.

    Example:
      >>> from jax.sharding import PartitionSpec
      >>> from eejax.tiers import make_mesh
      >>> mesh = make_mesh((1, 1), ("edge", "end"))
      >>> total = jax.shard_map(
      ...     lambda x: hier_psum(x[0], ("end", "edge")),
      ...     mesh=mesh, in_specs=PartitionSpec(("edge", "end")), out_specs=PartitionSpec()
      ... )
      >>> jax.jit(total)(jnp.ones((1, 3))).tolist()
      [1.0, 1.0, 1.0]
    """
    *fast, slow = axes

    def one(x):
        v = x.reshape(-1)
        v = jnp.pad(v, (0, -v.size % math.prod(jax.lax.axis_size(a) for a in fast)))
        for axis in fast:
            v = jax.lax.psum_scatter(v, axis, tiled=True)
        v = jax.lax.psum(v, slow)
        for axis in reversed(fast):
            v = jax.lax.all_gather(v, axis, tiled=True, to="invarying")
        return v[: x.size].reshape(x.shape)

    return jax.tree.map(one, tree)


def hier_bytes(tree: PyTree, mesh: Mesh, axes: Sequence[str]) -> dict[str, float]:
    """Prices `hier_psum`: on tier i with n_i devices, ``2 (n_i - 1) / n_i`` of what is left there.

    With N bytes in all, the slowest tier carries ``2 (n_cloud - 1) / n_cloud N / (n_end n_edge)``.

    Args:
      tree: what is summed, arrays or abstract arrays.
      mesh: the mesh.
      axes: mesh axes, fastest link first.

    Returns:
      Bytes that one device sends, by axis.

    Example:
      >>> from eejax.tiers import make_mesh
      >>> hier_bytes(jnp.ones(5), make_mesh((1, 1), ("edge", "end")), ("end", "edge"))
      {}
    """
    fast = math.prod(mesh.shape[axis] for axis in axes[:-1])
    total: dict[str, float] = {}
    for x in jax.tree.leaves(tree):
        left = -(-x.size // fast) * fast * x.dtype.itemsize
        for axis in axes:
            total = add_bytes(total, all_reduce_bytes(left, mesh, (axis,)))
            left /= mesh.shape[axis]
    return total


def nested_psum(tree: PyTree, axes: Sequence[str] = ("end", "edge", "cloud")) -> PyTree:
    """Sums over one tier after the other, whole: simple, but every tier carries all bytes.

    Args:
      tree: one value for each device.
      axes: mesh axes, fastest link first.

    Returns:
      The sums, equal on all devices of the axes.
    """
    for axis in axes:
        tree = jax.lax.psum(tree, axis)
    return tree


def nested_bytes(tree: PyTree, mesh: Mesh, axes: Sequence[str]) -> dict[str, float]:
    """Prices `nested_psum`: ``2 (n_i - 1) / n_i`` of all bytes on every tier i.

    Args:
      tree: what is summed, arrays or abstract arrays.
      mesh: the mesh.
      axes: mesh axes, in any order.

    Returns:
      Bytes that one device sends, by axis.
    """
    nbytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    return add_bytes(*(all_reduce_bytes(nbytes, mesh, (axis,)) for axis in axes))


HIERARCHICAL = Reduce(
    lambda tree, axes: hier_psum(tree, axes[::-1]),
    lambda tree, mesh, axes: hier_bytes(tree, mesh, axes[::-1]),
)
"""Sums by `hier_psum`, for `data_parallel`; the innermost axis has the fastest link."""

NESTED = Reduce(lambda tree, axes: nested_psum(tree, axes[::-1]), nested_bytes)
"""Sums by `nested_psum`, for `data_parallel`."""
