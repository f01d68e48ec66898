"""FedMeta with Meta-SGD: the learning rate of every weight is learned with the model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.cotrain.federated.fedsgd import fedsgd
from eejax.cotrain.federated.local import GradFn, take_steps
from eejax.cotrain.personal.adapt import split_batch
from eejax.cotrain.personal.personal import Personal

PyTree = Any


class MetaParams(NamedTuple):
    """What is learned, sent and uploaded as gradients: twice the bytes of a model, both ways.

    Attributes:
      theta: the model to begin from.
      alpha: learning rate of each of its weights.
    """

    theta: PyTree
    alpha: PyTree


def meta_sgd(
    grad_fn: GradFn,
    alpha: float,
    server_opt: optax.GradientTransformation,
    support: float = 0.5,
) -> Personal:
    """Makes FedMeta with Meta-SGD.

    As `maml` with one inner step ``theta' = theta - alpha o grad L_support(theta)``, where alpha
    holds a learning rate for each weight; clients upload the gradient of the query loss with
    respect to both. Rates may become negative, as in the paper.

    Args:
      grad_fn: gradient of the loss on one batch.
      alpha: all learning rates at first.
      server_opt: optimiser of the server, for model and rates.
      support: share of a batch that is the support set.

    Returns:
      The method; its clients keep no state.

    References:
      Chen et al., Federated Meta-Learning with Fast Convergence and Efficient Communication, 2018;
      algorithm 1. Li et al., Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017.

    Example:
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2: theta' = 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = meta_sgd(grad_fn, 0.5, optax.sgd(1.0)).algorithm
      >>> sent = algorithm.broadcast(algorithm.init(jnp.array(0.0)))
      >>> upload, _, _ = algorithm.local_update(sent, (), jnp.array([[4.0, 4.0]]), None)
      >>> float(upload.theta), float(upload.alpha)  # -2 * (1 - alpha) and -2 * 4.
      (-1.0, -8.0)
    """

    def adapted(meta, batch, key):
        g, _ = grad_fn(meta.theta, batch, key)
        return jax.tree.map(lambda t, a, g: t - a * g, *meta, g)

    def gradient(meta, batch, key):
        support_set, query_set = split_batch(batch, support, 1 - support)
        theta, pull_back = jax.vjp(lambda meta: adapted(meta, support_set, key), meta)
        grads, metrics = grad_fn(theta, query_set, key)
        return pull_back(grads)[0], metrics

    inner = fedsgd(gradient, server_opt)

    def init(params):
        return inner.init(
            MetaParams(params, jax.tree.map(lambda x: jnp.full_like(x, alpha), params))
        )

    def personalise(meta, client_state, batches, key, tau=None):
        del client_state

        def step(theta, batch, step_key):
            return adapted(MetaParams(theta, meta.alpha), batch, step_key), {}

        return take_steps(step, meta.theta, batches, key, tau)[0]

    algorithm = inner._replace(
        init=init, upload=lambda params: MetaParams(params, params), weighting="uniform"
    )
    return Personal(algorithm, personalise, model=lambda meta: meta.theta)
