"""Weighted mean: what FedAvg does, and what a single adversary can move anywhere."""

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, along, present, stateless


def mean() -> Aggregator:
    """Makes the baseline, the mean weighted by the clients' numbers of samples.

    Returns:
      A stateless aggregator; zeros where nobody is.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017. That one adversary suffices: Blanchard et al., Machine Learning with Adversaries:
      Byzantine Tolerant Gradient Descent, 2017.

    Example:
      >>> _, upload = mean().aggregate((), jnp.array([1.0, 4.0, 9.0]), jnp.array([2.0, 1.0, 0.0]))
      >>> float(upload)
      2.0
    """

    def aggregate(state, uploads, weights):
        uploads, here, _, _ = present(uploads, weights)
        w = jnp.where(here, weights, 0)
        w = w / jnp.where(here.any(), w.sum(), 1)
        return state, jax.tree.map(lambda x: (along(w, x) * x).sum(0).astype(x.dtype), uploads)

    return Aggregator(stateless, aggregate, linear=True)
