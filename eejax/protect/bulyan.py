"""Bulyan: Krum chooses, then each coordinate is averaged around its median."""

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, Present, along, robust
from eejax.protect.krum import krum_order, squared_distances
from eejax.protect.median import median_of, sort_those


def bulyan(clients: int, f: int) -> Aggregator:
    """Makes Bulyan over Krum, which no single bad coordinate gets through.

    Krum picks one client after the other among those left until ``theta = n - 2 f`` are chosen. Of
    these, each coordinate is the mean of the ``beta = theta - 2 f`` values closest to the median.
    Clients count alike.

    Args:
      clients: uploads of a round, n; at least ``4 f + 3``.
      f: most adversaries among them.

    Returns:
      A stateless aggregator; see `aggregator.robust` for absent clients.

    Raises:
      ValueError: there are too few clients.

    References:
      El Mhamdi, Guerraoui and Rouault, The Hidden Vulnerability of Distributed Learning in
      Byzantium, 2018.

    Example:
      >>> uploads = jnp.array([1.0, 1.2, 0.9, 1.1, 0.8, 1.4, -100.0])
      >>> _, upload = bulyan(clients=7, f=1).aggregate((), uploads, jnp.ones(7))
      >>> round(float(upload), 2)
      1.0
    """

    def rule(those: Present):
        distances = squared_distances(those.uploads)
        theta = those.n - 2 * those.f
        beta = theta - 2 * those.f

        def choose(_, left):
            return left.at[krum_order(distances, left, those.f)[0]].set(False)

        chosen = those.here & ~jax.lax.fori_loop(0, theta, choose, those.here)

        def around_median(x):
            ordered = sort_those(x, chosen)
            apart = jnp.abs(ordered - median_of(ordered, theta)[None])
            closest = jnp.take_along_axis(ordered, jnp.argsort(apart, 0), 0)
            counted = along(jnp.arange(clients) < beta, x)
            return jnp.where(counted, closest, 0).sum(0) / jnp.maximum(beta, 1)

        return jax.tree.map(around_median, those.uploads)

    return robust(rule, "Bulyan", clients, f, 4, 3)
