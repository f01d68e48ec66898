"""FedProx: a proximal term holds clients near the global model, and partial work counts."""

import jax
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn


def fedprox(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    mu: float,
    server_opt: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Makes FedProx.

    Clients minimise ``F_k(w) + mu/2 |w - w_t|^2`` from the global model ``w_t``, by as many steps
    as they can. For clients that do less than the others, count local training in `Epochs` with
    ``stragglers``; FedAvg drops them (``drop=True``), FedProx takes what they did.

    Args:
      grad_fn: gradient of the loss on one batch, without the proximal term.
      client_opt: optimiser of the clients.
      mu: weight of the proximal term, >= 0; FedAvg if 0.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The algorithm; its clients keep no state.

    Raises:
      ValueError: ``mu`` is negative.

    References:
      Li et al., Federated Optimization in Heterogeneous Networks, 2020.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = fedprox(grad_fn, optax.sgd(0.5), mu=1.0)
      >>> batches = jnp.array([[4.0], [4.0]])
      >>> upload, _, _ = algorithm.local_update(jnp.array(0.0), (), batches, None)
      >>> float(upload)  # 0 -> 2, where pull and push are equal.
      2.0
    """
    if mu < 0:
        raise ValueError(f"mu must be >= 0, got {mu!r}")

    def local_update(params, client_state, batches, key, tau=None):
        def proximal(w, batch, step_key):
            grads, metrics = grad_fn(w, batch, step_key)
            return jax.tree.map(lambda g, a, b: g + mu * (a - b), grads, w, params), metrics

        local = fedavg(proximal, client_opt).local_update
        return local(params, client_state, batches, key, tau)

    return fedavg(grad_fn, client_opt, server_opt)._replace(local_update=local_update)
