"""FedMeta with MAML: clients send the gradient of the loss after they have adapted the model."""

from typing import Any

import jax
import optax

from eejax.cotrain.federated.fedsgd import fedsgd
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import split_batch
from eejax.cotrain.personal.fine_tune import fine_tune
from eejax.cotrain.personal.personal import Personal

PyTree = Any


def meta_gradient(
    grad_fn: GradFn, alpha: Any, inner_steps: int = 1, support: float = 0.5
) -> GradFn:
    """Turns the gradient of a loss into that of the loss after adaptation, second order included.

    ``d/dtheta L_query(theta')`` with ``theta' = theta - alpha grad L_support(theta)``, so
    ``grad_fn`` is differentiated once more.

    Args:
      grad_fn: gradient of the loss on one batch.
      alpha: learning rate of the inner steps.
      inner_steps: how many there are, all on the same support set.
      support: share of a batch that is the support set; the rest is the query set.

    Returns:
      ``(params, batch, key) -> (grads, metrics)``; metrics are those of the query set.

    Raises:
      ValueError: at the first step, the batch is too small to be cut.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2: theta' = (theta + 4) / 2.
      ...     return w - batch.mean(), {}
      >>> of = meta_gradient(grad_fn, alpha=0.5)
      >>> float(of(jnp.array(0.0), jnp.array([4.0, 4.0]), None)[0])
      -1.0
    """

    def gradient(theta, batch, key):
        support_set, query_set = split_batch(batch, support, 1 - support)

        def adapted(theta):
            def inner(theta, _):
                g, _ = grad_fn(theta, support_set, key)
                return jax.tree.map(lambda t, g: t - alpha * g, theta, g), None

            return jax.lax.scan(inner, theta, length=inner_steps)[0]

        adapted_theta, pull_back = jax.vjp(adapted, theta)
        grads, metrics = grad_fn(adapted_theta, query_set, key)
        return pull_back(grads)[0], metrics

    return gradient


def maml(
    grad_fn: GradFn,
    alpha: float,
    server_opt: optax.GradientTransformation,
    inner_steps: int = 1,
    support: float = 0.5,
) -> Personal:
    """Makes FedMeta with MAML.

    A client adapts the model it was sent on its support set and uploads the gradient of the loss on
    its query set with respect to what it was sent. The server takes a step against the mean, over
    clients alike. A round of several batches gives the mean of their gradients, all at the same
    model. Support and query sets are cut from each batch.

    Args:
      grad_fn: gradient of the loss on one batch.
      alpha: learning rate of the inner steps.
      server_opt: optimiser of the server; the paper takes Adam.
      inner_steps: steps of an adaptation.
      support: share of a batch that is the support set.

    Returns:
      The method; its clients keep no state. With ``alpha = 0`` it is FedSGD on the query sets.

    References:
      Chen et al., Federated Meta-Learning with Fast Convergence and Efficient Communication, 2018;
      algorithm 1. Finn, Abbeel and Levine, Model-Agnostic Meta-Learning for Fast Adaptation of Deep
      Networks, 2017.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):
      ...     return w - batch.mean(), {}
      >>> algorithm = maml(grad_fn, 0.5, optax.sgd(1.0)).algorithm
      >>> float(algorithm.local_update(jnp.array(0.0), (), jnp.array([[4.0, 4.0]]), None)[0])
      -1.0
    """
    algorithm = fedsgd(meta_gradient(grad_fn, alpha, inner_steps, support), server_opt)
    return fine_tune(algorithm._replace(weighting="uniform"), grad_fn, optax.sgd(alpha))
