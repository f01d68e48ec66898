"""Shuffling without state: the samples of a step follow from key, client and step alone.

A run that is cut into pieces anywhere, or resumed, sees the same batches. All functions run inside
jit, vmap, scan and shard_map, and ``count``, ``step`` and ``start`` may be traced.
"""

from typing import Any

import jax
import jax.numpy as jnp

_PLACE_BITS = 9


def batch_indices(key: jax.Array, count: Any, step: Any, batch: int, n_max: int) -> jax.Array:
    """Chooses the batch of one step.

    An epoch is ``ceil(count / batch)`` steps over a permutation that depends on key and epoch; the
    last batch is filled up with the first entries of the same permutation, so all batches are of
    one size and each sample is seen once, but those once more.

    Args:
      key: of the client.
      count: samples of the client, at most ``n_max``; may be smaller than ``batch``, or 0.
      step: steps this client has made before, over all epochs.
      batch: samples of a batch.
      n_max: samples of the largest client.

    Returns:
      int32 ``[batch]``: positions 0..count-1 among the client's samples; zeros if it has none.

    Example:
      >>> key = jax.random.key(0)
      >>> [batch_indices(key, 5, step, batch=2, n_max=8).tolist() for step in range(4)]
      [[3, 1], [4, 2], [0, 3], [0, 1]]
    """
    epoch, position = _place(count, jnp.asarray(step), batch)
    return _permutation(key, count, epoch, n_max)[position]


def client_batches(
    key: jax.Array, table_row: jax.Array, count: Any, start: Any, steps: int, batch: int
) -> jax.Array:
    """Chooses the batches of several steps of one client.

    Args:
      key: of the client.
      table_row: int ``[n_max]``, a row of `ClientIndex.table`.
      count: samples of the client.
      start: steps this client has made before.
      steps: how many to choose.
      batch: samples of a batch.

    Returns:
      int32 ``[steps, batch]``: positions in the data set; row ``i`` is that of
      ``batch_indices(key, count, start + i, ...)``.

    Example:
      >>> row = jnp.array([70, 71, 72, 73, 74, 70, 70, 70])
      >>> client_batches(jax.random.key(0), row, 5, start=1, steps=3, batch=2).tolist()
      [[74, 72], [70, 73], [70, 71]]
    """
    place = jax.vmap(lambda step: _place(count, step, batch))
    epochs, positions = place(start + jnp.arange(steps))

    def chosen(epoch):
        return _permutation(key, count, epoch, table_row.shape[0])[positions]

    def fill(epoch, entries):
        return jnp.where((epochs == epoch)[:, None], chosen(epoch), entries)

    # One sort an epoch, not one a step.
    entries = jax.lax.fori_loop(epochs[0] + 1, epochs[-1] + 1, fill, chosen(epochs[0]))
    return table_row[entries].astype(jnp.int32)


def _place(count: Any, step: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Returns the epoch, and the positions ``[batch]`` in its permutation."""
    steps_per_epoch = jnp.maximum(-(-count // batch), 1)
    first = step % steps_per_epoch * batch
    return step // steps_per_epoch, (first + jnp.arange(batch)) % jnp.maximum(count, 1)


def _permutation(key: jax.Array, count: Any, epoch: jax.Array, n_max: int) -> jax.Array:
    noise = jax.random.bits(jax.random.fold_in(key, epoch), (n_max,)) >> _PLACE_BITS
    place = jnp.arange(n_max, dtype=jnp.uint32)
    # As large as noise can be; who is beyond the count comes after all with as much.
    noise = jnp.where(place < count, noise, jnp.uint32(2 ** (32 - _PLACE_BITS) - 1))
    if n_max > 2**_PLACE_BITS:
        return jnp.argsort(noise).astype(jnp.int32)
    # Noise and place in one word: on CPU a sort of one array is five times as fast as of two.
    word = jnp.sort((noise << _PLACE_BITS) | place)
    return (word & (2**_PLACE_BITS - 1)).astype(jnp.int32)
