"""Exit rule by normalised entropy: a sample leaves when its answer is sure enough."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from eejax.core import ExitRule


def eta(logits: jax.Array) -> jax.Array:
    """Measures how unsure answers are: entropy of the softmax over its maximum (survey eq. 2).

    ``-sum_i x_i log x_i / log |C|`` with ``x = softmax(logits)`` and 0 log 0 = 0.

    Args:
      logits: ``[..., classes]``, at least two classes.

    Returns:
      ``[...]`` float32 in [0, 1]: 0 for a certain answer, 1 for a uniform one, NaN for NaN.

    Raises:
      ValueError: there are less than two classes.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.5, 0.5]])
      >>> eta(jnp.log(x)).tolist()
      [0.0, 1.0]
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(f"logits must have at least 2 classes, got {classes}")
    log_x = jax.nn.log_softmax(logits.astype(jnp.float32))
    x = jnp.exp(log_x)
    nats = -jnp.where(x == 0, 0, x * log_x).sum(-1)
    return jnp.clip(nats / math.log(classes), 0, 1)


def normalised_entropy(thresholds: Sequence[float]) -> ExitRule:
    """Lets a sample leave at an exit when ``eta(logits) <= threshold``.

    The last exit has no threshold; there everyone leaves. A negative threshold never fires, a
    threshold of 1 always does. A sample whose logits are NaN is never sure and goes on to the end.

    BranchyNet compares entropy in nats (survey eq. 1, which lost its minus sign): its threshold
    ``t`` is ``t / log |C|`` here, so 0.05 nats on ten classes are 0.022.

    Args:
      thresholds: one for each exit but the last, at most 1.

    Returns:
      A rule whose state is the thresholds, so that new ones compile nothing.

    Raises:
      ValueError: a threshold is above 1 or NaN; in ``decide``, there are too few for this exit.

    References:
      Teerapittayanon, McDanel and Kung, Distributed Deep Neural Networks over the Cloud, the Edge
      and End Devices, 2017, for the normalised entropy; the same, BranchyNet, 2016, for nats.

    Example:
      >>> rule = normalised_entropy([0.5])
      >>> logits = jnp.array([[9.0, 0.0], [1.0, 0.0]])
      >>> leave, score = rule.decide(rule.init(), logits, None, 0)
      >>> leave.tolist(), [round(s, 3) for s in score.tolist()]
      ([True, False], [0.002, 0.84])
    """
    t = tuple(float(threshold) for threshold in thresholds)
    for i, threshold in enumerate(t):
        if not threshold <= 1:
            raise ValueError(
                f"thresholds[{i}] must be in [0, 1], or negative for never, got {threshold:g}; "
                "a threshold in nats is to be divided by log(classes)"
            )
    return ExitRule(init=lambda: jnp.asarray(t, jnp.float32), decide=_decide)


def _decide(
    thresholds: jax.Array, logits: jax.Array, features: Any, exit: int
) -> tuple[jax.Array, jax.Array]:
    del features
    last, score = len(thresholds), eta(logits)
    if exit > last:
        raise ValueError(
            f"thresholds has {last} entries, but the model has more than {last + 1} "
            "exits; give one for each exit but the last"
        )
    if exit == last:
        return jnp.ones(score.shape, bool), score
    return score <= thresholds[exit], score
