"""pFedSD: clients distil what they knew from their last personal model into the next."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax import trees
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.personal import Personal

PyTree = Any


class Teacher(NamedTuple):
    """What a client keeps.

    Attributes:
      params: its personal model after the last round in which it took part.
      seen: f32, 1 once there was such a round, else 0.
    """

    params: PyTree
    seen: jax.Array


def pfedsd(
    grad_fn: GradFn,
    logits_fn: Callable[[PyTree, PyTree], jax.Array],
    client_opt: optax.GradientTransformation,
    lam: float,
    temperature: float = 3.0,
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes federated self-knowledge distillation.

    From the global model a client minimises ``f(w) + lam T^2 KL(q(v / T) || q(w / T))`` with the
    softened outputs q of its last personal model v, so that training from the mean of all does not
    make it forget. The result is its new v, and what it uploads. In its first round there is no
    teacher.

    Args:
      grad_fn: gradient of the loss f on one batch.
      logits_fn: ``(params, batch) -> logits [batch, classes]``.
      client_opt: optimiser of the clients, begun anew each round.
      lam: weight of the distillation, >= 0; FedAvg if 0.
      temperature: T.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; a client keeps its last personal model.

    Raises:
      ValueError: ``lam`` is negative or the temperature is not above 0.

    References:
      Jin et al., Personalized Edge Intelligence via Federated Self-Knowledge Distillation, 2023.

    Example:
      >>> method = pfedsd(lambda w, batch, key: (w, {}), None, optax.sgd(0.1), lam=0.5)
      >>> teacher = method.algorithm.client_init(jnp.array(2.0))
      >>> float(method.personalise(jnp.array(1.0), teacher, None, None))  # Never took part.
      1.0
    """
    if lam < 0:
        raise ValueError(f"lam must be >= 0, got {lam!r}")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}")
    algorithm = fedavg(grad_fn, client_opt, server_opt)

    def local_update(params, teacher, batches, key, tau=None):
        def distilled(w, batch, step_key):
            target = jax.nn.softmax(logits_fn(teacher.params, batch) / temperature)

            def divergence(w):
                log_q = jax.nn.log_softmax(logits_fn(w, batch) / temperature)
                # Without the entropy of the target, which has no gradient.
                return -(target * log_q).sum(-1).mean()

            grads, metrics = grad_fn(w, batch, step_key)
            weight = teacher.seen * lam * temperature**2
            pull = jax.grad(divergence)(w)
            return jax.tree.map(lambda g, d: g + weight * d, grads, pull), metrics

        w, metrics = adapt(distilled, client_opt, params, batches, key, tau)
        return trees.sub(w, params), Teacher(w, jnp.ones_like(teacher.seen)), metrics

    def personalise(params, teacher, batches, key, tau=None):
        del batches, key, tau
        return jax.tree.map(lambda v, w: jnp.where(teacher.seen > 0, v, w), teacher.params, params)

    return Personal(
        algorithm._replace(
            client_init=lambda params: Teacher(params, jnp.zeros(())), local_update=local_update
        ),
        personalise,
    )
