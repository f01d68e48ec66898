"""The contract of robust aggregation, and what its rules share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


def _same_state(state, broadcast, key):
    del broadcast, key
    return state


class Aggregator(NamedTuple):
    """How a server makes one upload of those of its clients, of which some may be adversaries.

    All are pure and run under `jax.jit`. A client that is absent has weight 0.

    Attributes:
      init: ``(upload) -> state``; ``()`` when stateless.
      aggregate: ``(state, uploads [clients, ...], weights [clients]) -> (state, upload)``.
      prepare: ``(state, broadcast, key) -> state``: what the server does by itself before a round;
        nothing by default.
      linear: whether it is a weighted mean, for which noise of user-level privacy is made.
    """

    init: Callable[[PyTree], PyTree]
    aggregate: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]]
    prepare: Callable[..., PyTree] = _same_state
    linear: bool = False


class Present(NamedTuple):
    """The uploads that came.

    Attributes:
      uploads: ``[clients, ...]``; zeros where nobody is.
      here: ``[clients]`` bool.
      n: int32, how many are here.
      f: int32, how many of them may be adversaries.
    """

    uploads: PyTree
    here: jax.Array
    n: jax.Array
    f: jax.Array


def present(uploads: PyTree, weights: jax.Array, f: int = 0) -> Present:
    """Tells who is here; a client that sends NaN or infinity is not.

    Such a client is found out, so one adversary less is left among the others.

    Args:
      uploads: ``[clients, ...]``.
      weights: ``[clients]``, 0 where a client is absent.
      f: number of adversaries.

    Returns:
      The uploads with those of absent clients cut out.

    Example:
      >>> uploads = jnp.array([[1.0, 2.0], [jnp.nan, 0.0], [3.0, 4.0]])
      >>> _, here, n, f = present(uploads, jnp.array([1.0, 1.0, 0.0]), f=1)
      >>> here.tolist(), int(n), int(f)
      ([True, False, False], 1, 0)
    """
    sent, sane = weights > 0, jnp.ones(weights.shape, bool)
    for x in jax.tree.leaves(uploads):
        sane &= jnp.isfinite(x).reshape(len(x), -1).all(1)
    here = sent & sane
    uploads = jax.tree.map(lambda x: jnp.where(along(here, x), x, 0), uploads)
    return Present(uploads, here, here.sum(), jnp.maximum(f - (sent & ~sane).sum(), 0))


def robust(
    rule: Callable[[Present], PyTree], name: str, clients: int, f: int, times: int, more: int
) -> Aggregator:
    """Makes a stateless aggregator that works for ``n >= times * f + more``.

    Args:
      rule: the upload, from those that are here.
      name: of the rule, for messages.
      clients: uploads of a round, absent ones included.
      f: most adversaries among them.
      times: how often the condition counts an adversary.
      more: what the condition adds.

    Returns:
      The aggregator. When so many clients are absent that the condition fails, the upload is zero:
      the round changes nothing, rather than that an adversary changes it.

    Raises:
      ValueError: the condition fails with all clients present; in ``aggregate``, the number of
        uploads is not ``clients``.
    """
    if f < 0:
        raise ValueError(f"f must be at least 0, got {f!r}")
    if clients < times * f + more:
        raise ValueError(
            f"{name} against f={f} adversaries needs clients >= {times} f + {more} = "
            f"{times * f + more}, got clients={clients}"
        )

    def aggregate(state, uploads, weights):
        if weights.shape != (clients,):
            raise ValueError(f"{name} is made for {clients} clients, got weights {weights.shape}")
        those = present(uploads, weights, f)
        enough = those.n >= times * those.f + more
        upload = jax.tree.map(
            lambda x, y: jnp.where(enough, y, 0).astype(x.dtype), uploads, rule(those)
        )
        return state, upload

    return Aggregator(stateless, aggregate)


def stateless(upload: PyTree) -> tuple:
    """Is the ``init`` of an aggregator without state."""
    del upload
    return ()


def along(values: jax.Array, x: jax.Array) -> jax.Array:
    """Shapes ``[clients]`` so that it broadcasts against ``x``, ``[clients, ...]``."""
    return values.reshape(values.shape + (1,) * (x.ndim - 1))


def dots(a: PyTree, b: PyTree) -> jax.Array:
    """Multiplies every client's upload with that of ``b``, over all leaves, in float32.

    Args:
      a: ``[clients, ...]``.
      b: ``[clients, ...]`` or ``[1, ...]``.

    Returns:
      ``[clients]``.
    """

    def dot(x, y):
        product = x.astype(jnp.float32) * y.astype(jnp.float32)
        return product.reshape(len(product), -1).sum(1)

    return sum(jax.tree.leaves(jax.tree.map(dot, a, b)))
