"""Federated multi-task learning in the style of MOCHA: clients are tasks, and so are related."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.personal import Personal
from eejax.cotrain.personal.seats import (
    Seat,
    StackUpload,
    at_seat,
    renew_stack,
    stack_models,
    stack_upload,
)

PyTree = Any


class Tasks(NamedTuple):
    """What the server keeps, and all that it sends.

    Attributes:
      models: W, leaves ``[clients, ...]``.
      omega: precision between tasks, ``[clients, clients]``; high where models are to be alike.
    """

    models: PyTree
    omega: jax.Array


def mocha(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    clients: int,
    lam: float,
    eps: float = 0.1,
) -> Personal:
    """Makes multi-task learning with learned relations between the clients.

    It minimises ``sum_t f_t(w_t) + lam/2 tr(W Omega W^T)`` over W and Omega by turns. Client t
    takes steps on its w_t, the models of others fixed, along ``lam sum_s Omega_ts w_s`` beside its
    own gradient; then the server sets ``Omega^-1 = (W^T W)^1/2 / tr((W^T W)^1/2)``, which is
    optimal among those of trace 1. MOCHA solves the dual problem of convex losses for that; these
    are primal steps, which any model can take, though the relation means most for linear ones.

    A client receives the models of all and sends one, see `stack_nbytes`.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, begun anew each round.
      clients: number of all clients.
      lam: weight of the relation, >= 0; local training if 0.
      eps: how far relations are drawn to independence, in (0, 1]: ``Omega^-1`` becomes
        ``(1 - eps) Omega^-1 + eps I / clients``, so no entry of Omega is above ``clients / eps``;
        a learning rate must be below ``2 eps / (lam clients)``. With 1 tasks are not related.

    Returns:
      The method; the clients' models are at the server. Wrap its engine in `seated`.

    Raises:
      ValueError: ``lam`` is negative or ``eps`` is not in (0, 1].

    References:
      Smith, Chiang, Sanjabi and Talwalkar, Federated Multi-Task Learning, 2017. Zhang and Yeung, A
      Convex Formulation for Learning Task Relationships in Multi-Task Learning, 2010.

    Example:
      >>> method = mocha(lambda w, batch, key: (0 * w, {}), optax.sgd(0.1), clients=2, lam=0.5)
      >>> method.algorithm.init(jnp.array([1.0, 0.0])).omega.tolist()
      [[2.0, 0.0], [0.0, 2.0]]
    """
    if lam < 0:
        raise ValueError(f"lam must be >= 0, got {lam!r}")
    if not 0 < eps <= 1:
        raise ValueError(f"eps must be in (0, 1], got {eps!r}")

    def local_update(tasks, seat, batches, key, tau=None):
        number = seat.number
        relations = tasks.omega[number]
        start = at_seat(tasks.models, number)
        pull = trees.weighted_sum(relations, tasks.models)

        def related(w, batch, step_key):
            grads, metrics = grad_fn(w, batch, step_key)

            def add(g, p, w, w_0):  # Its own model is in p as it was; that part moves.
                return g + lam * (p + relations[number] * (w - w_0))

            return jax.tree.map(add, grads, pull, w, start), metrics

        w, metrics = adapt(related, client_opt, start, batches, key, tau)
        return stack_upload(w, number, clients), seat, metrics

    def server_update(tasks, mean):
        models = renew_stack(tasks.models, mean)
        return Tasks(models, relate(models, eps))

    def personalise(tasks, seat, batches, key, tau=None):
        del batches, key, tau
        return at_seat(tasks.models, seat.number)

    algorithm = FederatedAlgorithm(
        init=lambda params: Tasks(stack_models(params, clients), clients * jnp.eye(clients)),
        client_init=lambda params: Seat(jnp.array(-1, jnp.int32), ()),
        local_update=local_update,
        server_update=server_update,
        broadcast=lambda tasks: tasks,
        upload=lambda params: StackUpload(stack_models(params, clients), jnp.zeros(clients)),
        weighting="uniform",
    )
    return Personal(algorithm, personalise, model=None)


def relate(models: PyTree, eps: float) -> jax.Array:
    """Learns how tasks are related.

    Args:
      models: leaves ``[clients, ...]``.
      eps: see `mocha`.

    Returns:
      Omega, ``[clients, clients]``.

    Example:
      >>> relate(jnp.array([[2.0, 0.0], [0.0, 2.0]]), eps=0.1).round(3).tolist()
      [[2.0, 0.0], [0.0, 2.0]]
    """
    clients = jax.tree.leaves(models)[0].shape[0]
    flat = jnp.concatenate([x.reshape(clients, -1) for x in jax.tree.leaves(models)], 1)
    # The root of flat flat^T by way of its singular values: no root of a rounding error.
    u, s, _ = jnp.linalg.svd(flat, full_matrices=False)
    trace = jnp.maximum(s.sum(), jnp.finfo(s.dtype).tiny)
    covariance = (1 - eps) * (u * s[None] / trace) @ u.T + eps * jnp.eye(clients) / clients
    return jnp.linalg.inv(covariance)
