"""Ditto: beside the global model each client trains its own, held near the global one."""

import jax
import optax

from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import adapt
from eejax.cotrain.personal.personal import Personal


def ditto(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    lam: float,
    personal_opt: optax.GradientTransformation | None = None,
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes Ditto.

    A client does what FedAvg asks from the global model w and uploads that. On the same batches it
    trains its own model, ``v <- v - eta (g(v) + lam (v - w))``, which it keeps. So the global model
    is that of FedAvg, and training costs twice the work at the same bytes.

    Args:
      grad_fn: gradient of the loss on one batch.
      client_opt: optimiser of the clients for the global model.
      lam: pull to the global model, >= 0; plain local training if 0.
      personal_opt: optimiser of the personal models; ``client_opt`` if None.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; a client keeps its model v.

    Raises:
      ValueError: ``lam`` is negative.

    References:
      Li, Hu, Beirami and Smith, Ditto: Fair and Robust Federated Learning Through Personalization,
      2021; algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> algorithm = ditto(grad_fn, optax.sgd(0.5), lam=1.0).algorithm
      >>> upload, v, _ = algorithm.local_update(
      ...     jnp.array(0.0), jnp.array(0.0), jnp.array([[4.0], [4.0]]), None)
      >>> float(upload), float(v)  # v: 0 -> 2, where both pulls are equal.
      (3.0, 2.0)
    """
    if lam < 0:
        raise ValueError(f"lam must be >= 0, got {lam!r}")
    personal_opt = client_opt if personal_opt is None else personal_opt
    algorithm = fedavg(grad_fn, client_opt, server_opt)

    def local_update(w, v, batches, key, tau=None):
        def near(v, batch, step_key):
            grads, metrics = grad_fn(v, batch, step_key)
            return jax.tree.map(lambda g, v, w: g + lam * (v - w), grads, v, w), metrics

        upload, _, metrics = algorithm.local_update(w, (), batches, key, tau)
        v, own = adapt(near, personal_opt, v, batches, key, tau)
        return upload, v, metrics | {f"personal_{name}": value for name, value in own.items()}

    def personalise(w, v, batches, key, tau=None):
        del w, batches, key, tau
        return v

    return Personal(
        algorithm._replace(client_init=lambda params: params, local_update=local_update),
        personalise,
    )
