"""Adaptation of a model to a client by a few steps on its own samples."""

import itertools
from typing import Any

import jax
import optax

from eejax.cotrain.federated.local import GradFn, take_steps

PyTree = Any


def adapt(
    grad_fn: GradFn,
    opt: optax.GradientTransformation,
    params: PyTree,
    batches: PyTree,
    key: jax.Array | None,
    tau: jax.Array | None = None,
) -> tuple[PyTree, dict]:
    """Takes one step of an optimiser, begun anew, on each batch.

    Args:
      grad_fn: gradient of the loss on one batch.
      opt: optimiser of the client.
      params: the model to begin from.
      batches: leaves ``[steps, batch, ...]``.
      key: of the steps.
      tau: how many of the steps count; all if None.

    Returns:
      The model after the last step, and the means of the metrics.

    Example:
      >>> import jax.numpy as jnp
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> batches = jnp.array([[4.0], [4.0]])
      >>> float(adapt(grad_fn, optax.sgd(0.5), jnp.array(0.0), batches, None)[0])
      3.0
    """

    def step(carry, batch, step_key):
        w, opt_state = carry
        grads, metrics = grad_fn(w, batch, step_key)
        updates, opt_state = opt.update(grads, opt_state, w)
        return (optax.apply_updates(w, updates), opt_state), metrics

    (w, _), metrics = take_steps(step, (params, opt.init(params)), batches, key, tau)
    return w, metrics


def split_batch(batch: PyTree, *shares: float) -> tuple[PyTree, ...]:
    """Cuts a batch into parts, such as a support set to adapt on and a query set to judge by.

    Args:
      batch: leaves ``[batch, ...]``.
      *shares: what is each part's, together 1; the last one takes the rest.

    Returns:
      One tree for each share.

    Raises:
      ValueError: the batch is too small for a sample in each part.

    Example:
      >>> import numpy as np
      >>> [part.tolist() for part in split_batch(np.arange(5), 0.4, 0.6)]
      [[0, 1], [2, 3, 4]]
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    ends = [round(size * sum(shares[: i + 1])) for i in range(len(shares) - 1)]
    bounds = [0, *ends, size]
    if any(b <= a for a, b in itertools.pairwise(bounds)):
        raise ValueError(
            f"batch of {size} is too small to cut by shares {shares}: a part would be empty"
        )
    return tuple(
        jax.tree.map(lambda x, a=a, b=b: x[a:b], batch) for a, b in itertools.pairwise(bounds)
    )
