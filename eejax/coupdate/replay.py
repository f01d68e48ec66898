"""Experience replay: a small memory of past samples is mixed into every batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import Continual

PyTree = Any


class Memory(NamedTuple):
    """A reservoir: a uniform sample of everything it was offered.

    Attributes:
      samples: fields such as ``{"x": [capacity, ...], "y": [capacity]}``; the first
        ``min(seen, capacity)`` rows are filled.
      seen: how many samples were offered so far.
      key: draws what `replay` remembers after the next task.
    """

    samples: PyTree
    seen: jax.Array
    key: jax.Array


def empty_memory(like: PyTree, capacity: int, key: jax.Array) -> Memory:
    """Makes a memory without samples.

    Args:
      like: samples, or their abstract values, with a leading axis of any length; they give the
        fields, shapes and dtypes.
      capacity: how many samples it holds, at least 1.
      key: a key of its own.

    Returns:
      The memory.

    Raises:
      ValueError: the capacity is below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    samples = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), like)
    return Memory(samples, jnp.zeros((), jnp.int32), key)


def from_data(
    data: PyTree, capacity: int, key: jax.Array, *, count: jax.Array | int | None = None
) -> Memory:
    """Makes a memory that has seen some data.

    Args:
      data: fields ``[n, ...]``.
      capacity: how many samples it holds, at least 1.
      key: a key of its own.
      count: how many rows of ``data`` are samples; the rest is padding. All by default.

    Returns:
      The memory.

    Raises:
      ValueError: the capacity is below 1.

    Example:
      >>> data = {"x": jnp.arange(6.0), "y": jnp.arange(6)}
      >>> memory = from_data(data, capacity=4, key=jax.random.key(0))
      >>> int(memory.seen), memory.samples["y"].shape
      (6, (4,))
    """
    key, fill = jax.random.split(key)
    return remember(empty_memory(data, capacity, key), data, fill, count=count)


@jax.jit
def remember(
    memory: Memory, data: PyTree, key: jax.Array, *, count: jax.Array | int | None = None
) -> Memory:
    """Offers samples to the memory, one after the other.

    Vitter's algorithm R: sample number ``i`` (from 0) goes to the next free row; once the memory is
    full it goes to row ``j``, uniform over ``0..i``, if there is such a row. So all samples ever
    offered are in the memory with the same probability, ``capacity / seen``.

    Args:
      memory: the memory so far.
      data: fields ``[n, ...]``, the same as those of the memory.
      key: draws the rows.
      count: how many rows of ``data`` are samples; the rest is padding. All by default.

    Returns:
      The memory thereafter.

    Raises:
      ValueError: a field differs from that of the memory; names both.

    References:
      Vitter, Random Sampling with a Reservoir, 1985.
    """
    _check(memory, data)
    rows, capacity = (jax.tree.leaves(x)[0].shape[0] for x in (data, memory.samples))
    count = jnp.asarray(rows if count is None else count, jnp.int32)
    number = memory.seen + jnp.arange(rows)
    drawn = jax.random.randint(key, (rows,), 0, number + 1)
    row = jnp.where(number < capacity, number, drawn)
    row = jnp.where(jnp.arange(rows) < count, row, capacity)  # Padding falls off the end.
    # Of several samples for one row the last stays, as if they came one by one.
    last = jnp.full(capacity, -1).at[row].max(jnp.arange(rows), mode="drop")
    row = jnp.where(last[row] == jnp.arange(rows), row, capacity)
    samples = jax.tree.map(lambda old, new: old.at[row].set(new, mode="drop"), memory.samples, data)
    return memory._replace(samples=samples, seen=memory.seen + count)


def replay(memory: Memory, k: int) -> Continual:
    """Adds ``k`` samples of the memory to each batch; the loss is the mean over all.

    They are drawn uniformly and with replacement. While the memory is empty they come from the
    batch itself, so that shapes never change. After a task its data are offered to the memory. All
    batches are uniform over what the memory holds: classes are as balanced as the past was.

    Args:
      memory: what is remembered at the start: `empty_memory` or `from_data`. It is the state of
        the remedy, one for every node.
      k: samples added to a batch. As many as the batch has are usual, so that past and present
        weigh the same.

    Returns:
      A remedy that uses the hooks ``batch`` and ``after_task``.

    Raises:
      ValueError: ``k`` is below 1, or a batch has other fields than the memory.

    References:
      Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019.

    Example:
      >>> past = {"x": jnp.ones((8, 2)), "y": jnp.zeros(8, jnp.int32)}
      >>> remedy = replay(from_data(past, capacity=4, key=jax.random.key(0)), k=3)
      >>> batch = {"x": jnp.zeros((2, 2)), "y": jnp.ones(2, jnp.int32)}
      >>> _, batch = remedy.batch(remedy.init({}), batch, jax.random.key(1))
      >>> batch["y"].tolist()
      [1, 1, 0, 0, 0]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")

    def init(params):
        del params
        return memory

    def batch(state, batch, key):
        _check(state, batch)
        sizes = [jax.tree.leaves(x)[0].shape[0] for x in (batch, state.samples)]
        filled = jnp.minimum(state.seen, sizes[1])
        i = jax.random.randint(key, (k,), 0, jnp.where(filled > 0, filled, sizes[0]))

        def mix(now, past):
            return jnp.concatenate([now, jnp.where(filled > 0, past[i], now[i])])

        return state, jax.tree.map(mix, batch, state.samples)

    def after_task(state, params, data):
        del params
        key, fill = jax.random.split(state.key)
        return remember(state._replace(key=key), data, fill)

    return Continual(init=init, batch=batch, after_task=after_task)


def _check(memory: Memory, data: PyTree) -> None:
    def fields(tree):
        paths = jax.tree_util.tree_leaves_with_path(trees.abstract(tree))
        return {trees.path_name(p): (x.shape[1:], str(x.dtype)) for p, x in paths}

    held, given = fields(memory.samples), fields(data)
    for name in held | given:
        if held.get(name) != given.get(name):
            raise ValueError(
                f"field {name!r}: the memory holds samples of (shape, dtype) {held.get(name)}, "
                f"got {given.get(name)}"
            )
