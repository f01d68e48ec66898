"""Krum and multi-Krum: trust the uploads that lie closest to many others."""

from typing import Any

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, Present, along, dots, robust

PyTree = Any


def krum(clients: int, f: int) -> Aggregator:
    """Makes Krum, whose upload is that of one client.

    The score of a client is the sum of its squared distances to the ``n - f - 2`` closest others;
    the lowest score wins. Of equal scores the client closer to all wins, so their order is of no
    consequence. Clients count alike: their numbers of samples are what they claim.

    Args:
      clients: uploads of a round, n; at least ``2 f + 3``.
      f: most adversaries among them.

    Returns:
      A stateless aggregator; see `aggregator.robust` for absent clients.

    Raises:
      ValueError: there are too few clients.

    References:
      Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
      2017.

    Example:
      >>> uploads = jnp.array([1.0, 1.1, 1.3, 0.8, -100.0])
      >>> _, upload = krum(clients=5, f=1).aggregate((), uploads, jnp.ones(5))
      >>> round(float(upload), 1)
      1.1
    """
    return _multi_krum("krum", clients, f, 1)


def multi_krum(clients: int, f: int, m: int | None = None) -> Aggregator:
    """Makes multi-Krum, the mean of the ``m`` uploads of lowest score.

    Args:
      clients: uploads of a round, n; at least ``2 f + 3``.
      f: most adversaries among them.
      m: how many uploads to average, at most ``n - f - 2``, which it is if None. With absent
        clients it is at most that number of those present.

    Returns:
      A stateless aggregator; see `krum`.

    Raises:
      ValueError: there are too few clients, or ``m`` is out of range.

    References:
      Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
      2017.

    Example:
      >>> uploads = jnp.array([1.0, 1.1, 1.3, 0.8, -100.0])
      >>> _, upload = multi_krum(clients=5, f=1).aggregate((), uploads, jnp.ones(5))
      >>> round(float(upload), 2)
      1.05
    """
    aggregator = _multi_krum("multi-Krum", clients, f, clients - f - 2 if m is None else m)
    if m is not None and not 1 <= m <= clients - f - 2:
        raise ValueError(f"m must be in [1, clients - f - 2 = {clients - f - 2}], got {m!r}")
    return aggregator


def krum_order(distances: jax.Array, here: jax.Array, f: jax.Array) -> jax.Array:
    """Sorts clients by their Krum score, the best first and absent ones last.

    Args:
      distances: squared distances ``[clients, clients]``.
      here: ``[clients]`` bool.
      f: number of adversaries.

    Returns:
      int32 ``[clients]``. At least one neighbour counts, also where ``n - f - 2`` is less.
    """
    pairs = here[:, None] & here[None] & ~jnp.eye(len(here), dtype=bool)
    neighbours = jnp.maximum(here.sum() - f - 2, 1)
    nearest = jnp.sort(jnp.where(pairs, distances, jnp.inf), 1)
    counted = jnp.arange(len(here))[None] < neighbours
    score = jnp.where(counted, nearest, 0).sum(1)
    total = jnp.where(pairs, distances, 0).sum(1)
    return jnp.lexsort((total, score, ~here))


def squared_distances(uploads: PyTree) -> jax.Array:
    """Measures all pairs, over all leaves, in float32.

    By differences, not by products, whose rounding would drown small distances between uploads.

    Args:
      uploads: ``[clients, ...]``.

    Returns:
      ``[clients, clients]``.

    Example:
      >>> squared_distances({"w": jnp.array([[0.0, 0.0], [3.0, 4.0]])}).tolist()
      [[0.0, 25.0], [25.0, 0.0]]
    """
    uploads = jax.tree.map(jnp.asarray, uploads)

    def to_all(i):
        apart = jax.tree.map(lambda x: x.astype(jnp.float32) - x[i][None], uploads)
        return dots(apart, apart)

    (n,) = {len(x) for x in jax.tree.leaves(uploads)}
    return jax.lax.map(to_all, jnp.arange(n))


def _multi_krum(name: str, clients: int, f: int, m: int) -> Aggregator:
    def rule(those: Present):
        order = krum_order(squared_distances(those.uploads), those.here, those.f)
        most = jnp.maximum(jnp.minimum(m, those.n - those.f - 2), 1)
        first = (jnp.arange(clients) < most) / most
        chosen = jnp.zeros(clients).at[order].set(first)
        return jax.tree.map(lambda x: (along(chosen, x) * x).sum(0), those.uploads)

    return robust(rule, name, clients, f, 2, 3)
