"""Local training: one step after the other over the batches of a client."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.tiers import cast_varying

PyTree = Any

GradFn = Callable[..., tuple[PyTree, dict]]
"""``(params, batch, key) -> (grads, metrics)``; metrics is a flat dict of scalars."""


class Picked(NamedTuple):
    """Batches whose samples are read when their step is taken, not copied beforehand.

    Attributes:
      data: leaves ``[n, ...]``.
      rows: int32 ``[steps, batch]``, which samples.
    """

    data: PyTree
    rows: jax.Array


def take_steps(
    step: Callable[..., tuple[PyTree, dict]],
    carry: PyTree,
    batches: PyTree,
    key: jax.Array | None,
    tau: jax.Array | None = None,
) -> tuple[PyTree, dict]:
    """Takes the local steps of one client.

    With ``tau`` the loop ends after that many steps: clients in order cost what they do, and not
    what the largest of them does. Under `jax.vmap` all wait for the last one.

    Args:
      step: ``(carry, batch, key) -> (carry, metrics)``.
      carry: what steps hand on, such as parameters and the state of an optimiser.
      batches: leaves ``[steps, batch, ...]``, or `Picked`.
      key: split into one for each step; None for steps that need none.
      tau: int32, how many steps count, the first ones; all if None.

    Returns:
      The carry after the last step that counts, and the means of the metrics; zeros if none does.

    Example:
      >>> def step(carry, batch, key):
      ...     return carry + batch.sum(), {"batch": batch.sum()}
      >>> batches = jnp.array([[1.0], [3.0], [100.0]])
      >>> total, metrics = take_steps(step, jnp.array(0.0), batches, None, tau=jnp.array(2))
      >>> float(total), float(metrics["batch"])
      (4.0, 2.0)
    """
    if isinstance(batches, Picked):
        data, whole = batches.data, step

        def step(carry, rows, key):
            return whole(carry, jax.tree.map(lambda a: a[rows], data), key)

        batches = batches.rows
    steps = count_steps(batches)
    keys = None if key is None else jax.random.split(key, steps)
    if tau is None:
        carry, metrics = jax.lax.scan(lambda c, xs: step(c, *xs), carry, (batches, keys))
        return carry, jax.tree.map(lambda m: m.mean(0), metrics)

    def take(t, carried):
        carry, sums = carried
        carry, metrics = step(carry, *jax.tree.map(lambda x: x[t], (batches, keys)))
        return varying((carry, jax.tree.map(jnp.add, sums, metrics)))

    def varying(tree):  # The trip count differs between devices, and so does all that comes of it.
        return cast_varying(tree, tuple(jax.typeof(tau).manual_axis_type.varying))

    first = jax.tree.map(lambda x: x[0], (batches, keys))
    like = jax.eval_shape(step, carry, *first)[1]
    none = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), like)
    carry, sums = jax.lax.fori_loop(0, tau, take, varying((carry, none)))
    return carry, jax.tree.map(lambda m: m / jnp.maximum(tau, 1).astype(m.dtype), sums)


def count_steps(batches: PyTree, tau: jax.Array | None = None) -> int | jax.Array:
    """Counts the steps that a client takes, for algorithms that divide by them.

    Args:
      batches: leaves ``[steps, batch, ...]``.
      tau: as of `take_steps`.

    Returns:
      ``tau``, but at least 1: what a client without samples says is dropped; or all steps.
    """
    batches = batches.rows if isinstance(batches, Picked) else batches
    return jax.tree.leaves(batches)[0].shape[0] if tau is None else jnp.maximum(tau, 1)
