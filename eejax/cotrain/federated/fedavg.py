"""FedAvg: clients train from the same model, the server averages what they changed."""

from typing import Any, NamedTuple

import jax
import optax

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn, take_steps

PyTree = Any


class ServerState(NamedTuple):
    """What the server keeps.

    Attributes:
      params: the global model w.
      opt_state: state of the server's optimiser.
    """

    params: PyTree
    opt_state: PyTree


def fedavg(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    server_opt: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Makes federated averaging.

    Every client k takes local steps ``w_k <- client_opt(w_k, g_k)`` from the global model w, with a
    fresh optimiser state, and uploads ``w_k - w``. The server adds the mean, weighted by the
    clients' numbers of samples, to w. That mean is also a pseudo-gradient ``-mean`` for any other
    optimiser, which turns FedAvg into FedOpt.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients.
      server_opt: optimiser of the server; ``optax.sgd(1.0)``, plain averaging, if None.

    Returns:
      The algorithm; its clients keep no state.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017. Server optimisers: Reddi et al., Adaptive Federated Optimization, 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = fedavg(grad_fn, optax.sgd(0.5))
      >>> state = algorithm.init(jnp.array(0.0))
      >>> batches = jnp.array([[4.0], [4.0]])  # Two steps of one sample.
      >>> upload, _, _ = algorithm.local_update(algorithm.broadcast(state), (), batches, None)
      >>> float(algorithm.server_update(state, upload).params)  # 0 -> 2 -> 3.
      3.0
    """
    server_opt = optax.sgd(1.0) if server_opt is None else server_opt

    def init(params):
        return ServerState(params, server_opt.init(params))

    def client_init(params):
        del params
        return ()

    def local_update(params, client_state, batches, key, tau=None):
        def step(carry, batch, step_key):
            w, opt_state = carry
            grads, metrics = grad_fn(w, batch, step_key)
            updates, opt_state = client_opt.update(grads, opt_state, w)
            return (optax.apply_updates(w, updates), opt_state), metrics

        carry = (params, client_opt.init(params))
        (w, _), metrics = take_steps(step, carry, batches, key, tau)
        return trees.sub(w, params), client_state, metrics

    def server_update(state, mean):
        pseudo_gradient = jax.tree.map(lambda d: -d, mean)
        updates, opt_state = server_opt.update(pseudo_gradient, state.opt_state, state.params)
        return ServerState(optax.apply_updates(state.params, updates), opt_state)

    return FederatedAlgorithm(
        init,
        client_init,
        local_update,
        server_update,
        broadcast=lambda state: state.params,
        by_steps=True,
    )
