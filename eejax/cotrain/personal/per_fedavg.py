"""Per-FedAvg: the global model is to be good after one step of each client on its own samples."""

from typing import Literal

import jax
import optax

from eejax.cotrain.federated.fedavg import fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.cotrain.personal.adapt import split_batch
from eejax.cotrain.personal.fine_tune import fine_tune
from eejax.cotrain.personal.personal import Personal


def per_fedavg(
    grad_fn: GradFn,
    lr: float,
    alpha: float,
    variant: Literal["fo", "hf"] = "hf",
    delta: float = 1e-3,
    server_opt: optax.GradientTransformation | None = None,
) -> Personal:
    """Makes Per-FedAvg, with one of its two ways around second derivatives.

    It minimises the mean of ``F_i(w) = f_i(w - alpha grad f_i(w))``. A local step cuts its batch
    into D, D' and D'' and does ``w <- w - lr (I - alpha H(w, D'')) g(w', D')`` from
    ``w' = w - alpha g(w, D)``. First-order (FO) leaves H out, and needs no D''; Hessian-free (HF)
    takes ``H v = (g(w + delta v) - g(w - delta v)) / (2 delta)``, at the price of two gradients.
    With few samples in D'' its noise spoils the model before adaptation, if not after.

    Args:
      grad_fn: gradient of the loss on one batch.
      lr: learning rate of the clients, the paper's beta.
      alpha: learning rate of the step that adapts a model.
      variant: ``"fo"`` or ``"hf"``.
      delta: of the difference; in single precision not below about 1e-3 of the size of weights.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The method; its clients keep no state. With ``alpha = 0`` it is FedAvg on the samples of D'.

    Raises:
      ValueError: the variant is none of these; or, at the first step, the batch is below 2 (FO) or
        3 (HF) samples.

    References:
      Fallah, Mokhtari and Ozdaglar, Personalized Federated Learning with Theoretical Guarantees: A
      Model-Agnostic Meta-Learning Approach, 2020; algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2: g = w - x and H = 1.
      ...     return w - batch.mean(), {}
      >>> batches = jnp.array([[4.0, 4.0, 4.0]])
      >>> for variant in ("fo", "hf"):  # w' = 2, so g = -2.
      ...     algorithm = per_fedavg(grad_fn, lr=1.0, alpha=0.5, variant=variant).algorithm
      ...     print(round(float(algorithm.local_update(jnp.array(0.0), (), batches, None)[0]), 3))
      2.0
      1.0
    """
    if variant not in ("fo", "hf"):
        raise ValueError(f"variant must be 'fo' or 'hf', got {variant!r}")
    shares = (1 / 2, 1 / 2) if variant == "fo" else (1 / 3, 1 / 3, 1 / 3)

    def meta_gradient(w, batch, key):
        parts = split_batch(batch, *shares)
        g, _ = grad_fn(w, parts[0], key)
        v, metrics = grad_fn(jax.tree.map(lambda w, g: w - alpha * g, w, g), parts[1], key)
        if variant == "fo":
            return v, metrics
        ahead, _ = grad_fn(jax.tree.map(lambda w, v: w + delta * v, w, v), parts[2], key)
        behind, _ = grad_fn(jax.tree.map(lambda w, v: w - delta * v, w, v), parts[2], key)
        grads = jax.tree.map(lambda v, a, b: v - alpha * (a - b) / (2 * delta), v, ahead, behind)
        return grads, metrics

    algorithm = fedavg(meta_gradient, optax.sgd(lr), server_opt)
    return fine_tune(algorithm, grad_fn, optax.sgd(alpha))
