"""The roofline of a device, fitted to layers that were measured on it."""

import dataclasses
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from eejax.partition.estimate.errors import Errors, errors, held_out
from eejax.tiers.cost import roofline
from eejax.tiers.nodes import Device


def fit_device(
    device: Device,
    flops: Any,
    bytes_moved: Any,
    seconds: Any,
    *,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Device, Errors]:
    """Fits compute, memory bandwidth and launch overhead to measured layers.

    Peak numbers are far from what single layers reach; these are what they reach on average, by
    least squares of the logarithms. The fit is local and starts at the numbers of the device.

    Args:
      device: a single device.
      flops: FLOP of the layers, ``[layers]``.
      bytes_moved: bytes they move, ``[layers]``.
      seconds: measured, ``[layers]``, > 0.
      folds: parts of the cross-validation.
      seed: of the division into parts.

    Returns:
      The device with the three fields fitted to all layers, and its errors on held-out ones.

    Raises:
      ValueError: there are fewer layers than folds, a layer without work, or seconds not above 0.

    References:
      Williams, Waterman and Patterson, Roofline: An Insightful Visual Performance Model for
      Multicore Architectures, 2009.
    """
    work = np.column_stack([np.asarray(flops, float), np.asarray(bytes_moved, float)])
    seconds = np.asarray(seconds, float)
    if seconds.shape != (len(work),) or not (work.max(1) > 0).all() or not (seconds > 0).all():
        raise ValueError("each layer must have FLOP or bytes, and seconds > 0, all [layers]")
    fields = ("flops_per_s", "memory_bandwidth_bytes_per_s", "overhead_s")
    start = np.log([max(getattr(device, name), 1e-9) for name in fields])

    def at(x: np.ndarray) -> Device:
        return dataclasses.replace(device, **dict(zip(fields, np.exp(x).tolist())))

    def fit(work: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        def residual(x):
            return np.log(roofline(at(x), *work.T)) - np.log(seconds)

        return least_squares(residual, start, bounds=(start - 12, start + 12)).x

    guess = held_out(fit, lambda x, work: roofline(at(x), *work.T), work, seconds, folds, seed)
    fitted = dataclasses.replace(
        at(fit(work, seconds)), source=f"{device.source}; fitted to {len(work)} measured layers"
    )
    return fitted, errors(guess, seconds)
