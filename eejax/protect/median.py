"""Coordinate-wise median."""

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, along, robust


def median(clients: int, f: int) -> Aggregator:
    """Makes the coordinate-wise median of the uploads; clients count alike.

    Args:
      clients: uploads of a round, n; at least ``2 f + 1``.
      f: most adversaries among them.

    Returns:
      A stateless aggregator; see `aggregator.robust` for absent clients.

    Raises:
      ValueError: adversaries may be half of the clients or more.

    References:
      Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018.

    Example:
      >>> _, upload = median(3, f=1).aggregate((), jnp.array([1.0, 2.0, -100.0]), jnp.ones(3))
      >>> float(upload)
      1.0
    """

    def rule(those):
        return jax.tree.map(lambda x: median_of(sort_those(x, those.here), those.n), those.uploads)

    return robust(rule, "median", clients, f, 2, 1)


def sort_those(x: jax.Array, here: jax.Array) -> jax.Array:
    """Sorts the values of every coordinate, those of absent clients last, as infinity.

    Args:
      x: ``[clients, ...]``.
      here: ``[clients]`` bool.

    Returns:
      ``[clients, ...]``.
    """
    return jnp.sort(jnp.where(along(here, x), x, jnp.inf), 0)


def median_of(ordered: jax.Array, n: jax.Array) -> jax.Array:
    """Takes the middle of the first ``n`` values, or the mean of the two that share it.

    Args:
      ordered: ``[clients, ...]``, sorted.
      n: how many count, at least 1.

    Returns:
      ``[...]``.

    Example:
      >>> float(median_of(jnp.array([1.0, 2.0, 4.0, 9.0]), 4))
      3.0
    """
    low, high = jnp.maximum(n - 1, 0) // 2, n // 2
    return (ordered[low] + ordered[high]) / 2
