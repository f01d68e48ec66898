"""FedNova: clients send normalised directions, so that unequal local work skews nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn, take_steps

PyTree = Any


class NovaUpload(NamedTuple):
    """What a client sends; its mean over the clients is what the server needs.

    Attributes:
      direction: the change of the model over the norm of a_i, ``-lr d_i``.
      norm: ``|a_i|_1``, f32; the number of steps for plain SGD.
    """

    direction: PyTree
    norm: jax.Array


def fednova(
    grad_fn: GradFn,
    lr: float,
    momentum: float = 0.0,
    mu: float = 0.0,
    server_opt: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Makes FedNova, for SGD with momentum and a proximal term at the clients.

    What client i changes is ``-lr G_i a_i``: its gradients are the columns of G_i, and ``a_i`` says
    how much each of them moved the model. The server adds ``tau_eff sum_i p_i (-lr d_i)`` with
    ``d_i = G_i a_i / |a_i|_1`` and ``tau_eff = sum_i p_i |a_i|_1``; FedAvg would add
    ``sum_i p_i |a_i|_1 (-lr d_i)``, which favours clients of many steps. Here p_i are shares of the
    samples.

    Args:
      grad_fn: gradient of the loss on one batch.
      lr: learning rate of the clients.
      momentum: of the clients, in [0, 1); begins anew each round.
      mu: weight of the proximal term, >= 0.
      server_opt: optimiser of the server; plain addition if None, ``optax.sgd(1.0, 0.9)`` for the
        paper's slow momentum.

    Returns:
      The algorithm; its clients keep no state. With equal steps it is FedAvg.

    References:
      Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated
      Optimization, 2020; equations 6 to 8, sections 3 and 4.

    Example:
      >>> def grad_fn(w, batch, key):
      ...     return -jnp.ones(()), {}
      >>> algorithm = fednova(grad_fn, lr=0.5)
      >>> upload, _, _ = algorithm.local_update(jnp.array(0.0), (), jnp.zeros((3, 1)), None)
      >>> float(upload.direction), float(upload.norm)
      (0.5, 3.0)
    """

    def local_update(params, client_state, batches, key, tau=None):
        def step(carry, batch, step_key):
            w, velocity, a, norm = carry
            grads, metrics = grad_fn(w, batch, step_key)
            velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grads)
            w = jax.tree.map(lambda w, v, w_0: w - lr * (v + mu * (w - w_0)), w, velocity, params)
            # The same recursion for what a gradient of 1 in every step would have moved.
            a = momentum * a + 1
            return (w, velocity, a, (1 - lr * mu) * norm + a), metrics

        none = jax.tree.map(jnp.zeros_like, params)
        carry = (params, none, jnp.zeros(()), jnp.zeros(()))
        (w, _, _, norm), metrics = take_steps(step, carry, batches, key, tau)
        norm = jnp.where(norm > 0, norm, 1)  # Of a client without steps, which counts nowhere.
        direction = jax.tree.map(lambda a, b: (a - b) / norm, w, params)
        return NovaUpload(direction, norm), client_state, metrics

    server = fedavg(grad_fn, optax.identity(), server_opt)

    def server_update(state, mean):
        update = jax.tree.map(lambda d: mean.norm * d, mean.direction)
        return server.server_update(state, update)

    return server._replace(
        local_update=local_update,
        server_update=server_update,
        upload=lambda params: NovaUpload(params, jnp.zeros(())),
    )
