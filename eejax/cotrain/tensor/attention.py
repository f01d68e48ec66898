"""Multi-head attention, its heads split over devices and each sequence whole."""

import jax
import jax.numpy as jnp

from eejax.cotrain.tensor.layout import Layout
from eejax.cotrain.tensor.linear import add_bias, linear
from eejax.cotrain.tensor.mlp import dense_init


def attention(
    layout: Layout, params: dict, x: jax.Array, *, seq: int, head_dim: int, causal: bool
) -> jax.Array:
    """Attends within each sequence.

    Queries, keys and values come from one product, so ``x`` is gathered once. With fewer heads of
    keys and values than of queries, each of them serves a group of neighbours.

    Args:
      layout: where everything lies.
      params: ``wq [hidden, heads * head_dim]``, ``wk`` and ``wv [hidden, kv_heads * head_dim]``,
        ``wo [heads * head_dim, hidden]``, and ``bq``, ``bv``, ``bo``; blocks.
      x: ``[tokens, hidden]``, a block; ``seq`` neighbouring tokens are a sequence.
      seq: tokens of a sequence.
      head_dim: features of a head.
      causal: whether a token sees only itself and those before it.

    Returns:
      ``[tokens, hidden]``, a block.

    References:
      Vaswani et al., Attention Is All You Need, 2017. Ainslie et al., GQA: Training Generalized
      Multi-Query Transformer Models from Multi-Head Checkpoints, 2023.
    """
    w = jnp.concatenate([params[name] for name in ("wq", "wk", "wv")], axis=1)
    qkv = linear(layout.up, x, w)
    width, kv_width = params["wq"].shape[1], params["wk"].shape[1]
    q, k, v = jnp.split(qkv, (width, width + kv_width), axis=1)
    # A bias of the keys would add the same to all scores of a query, which softmax ignores.
    q, v = add_bias(q, params["bq"]), add_bias(v, params["bv"])
    q, k, v = (part.reshape(-1, seq, part.shape[1] // head_dim, head_dim) for part in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    return linear(layout.down, y.reshape(qkv.shape[0], -1), params["wo"], params["bo"])


def attention_init(key: jax.Array, hidden: int, heads: int, kv_heads: int, head_dim: int) -> dict:
    """Draws whole parameters."""
    q, k, v, o = jax.random.split(key, 4)
    width, kv_width = heads * head_dim, kv_heads * head_dim
    return {
        "wq": dense_init(q, hidden, width),
        "wk": dense_init(k, hidden, kv_width),
        "wv": dense_init(v, hidden, kv_width),
        "wo": dense_init(o, width, hidden),
        "bq": jnp.zeros(width),
        "bv": jnp.zeros(kv_width),
        "bo": jnp.zeros(hidden),
    }


def attention_specs(layout: Layout) -> dict:
    """Gives the partition specs of the parameters."""
    up, down = layout.up, layout.down
    return {
        **dict.fromkeys(("wq", "wk", "wv"), up.w),
        **dict.fromkeys(("bq", "bv"), up.b),
        "wo": down.w,
        "bo": down.b,
    }
