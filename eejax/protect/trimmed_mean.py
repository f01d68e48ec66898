"""Coordinate-wise trimmed mean."""

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, Present, along, robust
from eejax.protect.median import sort_those


def trimmed_mean(clients: int, f: int) -> Aggregator:
    """Makes the mean without the ``f`` largest and ``f`` smallest values of each coordinate.

    Clients count alike. Trimming fewer values than there are adversaries protects from nothing.

    Args:
      clients: uploads of a round, n; at least ``2 f + 1``.
      f: most adversaries among them.

    Returns:
      A stateless aggregator; see `aggregator.robust` for absent clients.

    Raises:
      ValueError: nothing would be left.

    References:
      Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018.

    Example:
      >>> uploads = jnp.array([1.0, 2.0, 6.0, -100.0])
      >>> _, upload = trimmed_mean(4, f=1).aggregate((), uploads, jnp.ones(4))
      >>> float(upload)
      1.5
    """

    def rule(those: Present):
        at = jnp.arange(clients)
        kept = (at >= those.f) & (at < those.n - those.f)

        def trim(x):
            total = jnp.where(along(kept, x), sort_those(x, those.here), 0).sum(0)
            return total / jnp.maximum(kept.sum(), 1)

        return jax.tree.map(trim, those.uploads)

    return robust(rule, "trimmed mean", clients, f, 2, 1)
