"""Joint training of all exits: one weighted sum of their losses (BranchyNet)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from eejax.core import StagedModel
from eejax.models.staged import all_logits

PyTree = Any


def joint_loss(
    logits: jax.Array, labels: jax.Array, weights: Sequence[float] | None = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sums the softmax cross-entropies of all exits by weight (survey eq. 3 to 6).

    Eq. (3) divides by the number of classes, a constant that only scales the learning rate; it is
    left out here, as in the code of BranchyNet.

    Args:
      logits: ``[exits, batch, classes]``, as from `models.all_logits`.
      labels: ``[batch]``, integers.
      weights: ``w_n`` of every exit, >= 0; 1/N each if None. The code of BranchyNet uses 1 and
        0.3.

    Returns:
      The loss, a mean over the batch, and metrics ``"loss"``, ``"accuracy_exit1"``,
      ``"accuracy_exit2"``, ...

    Raises:
      ValueError: there are not as many weights as exits, or one is negative or NaN.

    References:
      Teerapittayanon, McDanel and Kung, BranchyNet: Fast Inference via Early Exiting from Deep
      Neural Networks, 2016. Equal weights: Teerapittayanon, McDanel and Kung, Distributed Deep
      Neural Networks over the Cloud, the Edge and End Devices, 2017.

    Example:
      >>> logits = jnp.array([[[0.0, 0.0]], [[0.0, 100.0]]])  # Two exits, one sample.
      >>> loss, metrics = joint_loss(logits, jnp.array([1]))
      >>> round(float(loss), 4), float(metrics["accuracy_exit2"])  # (log 2 + 0) / 2.
      (0.3466, 1.0)
    """
    exits = len(logits)
    w = (1 / exits,) * exits if weights is None else tuple(weights)
    if len(w) != exits or not all(w_n >= 0 for w_n in w):
        raise ValueError(f"weights must be {exits} numbers >= 0, one for each exit; got {w}")
    log_y_hat = jax.nn.log_softmax(logits)
    index = jnp.broadcast_to(labels, logits.shape[:2])[..., None]
    losses = -jnp.take_along_axis(log_y_hat, index, -1)[..., 0].mean(-1)
    loss = jnp.dot(jnp.asarray(w, losses.dtype), losses)
    accuracy = (logits.argmax(-1) == index[..., 0]).mean(-1)
    return loss, {"loss": loss, **{f"accuracy_exit{n + 1}": accuracy[n] for n in range(exits)}}


def joint_grad_fn(
    model: StagedModel, weights: Sequence[float] | None = None
) -> Callable[..., tuple[PyTree, dict[str, jax.Array]]]:
    """Makes the gradient function by which any training algorithm trains all exits at once.

    Args:
      model: a staged model.
      weights: see `joint_loss`.

    Returns:
      ``(params, batch, key) -> (grads, metrics)`` with ``batch = {"x": [batch, ...],
      "y": [batch]}``; the model runs in training mode with ``key``.
    """

    def loss_fn(params, batch, key):
        return joint_loss(
            all_logits(model, params, batch["x"], train=True, key=key), batch["y"], weights
        )

    return jax.grad(loss_fn, has_aux=True)
