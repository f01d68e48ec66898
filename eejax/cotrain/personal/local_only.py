"""Local training only: the baseline that every personalised method has to beat."""

import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.personal import Personal


def local_only(grad_fn: GradFn, client_opt: optax.GradientTransformation) -> Personal:
    """Makes training without any exchange: nothing is uploaded and nothing is broadcast.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients, begun anew each round.

    Returns:
      The method; a client keeps its model, and there is no global one.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> alone = local_only(grad_fn, optax.sgd(0.5)).algorithm
      >>> upload, w, _ = alone.local_update((), jnp.array(0.0), jnp.array([[4.0]]), None)
      >>> upload, float(w)
      ((), 2.0)
    """

    def local_update(broadcast, w, batches, key, tau=None):
        del broadcast
        w, metrics = adapt(grad_fn, client_opt, w, batches, key, tau)
        return (), w, metrics

    algorithm = FederatedAlgorithm(
        init=lambda params: (),
        client_init=lambda params: params,
        local_update=local_update,
        server_update=lambda state, mean: state,
        broadcast=lambda state: state,
        upload=lambda params: (),
    )

    def personalise(broadcast, w, batches, key, tau=None):
        del broadcast, batches, key, tau
        return w

    return Personal(algorithm, personalise, model=None)
