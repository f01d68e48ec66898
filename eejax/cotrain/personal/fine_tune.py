"""Fine-tuning: every client takes a few more steps from the global model of any algorithm."""

from collections.abc import Callable
from typing import Any

import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.personal import Personal

PyTree = Any


def fine_tune(
    algorithm: FederatedAlgorithm,
    grad_fn: GradFn,
    opt: optax.GradientTransformation,
    model: Callable[[PyTree], PyTree] = lambda sent: sent,
) -> Personal:
    """Makes federated training with fine-tuning at the end.

    Each client takes one step on every batch that `evaluator` gives it for this, from the global
    model; with none, it uses the global model as it is.

    Args:
      algorithm: trains the global model, such as `fedavg`.
      grad_fn: gradient of the loss on one batch.
      opt: optimiser of the clients when they fine-tune.
      model: takes the model out of what the algorithm sends; ``lambda sent: sent.params`` for
        `scaffold`, which sends more than a model.

    Returns:
      The method.

    References:
      Wang et al., Federated Evaluation of On-device Personalization, 2019.

    Example:
      >>> import jax.numpy as jnp
      >>> from eejax.cotrain.federated import fedavg
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> tuned = fine_tune(fedavg(grad_fn, optax.sgd(0.5)), grad_fn, optax.sgd(0.5))
      >>> float(tuned.personalise(jnp.array(0.0), (), jnp.array([[4.0]]), None))
      2.0
    """

    def personalise(broadcast, client_state, batches, key, tau=None):
        del client_state
        return adapt(grad_fn, opt, model(broadcast), batches, key, tau)[0]

    return Personal(algorithm, personalise, model)
