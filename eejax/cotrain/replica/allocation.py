"""Batch allocation: each node gets as many samples as it can do in the time of the others."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Speed(NamedTuple):
    """Time of a step on one node: ``overhead_s + b * seconds_per_sample`` for b samples."""

    overhead_s: float
    seconds_per_sample: float


def allocate(
    seconds_per_sample: Any,
    batch: int,
    *,
    overhead_s: Any = 0.0,
    max_samples: Any = None,
) -> np.ndarray:
    """Splits a global batch so that the slowest node is done as early as possible.

    Minimises ``max_k t_k(b_k)`` over whole ``b_k >= 0`` with ``sum_k b_k = batch``, where
    ``t_k(b) = overhead_k + b seconds_per_sample_k`` and ``t_k(0) = 0``. All ``t_k`` rise, so each
    node does what it can within T seconds, and bisection finds the least T that is enough: the
    exact minimum. The weighted mean of `data_parallel` keeps the gradient that of the global
    batch, whatever the split.

    Args:
      seconds_per_sample: ``[nodes]``, > 0: measured by `measure_speed`, or modelled as
        ``tiers.roofline(devices, *work)`` of one sample.
      batch: number of samples to split.
      overhead_s: seconds of a step besides its samples, a number or ``[nodes]``.
      max_samples: ``[nodes]`` samples that fit into memory, as `samples_that_fit` counts them; no
        bound if None.

    Returns:
      int64 ``[nodes]``.

    Raises:
      ValueError: a number is out of range, or the batch does not fit.

    Example:
      >>> allocate([1.0, 2.0, 4.0], 14).tolist()  # Done after 8, 8 and 8 seconds.
      [8, 4, 2]
      >>> allocate([1.0, 2.0, 4.0], 14, max_samples=[4, 9, 9]).tolist()  # 4, 14 and 12 seconds.
      [4, 7, 3]
    """
    s = _positive("seconds_per_sample", seconds_per_sample)
    o = np.broadcast_to(np.asarray(overhead_s, np.float64), s.shape)
    if not (np.isfinite(o) & (o >= 0)).all():
        raise ValueError(f"overhead_s must be >= 0, got {o.tolist()}")
    caps = np.broadcast_to(
        np.asarray(batch if max_samples is None else max_samples, np.int64), s.shape
    )
    if batch < 0 or (caps < 0).any() or caps.sum() < batch:
        raise ValueError(
            f"batch must be >= 0 and fit into max_samples {caps.tolist()}, got {batch}"
        )

    def done_by(seconds):
        return np.clip(np.floor((seconds - o) / s), 0, caps).astype(np.int64)

    # Two neighbouring floats: by the one less than all samples are done, by the other all.
    low, high = 0.0, float((o + (batch + 1) * s).max())
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if done_by(middle).sum() < batch else (low, middle)
    b = done_by(low)
    last = np.flatnonzero(done_by(high) > b)  # Nodes that are done with one more at this moment.
    b[last[: batch - b.sum()]] += 1
    return b


def equal(batch: int, nodes: int) -> np.ndarray:
    """Splits a batch equally, the baseline: the first nodes take what is left over.

    Args:
      batch: number of samples to split.
      nodes: number of nodes.

    Returns:
      int64 ``[nodes]``.

    Example:
      >>> equal(14, 4).tolist()
      [4, 4, 3, 3]
    """
    return batch // nodes + (np.arange(nodes) < batch % nodes).astype(np.int64)


def step_seconds(sizes: Any, seconds_per_sample: Any, overhead_s: Any = 0.0) -> np.ndarray:
    """Models the time of each node; a synchronous step takes the maximum.

    Args:
      sizes: ``[nodes]`` samples.
      seconds_per_sample: ``[nodes]``.
      overhead_s: seconds of a step besides its samples, a number or ``[nodes]``.

    Returns:
      Seconds ``[nodes]``; 0 for a node without samples.

    Example:
      >>> step_seconds([2, 0], [1.0, 3.0], overhead_s=0.5).tolist()
      [2.5, 0.0]
    """
    sizes = np.asarray(sizes)
    return np.where(sizes > 0, overhead_s + sizes * np.asarray(seconds_per_sample), 0.0)


def samples_that_fit(memory_bytes: Any, fixed_bytes: Any, bytes_per_sample: Any) -> np.ndarray:
    """Counts the samples that fit into memory beside what does not depend on them.

    Args:
      memory_bytes: ``[nodes]``, such as ``devices.memory_bytes``.
      fixed_bytes: parameters, gradients and optimiser state.
      bytes_per_sample: activations of one sample, > 0.

    Returns:
      int64 ``[nodes]``.

    Example:
      >>> samples_that_fit([1000, 100], 200, 90).tolist()
      [8, 0]
    """
    left = np.asarray(memory_bytes, np.float64) - fixed_bytes
    return np.maximum(left // bytes_per_sample, 0).astype(np.int64)


def measure_speed(
    step: Callable[[int], Any], sizes: Sequence[int] = (16, 64), repeats: int = 5
) -> Speed:
    """Measures how fast this machine trains, by a line through the best times of some batch sizes.

    Args:
      step: ``(samples) -> arrays``; called once before it is timed, so that it is compiled.
      sizes: at least two batch sizes.
      repeats: timed calls of each; the shortest counts, since others disturb but never help.

    Returns:
      Measured seconds; the overhead is at least 0.

    Raises:
      ValueError: there are fewer than two sizes, or larger batches took no longer: time more
        samples.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"sizes must hold two different batch sizes, got {tuple(sizes)}")
    best = []
    for size in sizes:
        jax.block_until_ready(step(size))
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(step(size))
            seconds.append(time.perf_counter() - start)
        best.append(min(seconds))
    slope, overhead = np.polyfit(sizes, best, 1)
    if slope <= 0:
        raise ValueError(f"sizes {tuple(sizes)} are too small to measure: they took {best} s")
    return Speed(max(float(overhead), 0.0), float(slope))


def _positive(name: str, value: Any) -> np.ndarray:
    value = np.asarray(value, np.float64)
    if value.ndim != 1 or not (np.isfinite(value) & (value > 0)).all():
        raise ValueError(f"{name} must be [nodes] and > 0, got {value.tolist()}")
    return value
