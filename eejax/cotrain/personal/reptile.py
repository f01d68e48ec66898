"""FedAvg-Reptile: the global model moves part of the way to what the clients have become."""

import optax

from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.fine_tune import fine_tune
from eejax.cotrain.personal.personal import Personal


def reptile(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    server_opt: optax.GradientTransformation,
) -> Personal:
    """Makes Reptile over federated clients.

    Clients take local steps as in FedAvg; the server takes their mean change, of all clients alike,
    as the direction of a step of its own: ``optax.sgd(epsilon)`` is Reptile as published, Adam is
    what Jiang et al. use. They first train by FedAvg and then by this with a smaller epsilon; give
    the parameters of one run to the other for that.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, in training and when they adapt the final model.
      server_opt: optimiser of the server.

    Returns:
      The method; its clients keep no state. With ``optax.sgd(1.0)`` and clients of equal size it is
      FedAvg with fine-tuning.

    References:
      Nichol, Achiam and Schulman, On First-Order Meta-Learning Algorithms, 2018. Jiang et al.,
      Improving Federated Learning Personalization via Model Agnostic Meta Learning, 2019.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = reptile(grad_fn, optax.sgd(0.5), optax.sgd(0.5)).algorithm
      >>> state = algorithm.server_update(algorithm.init(jnp.array(0.0)), jnp.array(3.0))
      >>> float(state.params)
      1.5
    """
    algorithm = fedavg(grad_fn, client_opt, server_opt)._replace(weighting="uniform")
    return fine_tune(algorithm, grad_fn, client_opt)
