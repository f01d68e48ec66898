"""The one primitive of tensor parallelism: gather x, gather w, multiply, reduce."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from eejax.cotrain.tensor.layout import Move, Plan, pin
from eejax.tiers import cast_varying


def linear(
    plan: Plan,
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None = None,
    multiply: Callable[[Any, Any], Any] = jnp.matmul,
) -> jax.Array:
    """Multiplies blocks of two matrices that lie as a plan says; runs inside `jax.shard_map`.

    Its gradient moves as little: the transpose of a gather is a reduce-scatter. What is the same on
    several devices is marked as varying before it is gathered, so that its gradient is summed over
    these devices after the scatter, when it is small, and not before.

    Args:
      plan: how ``x``, ``w`` and the result lie.
      x: the block ``[tokens, ..., in]`` of this device.
      w: the block ``[..., in, out]``.
      b: the block ``[out]`` of a bias, which lies like the columns of the result.
      multiply: a product that is bilinear, and local to each token.

    Returns:
      The block ``[tokens, ..., out]`` of the result.
    """
    x, w = like(x, w), like(w, x)
    y = reduce(multiply(gather(x, plan.gather_x), gather(w, plan.gather_w)), plan.reduce)
    return pin(y if b is None else add_bias(y, b), plan.y, plan.mesh)


def add_bias(y: jax.Array, b: jax.Array) -> jax.Array:
    """Adds a bias ``[out]`` to ``[tokens, ..., out]``."""
    return y + b.reshape((1,) * (y.ndim - 1) + b.shape)


def gather(x: jax.Array, moves: tuple[Move, ...]) -> jax.Array:
    """Gathers the blocks of all devices along some dimensions."""
    for axes, dim in moves:
        x = lax.all_gather(x, axes, axis=dim % x.ndim, tiled=True)
    return x


def reduce(x: jax.Array, moves: tuple[Move, ...]) -> jax.Array:
    """Sums partial results over devices, and leaves each with its block."""
    for axes, dim in moves:
        if dim is None:
            x = lax.psum(x, axes)
        else:
            x = lax.psum_scatter(x, axes, scatter_dimension=dim % x.ndim, tiled=True)
    return x


def like(x: jax.Array, y: jax.Array) -> jax.Array:
    """Marks ``x`` as varying over the mesh axes over which ``y`` varies."""
    return cast_varying(x, tuple(sorted(jax.typeof(y).manual_axis_type.varying)))
