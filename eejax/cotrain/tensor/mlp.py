"""The two-layer perceptron of a transformer block."""

import jax
import jax.numpy as jnp

from eejax.cotrain.tensor.layout import Layout
from eejax.cotrain.tensor.linear import linear


def mlp(layout: Layout, params: dict, x: jax.Array) -> jax.Array:
    """Applies ``gelu(x @ w1 + b1) @ w2 + b2`` to the block of this device.

    Args:
      layout: where everything lies.
      params: ``w1 [hidden, intermediate]``, ``b1``, ``w2 [intermediate, hidden]``, ``b2``; blocks.
      x: ``[tokens, hidden]``, a block.

    Returns:
      ``[tokens, hidden]``, a block.
    """
    y = jax.nn.gelu(linear(layout.up, x, params["w1"], params["b1"]))
    return linear(layout.down, y, params["w2"], params["b2"])


def mlp_init(key: jax.Array, hidden: int, intermediate: int) -> dict:
    """Draws whole parameters."""
    up, down = jax.random.split(key)
    return {
        "w1": dense_init(up, hidden, intermediate),
        "b1": jnp.zeros(intermediate),
        "w2": dense_init(down, intermediate, hidden),
        "b2": jnp.zeros(hidden),
    }


def mlp_specs(layout: Layout) -> dict:
    """Gives the partition specs of the parameters."""
    up, down = layout.up, layout.down
    return {"w1": up.w, "b1": up.b, "w2": down.w, "b2": down.b}


def dense_init(key: jax.Array, n_in: int, n_out: int) -> jax.Array:
    """Draws a matrix ``[in, out]`` of variance 1 / in."""
    return jax.random.normal(key, (n_in, n_out)) / jnp.sqrt(n_in)
