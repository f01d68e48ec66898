"""How far estimated seconds are from measured ones that were not used to make the estimate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Errors(NamedTuple):
    """Relative errors, as fractions of the measured seconds.

    Attributes:
      median: over the samples.
      p90: their 90th percentile.
      total: of the sum of all samples, where errors may cancel.
      samples: how many were compared.
    """

    median: float
    p90: float
    total: float
    samples: int


def errors(estimated: Any, measured: Any) -> Errors:
    """Compares estimates with measurements.

    Args:
      estimated: seconds, of any shape.
      measured: seconds > 0 that the estimate has not seen, in the same shape.

    Returns:
      The relative errors.

    Raises:
      ValueError: the shapes differ, there is no sample, or a measured time is not above 0.

    Example:
      >>> errors([1.1, 2.0, 2.0], [1.0, 2.0, 4.0])
      Errors(median=0.1..., p90=0.42..., total=0.27..., samples=3)
    """
    estimated, measured = np.asarray(estimated, float), np.asarray(measured, float)
    if estimated.shape != measured.shape or not measured.size:
        raise ValueError(
            f"estimated and measured must have one shape, not empty, got {estimated.shape} and "
            f"{measured.shape}"
        )
    if not (measured > 0).all():
        raise ValueError(f"measured must be > 0, got {measured.min()}")
    relative = np.abs(estimated - measured) / measured
    total = abs(estimated.sum() - measured.sum()) / measured.sum()
    median, p90 = np.quantile(relative, [0.5, 0.9])
    return Errors(float(median), float(p90), float(total), measured.size)


def held_out(
    fit: Callable[..., Any], predict: Callable[..., Any], x: Any, y: Any, folds: int, seed: int
) -> np.ndarray:
    """Predicts each sample from a fit to the other folds.

    Args:
      fit: ``(x, y) -> model``.
      predict: ``(model, x) -> seconds``.
      x: samples ``[n, ...]``.
      y: seconds ``[n]``.
      folds: number of parts, in [2, n].
      seed: of the division into parts.

    Returns:
      Predictions ``[n]``.

    Raises:
      ValueError: there are fewer samples than folds.
    """
    if not 2 <= folds <= len(y):
        raise ValueError(f"folds must be in [2, {len(y)}], the number of samples, got {folds}")
    x, y = np.asarray(x), np.asarray(y)
    out = np.empty(len(y))
    for part in np.array_split(np.random.default_rng(seed).permutation(len(y)), folds):
        rest = np.setdiff1d(np.arange(len(y)), part)
        out[part] = predict(fit(x[rest], y[rest]), x[part])
    return out
