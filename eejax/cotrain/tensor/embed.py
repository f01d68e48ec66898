"""Vocabulary-parallel embedding and cross-entropy: both as products that lead out and in."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor.layout import Layout, entry, pin, split
from eejax.cotrain.tensor.linear import gather, like, reduce


def embed(layout: Layout, table: jax.Array, ids: jax.Array) -> jax.Array:
    """Looks up the rows of a table whose vocabulary is split over devices.

    This is the product of one-hot rows, which lie like activations inside a block, with the table,
    and moves what that product moves, but for the rows: each device knows the ids.

    Args:
      layout: where everything lies; the table lies like ``w_down``.
      table: ``[vocabulary, hidden]``, a block.
      ids: ``[tokens]`` as in ``layout.down.ids``.

    Returns:
      ``[tokens, hidden]``, a block.
    """
    plan = layout.down
    table = gather(like(table, ids), plan.gather_w)
    partial = () if plan.mesh else plan.partial
    rows = table.shape[0]
    at = ids - (lax.axis_index(partial) * rows if partial else 0)
    here = (at >= 0) & (at < rows)
    y = jnp.where(here[:, None], table[jnp.clip(at, 0, rows - 1)], 0)
    return pin(reduce(y, plan.reduce), plan.y, plan.mesh)


def positions(layout: Layout, table: jax.Array, x: jax.Array) -> jax.Array:
    """Gives the row of a table ``[seq, hidden]`` for the position of each token of ``x``.

    Args:
      layout: where everything lies; the table is split like the features of activations.
      table: ``[seq, hidden]``, a block.
      x: ``[tokens, hidden]``, a block.

    Returns:
      Rows of the shape of ``x``.
    """
    first = lax.axis_index(layout.tokens) * x.shape[0] if layout.tokens else 0
    return table[(first + jnp.arange(x.shape[0])) % table.shape[0]]


def position_spec(layout: Layout) -> P:
    """Gives the partition spec of the table of positions."""
    return P(None, layout.act[1])


def label_spec(layout: Layout) -> P:
    """Gives the partition spec of labels, which lie like the rows of logits."""
    return P(entry(split(layout.inner)[0]))


def cross_entropy(layout: Layout, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Averages the cross-entropy of logits whose classes are split over devices.

    The logits never come together: devices exchange the maximum, the sum of exponentials, and the
    logit of the label, three numbers a row.

    Args:
      layout: where everything lies; logits lie like activations inside a block.
      logits: ``[tokens, vocabulary]``, a block.
      labels: ``[tokens]``, a block; a negative label does not count.

    Returns:
      The mean over all labels that count, in nats; the same on all devices.
    """
    axes, columns = layout.inner_features, logits.shape[1]
    top = lax.stop_gradient(logits.max(1))
    top = lax.pmax(top, axes) if axes else top
    at = labels - (lax.axis_index(axes) * columns if axes else 0)
    here = (at >= 0) & (at < columns) & (labels >= 0)
    picked = jnp.take_along_axis(logits, jnp.clip(at, 0, columns - 1)[:, None], 1)[:, 0]
    sums = jnp.stack([jnp.exp(logits - top[:, None]).sum(1), jnp.where(here, picked, 0)])
    total, picked = lax.psum(sums, axes) if axes else sums
    counts = labels >= 0
    loss = jnp.where(counts, jnp.log(total) + top - picked, 0).sum()
    both = jnp.stack([loss, counts.sum().astype(loss.dtype)])
    both = lax.psum(both, layout.inner_tokens) if layout.inner_tokens else both
    return both[0] / jnp.maximum(both[1], 1)
