"""Ring all-reduce spelt out: every device talks to its right neighbour only, in lock-step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from eejax.cotrain.replica.price import add_bytes, permute_bytes
from eejax.cotrain.replica.replica import device_count
from eejax.tiers import cast_varying

PyTree = Any


def ring_psum(tree: PyTree, axes: Sequence[str]) -> PyTree:
    """Sums over devices inside `jax.shard_map` by ``2 (n - 1)`` permutes of 1/n of each leaf.

    The same numbers as ``jax.lax.psum`` but for the order of additions, which shows what it does on
    devices that only have neighbours. Leaves are flattened, and padded to a multiple of n.

    Args:
      tree: one value for each device.
      axes: mesh axes of the ring, outermost first.

    Returns:
      The sums. They are equal on all devices, but the compiler does not know it: they count as
      varying over the axes, so `data_parallel` has no such `Reduce`.

    References:
      Patarasuk and Yuan, Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations,
      2009.
    """
    n = jax.lax.axis_size(tuple(axes))

    def one(x):
        v = jnp.pad(x.reshape(-1), (0, -x.size % n))
        v = ring_all_gather(ring_reduce_scatter(v, axes), axes)
        return v[: x.size].reshape(x.shape)

    return jax.tree.map(one, tree)


def ring_reduce_scatter(x: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Sums n chunks over n devices; device i ends with the sum of chunk i.

    Args:
      x: ``[n * k]`` on each device.
      axes: mesh axes of the ring, outermost first.

    Returns:
      ``[k]``.
    """
    axes = tuple(axes)
    n, i = jax.lax.axis_size(axes), jax.lax.axis_index(axes)
    chunks = cast_varying(x, axes).reshape(n, -1)

    def step(part, s):
        return jax.lax.ppermute(part, axes, neighbours(n)) + chunks[(i - s) % n], None

    return jax.lax.scan(step, chunks[(i - 1) % n], jnp.arange(2, n + 1))[0]


def ring_all_gather(x: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Passes the chunk of every device round the ring.

    Args:
      x: ``[k]`` on each device.
      axes: mesh axes of the ring, outermost first.

    Returns:
      ``[n * k]``, chunk i from device i.
    """
    axes = tuple(axes)
    n, i = jax.lax.axis_size(axes), jax.lax.axis_index(axes)
    x = cast_varying(x, axes)

    def step(part, _):
        part = jax.lax.ppermute(part, axes, neighbours(n))
        return part, part

    passed = jax.lax.scan(step, x, length=n - 1)[1]
    received = jnp.concatenate([x[None], passed])  # Of devices i, i - 1, i - 2, ...
    return received[(i - jnp.arange(n)) % n].reshape(-1)


def ring_bytes(tree: PyTree, mesh: Mesh, axes: Sequence[str]) -> dict[str, float]:
    """Prices `ring_psum`: ``2 (n - 1) / n`` of each padded leaf, on the links of the ring.

    Only the neighbours at the border of a tier send over its link: in a ring over 2 edges of 4 end
    devices, 2 of the 8 links lie between edges.

    Args:
      tree: what is summed, arrays or abstract arrays.
      mesh: the mesh.
      axes: mesh axes of the ring, outermost first.

    Returns:
      Bytes that the mean device sends, by the outermost axis crossed.
    """
    n = device_count(mesh, axes)
    return add_bytes(
        *(
            permute_bytes(
                2 * (n - 1) * -(-x.size // n) * x.dtype.itemsize, neighbours(n), mesh, axes
            )
            for x in jax.tree.leaves(tree)
        )
    )


def neighbours(n: int) -> list[tuple[int, int]]:
    """Lists who sends to whom in a ring.

    Example:
      >>> neighbours(3)
      [(0, 1), (1, 2), (2, 0)]
    """
    return [(i, (i + 1) % n) for i in range(n)]
