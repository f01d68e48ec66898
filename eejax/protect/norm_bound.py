"""Norm bounding: no client may move the model further than the others."""

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, along, dots, present, stateless
from eejax.protect.median import median_of, sort_those


def norm_bound(bound: float | None = None) -> Aggregator:
    """Makes the mean of uploads whose L2 norms are cut to a bound; clients count alike.

    This limits what adversaries can do and stops none: many of them, or one that is patient, get
    through.

    Args:
      bound: longest norm; the median of the norms in each round if None.

    Returns:
      A stateless aggregator; zeros where nobody is.

    Raises:
      ValueError: the bound is not positive.

    References:
      Sun et al., Can You Really Backdoor Federated Learning?, 2019.

    Example:
      >>> _, upload = norm_bound(1.0).aggregate((), jnp.array([0.5, 1.0, -100.0]), jnp.ones(3))
      >>> round(float(upload), 3)
      0.167
    """
    if bound is not None and not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound!r}")

    def aggregate(state, uploads, weights):
        uploads, here, n, _ = present(uploads, weights)
        norm = jnp.sqrt(dots(uploads, uploads))
        most = median_of(sort_those(norm, here), n) if bound is None else bound
        scale = jnp.where(norm > most, most / jnp.where(norm > 0, norm, 1), 1)
        scale = jnp.where(here, scale, 0) / jnp.maximum(n, 1)
        return state, jax.tree.map(lambda x: (along(scale, x) * x).sum(0).astype(x.dtype), uploads)

    return Aggregator(stateless, aggregate)
