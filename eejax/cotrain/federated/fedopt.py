"""FedAdagrad, FedAdam and FedYogi: adaptive optimisers at the server."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn

PyTree = Any


class Moments(NamedTuple):
    """State of the server's optimiser.

    Attributes:
      m: running mean of the clients' mean changes.
      v: their second moment, ``tau^2`` at first.
    """

    m: PyTree
    v: PyTree


def fedadagrad(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    lr: float,
    b1: float = 0.0,
    tau: float = 1e-3,
) -> FederatedAlgorithm:
    """Makes FedAdagrad: ``v <- v + D^2``; see `fedadam`.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients.
      lr: learning rate of the server.
      b1: momentum; the paper's experiments use none here.
      tau: degree of adaptivity; small is more adaptive.

    Returns:
      The algorithm; its clients keep no state.

    References:
      Reddi et al., Adaptive Federated Optimization, 2021; algorithm 2.

    Example:
      >>> algorithm = fedadagrad(None, optax.sgd(0.1), lr=1.0, tau=1.0)
      >>> state = algorithm.server_update(algorithm.init(jnp.array(0.0)), jnp.array(2.0))
      >>> round(float(state.params), 4)  # 2 / (sqrt(1 + 4) + 1).
      0.618
    """
    return fedavg(grad_fn, client_opt, _adaptive(lr, b1, tau, lambda v, d2: v + d2))


def fedadam(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
) -> FederatedAlgorithm:
    """Makes FedAdam.

    With the mean change D of the clients' models, the server does ``m <- b1 m + (1 - b1) D``,
    ``v <- b2 v + (1 - b2) D^2`` and ``w <- w + lr m / (sqrt(v) + tau)``, from ``v = tau^2``. Unlike
    Adam of optax it corrects no bias: that is what the start of v is for.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients.
      lr: learning rate of the server.
      b1: momentum.
      b2: decay of the second moment.
      tau: degree of adaptivity; small is more adaptive.

    Returns:
      The algorithm; its clients keep no state.

    References:
      Reddi et al., Adaptive Federated Optimization, 2021; algorithm 2.

    Example:
      >>> algorithm = fedadam(None, optax.sgd(0.1), lr=1.0, b1=0.0, b2=0.5, tau=1.0)
      >>> state = algorithm.server_update(algorithm.init(jnp.array(0.0)), jnp.array(1.0))
      >>> float(state.params)  # 1 / (sqrt(0.5 + 0.5) + 1).
      0.5
    """
    second = _adaptive(lr, b1, tau, lambda v, d2: b2 * v + (1 - b2) * d2)
    return fedavg(grad_fn, client_opt, second)


def fedyogi(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.99,
    tau: float = 1e-3,
) -> FederatedAlgorithm:
    """Makes FedYogi: ``v <- v - (1 - b2) D^2 sign(v - D^2)``; see `fedadam`.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients.
      lr: learning rate of the server.
      b1: momentum.
      b2: decay of the second moment.
      tau: degree of adaptivity; small is more adaptive.

    Returns:
      The algorithm; its clients keep no state.

    References:
      Reddi et al., Adaptive Federated Optimization, 2021; algorithm 2.

    Example:
      >>> algorithm = fedyogi(None, optax.sgd(0.1), lr=1.0, b1=0.0, b2=0.5, tau=2.0)
      >>> state = algorithm.server_update(algorithm.init(jnp.array(0.0)), jnp.array(1.0))
      >>> round(float(state.params), 4)  # 1 / (sqrt(4 - 0.5) + 2).
      0.2583
    """
    second = _adaptive(lr, b1, tau, lambda v, d2: v - (1 - b2) * d2 * jnp.sign(v - d2))
    return fedavg(grad_fn, client_opt, second)


def _adaptive(
    lr: float, b1: float, tau: float, second: Callable[[jax.Array, jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """Makes what the three share, fed with pseudo-gradients -D."""

    def init(params):
        return Moments(
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda x: jnp.full_like(x, tau**2), params),
        )

    def update(grads, state, params=None):
        del params
        m = jax.tree.map(lambda m, g: b1 * m - (1 - b1) * g, state.m, grads)
        v = jax.tree.map(lambda v, g: second(v, g**2), state.v, grads)
        return jax.tree.map(lambda m, v: lr * m / (jnp.sqrt(v) + tau), m, v), Moments(m, v)

    return optax.GradientTransformation(init, update)
