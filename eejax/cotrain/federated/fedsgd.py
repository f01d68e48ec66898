"""FedSGD with a parameter server: clients send gradients, only the server takes steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn, count_steps, take_steps

PyTree = Any


def fedsgd(grad_fn: GradFn, server_opt: optax.GradientTransformation) -> FederatedAlgorithm:
    """Makes federated SGD.

    Every client computes the gradient ``g_k`` at the global model w over its batches, without any
    step of its own, and uploads it. The server hands the mean, weighted by the clients' numbers of
    samples, to its optimiser. Let the batches of a round be one epoch (`Epochs`) for the gradient
    over all data of a client, exact where the batch size divides its number of samples.

    Args:
      grad_fn: gradient of the loss on one batch.
      server_opt: optimiser of the parameter server.

    Returns:
      The algorithm; its clients keep no state. With one batch a round and SGD at both it is FedAvg.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017. Li et al., Scaling Distributed Machine Learning with the Parameter Server, 2014.

    Example:
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = fedsgd(grad_fn, optax.sgd(0.5))
      >>> batches = jnp.array([[4.0], [2.0]])  # Both gradients at w = 0.
      >>> upload, _, _ = algorithm.local_update(jnp.array(0.0), (), batches, None)
      >>> float(upload), float(algorithm.server_update(algorithm.init(0.0), upload).params)
      (-3.0, 1.5)
    """

    def local_update(params, client_state, batches, key, tau=None):
        def step(total, batch, step_key):
            grads, metrics = grad_fn(params, batch, step_key)
            return jax.tree.map(jnp.add, total, grads), metrics

        total, metrics = take_steps(step, jax.tree.map(jnp.zeros_like, params), batches, key, tau)
        mean = jax.tree.map(lambda g: g / count_steps(batches, tau), total)
        return mean, client_state, metrics

    server = fedavg(grad_fn, optax.identity(), server_opt)

    def server_update(state, mean):
        return server.server_update(state, jax.tree.map(lambda g: -g, mean))

    return server._replace(local_update=local_update, server_update=server_update)
