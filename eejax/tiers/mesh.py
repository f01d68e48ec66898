"""The accelerators at hand as a mesh whose axes are grouped by tier; the only `make_mesh`.

A topology describes the modelled system, a mesh the accelerators that simulate it. Nodes are rows
of arrays: with 2 edges of 4 end devices each, per-client arrays are shaped ``[2, 4, ...]`` and laid
over the axes ``("edge", "end")``. One accelerator holds all rows, eight hold one row each; the
numbers are the same.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

PyTree = Any

EDGE, END = "edge", "end"


def make_mesh(
    shape: Sequence[int], axes: Sequence[str], devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh of named axes; every mesh of eejax comes from here.

    Args:
      shape: size of each axis.
      axes: name of each axis, outermost (slowest link) first.
      devices: accelerators to use; the first ``prod(shape)`` of ``jax.devices()`` if None.

    Returns:
      A mesh with automatic axes, which `jax.shard_map` makes manual where it is used.

    Raises:
      ValueError: shape and axes differ in length, or there are too few devices.
    """
    if len(shape) != len(axes):
        raise ValueError(f"mesh shape {tuple(shape)} and axes {tuple(axes)} differ in length")
    devices = list(jax.devices() if devices is None else devices)
    need = math.prod(shape)
    if need > len(devices):
        raise ValueError(f"mesh {dict(zip(axes, shape))} needs {need} devices, has {len(devices)}")
    grid = np.asarray(devices[:need]).reshape(tuple(shape))
    # Stated, since the default of jax.make_mesh has changed before.
    return Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def tier_mesh(edges: int, ends: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays ``edges`` x ``ends`` client rows over the devices at hand.

    The largest grid is taken whose sides divide the number of rows, so that every device holds the
    same number of clients.

    Args:
      edges: number of edge servers.
      ends: number of end-device rows for each edge (after padding).
      devices: accelerators to use; all of ``jax.devices()`` if None.

    Returns:
      A mesh over ``("edge", "end")``.

    Example:
      >>> import jax
      >>> dict(tier_mesh(2, 4, jax.devices()[:1]).shape)
      {'edge': 1, 'end': 1}
    """
    devices = list(jax.devices() if devices is None else devices)

    def divisors(n: int) -> list[int]:
        return [d for d in range(1, n + 1) if n % d == 0]

    grids = [(a, b) for a in divisors(edges) for b in divisors(ends) if a * b <= len(devices)]
    shape = max(grids, key=lambda grid: (math.prod(grid), grid[0]))
    return make_mesh(shape, (EDGE, END), devices)


def cast_varying(tree: PyTree, axes: Sequence[str]) -> PyTree:
    """Marks replicated values as varying over mesh axes, inside `jax.shard_map`.

    Without this, the gradient of a replicated value is summed over the devices with no error: each
    client would get the sum of all clients' gradients.

    Args:
      tree: replicated values, or values that vary over some of the axes.
      axes: mesh axes over which each device is to have its own copy.

    Returns:
      The same values, now varying over all of ``axes``.
    """

    def cast(x):
        missing = tuple(a for a in axes if a not in jax.typeof(x).manual_axis_type.varying)
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def tier_mean(tree: PyTree, weights: jax.Array, axis: str) -> PyTree:
    """Averages the rows of a tier: over the leading axis here, then over the mesh axis.

    Args:
      tree: leaves shaped ``[rows, ...]``, the rows of this device.
      weights: ``[rows]``; a row of weight 0 changes nothing, even when it holds NaN.
      axis: name of the mesh axis over which the other rows lie.

    Returns:
      Leaves shaped ``[...]``, equal on all devices of the axis. Zero if all weights are zero.
    """
    total = jax.lax.psum(weights.sum(), axis)
    share = weights / jnp.maximum(total, jnp.finfo(weights.dtype).tiny)

    def mean(x):
        used = (share > 0).reshape((-1,) + (1,) * (x.ndim - 1))
        # 0 * NaN is NaN: a dropped row is cut out, not multiplied away.
        return jax.lax.psum(jnp.tensordot(share.astype(x.dtype), jnp.where(used, x, 0), 1), axis)

    return jax.tree.map(mean, tree)
