"""FedAsync: the server mixes every update into the model at once, the staler the less."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.cotrain.federated.asynchronous import AsyncServer

PyTree = Any


class FedAsyncState(NamedTuple):
    """What the server keeps.

    Attributes:
      params: the global model.
      version: int32, how many updates it has taken.
    """

    params: PyTree
    version: jax.Array


def fedasync(
    alpha: float = 0.6, staleness: Callable[[jax.Array], jax.Array] | None = None
) -> AsyncServer:
    """Makes the server of FedAsync: ``x <- (1 - alpha_t) x + alpha_t x_new``.

    ``alpha_t = alpha s(t - tau)``, and ``x_new`` is the model of the client. The clients of the
    paper keep near the model they began from: train them by `fedprox` with its ``rho`` as ``mu``.

    Args:
      alpha: weight of a fresh update, in (0, 1).
      staleness: the function s of the staleness; ``polynomial(0.5)`` if None.

    Returns:
      The server.

    Raises:
      ValueError: alpha is out of range.

    References:
      Xie, Koyejo and Gupta, Asynchronous Federated Optimization, 2019.

    Example:
      >>> server = fedasync(alpha=0.5)
      >>> state = server.init(jnp.array(2.0))
      >>> pulled, upload = jnp.array(0.0), jnp.array(4.0)
      >>> float(server.receive(state, pulled, upload, 10, jnp.array(3)).params)  # 0.75 2 + 0.25 4.
      2.5
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    staleness = polynomial(0.5) if staleness is None else staleness

    def init(params):
        return FedAsyncState(params, jnp.zeros((), jnp.int32))

    def receive(state, pulled, upload, samples, stale):
        del samples
        alpha_t = alpha * staleness(stale)
        params = jax.tree.map(
            lambda x, p, u: x + alpha_t.astype(x.dtype) * (p + u - x), state.params, pulled, upload
        )
        return FedAsyncState(params, state.version + 1)

    return AsyncServer(init, receive, lambda s: s.params, lambda s: s.version)


def constant_staleness(stale: jax.Array) -> jax.Array:
    """Counts every update alike: 1."""
    return jnp.ones(jnp.shape(stale))


def polynomial(a: float) -> Callable[[jax.Array], jax.Array]:
    """Makes ``s = (staleness + 1) ** -a``.

    Args:
      a: exponent, > 0.

    Returns:
      The function of staleness.
    """
    return lambda stale: (stale + 1.0) ** -a


def hinge(a: float, b: float) -> Callable[[jax.Array], jax.Array]:
    """Makes ``s = 1`` up to a staleness of b, then ``1 / (a (staleness - b) + 1)``.

    Args:
      a: slope, > 0.
      b: staleness that does not matter, >= 0.

    Returns:
      The function of staleness.

    Example:
      >>> hinge(a=1, b=4)(jnp.array([0, 4, 5, 7])).tolist()
      [1.0, 1.0, 0.5, 0.25]
    """
    return lambda stale: 1 / (a * jnp.maximum(stale - b, 0) + 1.0)
