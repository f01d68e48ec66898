"""FedAvgM: averaging with momentum at the server."""

import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn


def fedavgm(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    lr: float = 1.0,
    beta: float = 0.9,
) -> FederatedAlgorithm:
    """Makes federated averaging with server momentum.

    With the mean change D of the clients' models, the server does ``v <- beta v + D`` and
    ``w <- w + lr v``.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients.
      lr: learning rate of the server.
      beta: momentum; FedAvg if 0 and ``lr`` is 1.

    Returns:
      The algorithm; its clients keep no state.

    References:
      Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated
      Visual Classification, 2019.

    Example:
      >>> import jax.numpy as jnp
      >>> algorithm = fedavgm(None, optax.sgd(0.1), beta=0.5)
      >>> state = algorithm.init(jnp.array(0.0))
      >>> for _ in range(2):
      ...     state = algorithm.server_update(state, jnp.array(1.0))
      >>> float(state.params)  # 0 -> 1 -> 1 + 1.5.
      2.5
    """
    return fedavg(grad_fn, client_opt, optax.sgd(lr, momentum=beta))
