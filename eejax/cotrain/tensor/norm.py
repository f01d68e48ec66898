"""Layer normalisation of features that may be split over devices."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor.layout import Layout, pin


def layer_norm(layout: Layout, params: dict, x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Normalises each token; devices that share it exchange two numbers.

    Args:
      layout: where everything lies.
      params: ``scale`` and ``bias``, ``[hidden]``; blocks.
      x: ``[tokens, hidden]``, a block.
      epsilon: added to the variance.

    Returns:
      ``[tokens, hidden]``, a block.

    References:
      Ba, Kiros and Hinton, Layer Normalization, 2016.
    """
    moments = jnp.stack([x.mean(-1), jnp.square(x).mean(-1)])
    if layout.features:
        moments = lax.pmean(moments, layout.features)
    mean, square = moments
    # Rounding may leave a variance below zero.
    variance = jnp.maximum(square - jnp.square(mean), 0)
    y = (x - mean[:, None]) * lax.rsqrt(variance + epsilon)[:, None]
    y = y * params["scale"][None] + params["bias"][None]
    return pin(y, layout.act, layout.mesh)


def layer_norm_init(hidden: int) -> dict:
    """Gives whole parameters."""
    return {"scale": jnp.ones(hidden), "bias": jnp.zeros(hidden)}


def layer_norm_specs(layout: Layout) -> dict:
    """Gives the partition specs of the parameters."""
    return {"scale": P(layout.act[1]), "bias": P(layout.act[1])}
