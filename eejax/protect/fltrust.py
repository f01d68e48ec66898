"""FLTrust: the server trains on a few samples of its own and trusts who goes the same way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import Aggregator, along, dots, present

PyTree = Any


def fltrust(root: Callable[[PyTree, jax.Array], PyTree]) -> Aggregator:
    """Makes FLTrust, which withstands any number of adversaries as long as the root data are good.

    With ``g_0`` the server's own update, the trust in client i is ``TS_i = relu(cos(g_i, g_0))``
    and the upload ``sum_i TS_i (|g_0| / |g_i|) g_i / sum_i TS_i``. Numbers of samples do not count.

    Args:
      root: ``(broadcast, key) -> upload``: trains on the root data as a client does on its own.

    Returns:
      An aggregator whose state is ``g_0``; call ``prepare`` in every round. The upload is zero when
      nobody is trusted.

    References:
      Cao et al., FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, 2021.

    Example:
      >>> rule = fltrust(lambda broadcast, key: jnp.array([1.0, 0.0]))
      >>> state = rule.prepare(rule.init(jnp.zeros(2)), None, None)
      >>> uploads = jnp.array([[5.0, 0.0], [-9.0, 0.0], [0.0, 3.0]])  # Too long, hostile, other.
      >>> rule.aggregate(state, uploads, jnp.ones(3))[1].tolist()
      [1.0, 0.0]
    """

    def init(upload):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), upload)

    def prepare(state, broadcast, key):
        del state
        return root(broadcast, key)

    def aggregate(state, uploads, weights):
        uploads, here, _, _ = present(uploads, weights)
        g_0 = jax.tree.map(lambda x: x[None], state)
        norm, norm_0 = jnp.sqrt(dots(uploads, uploads)), jnp.sqrt(dots(g_0, g_0))
        moved = (norm > 0) & (norm_0 > 0) & jnp.isfinite(norm) & here
        cosine = dots(uploads, g_0) / jnp.where(moved, norm * norm_0, 1)
        trust = jnp.where(moved, jnp.maximum(cosine, 0), 0)
        scale = trust * norm_0 / jnp.where(moved, norm, 1)
        scale = scale / jnp.where(trust.sum() > 0, trust.sum(), 1)
        return state, jax.tree.map(lambda x: (along(scale, x) * x).sum(0).astype(x.dtype), uploads)

    return Aggregator(init, aggregate, prepare)
