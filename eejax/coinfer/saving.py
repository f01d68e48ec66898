"""How much computing early exits save: in hindsight, as executed, and by the clock.

Three columns that are not to be mixed. Hindsight counts samples, as papers do; executed counts what
the processor was really given, padding included; the clock also sees gathering, launches and how
well small batches use the machine.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


def hindsight_saving(reached: Any, flops: Any, full: float | None = None) -> float:
    """Saves 1 - used / total FLOP if every sample ran just the stages that it reached.

    Args:
      reached: ``[stages]``, samples that reached each stage (`Outcome.reached`).
      flops: ``[stages]``, FLOP of one sample in each stage, its exit head included.
      full: FLOP of one sample in what is compared with; the sum of ``flops`` if None. The FLOP of
        the model without its early heads is the harder comparison.

    Returns:
      A fraction, at most 1; negative if early exits cost more than they save.

    Example:
      >>> hindsight_saving(reached=[100, 50], flops=[1e6, 3e6])  # 1 - (100 + 150) / 400.
      0.375
    """
    return _saving(reached, flops, reached[0], full)


def executed_saving(executed: Any, flops: Any, n: int, full: float | None = None) -> float:
    """Saves 1 - used / total FLOP as the programs ran, rows that only pad a batch included.

    The total is that of all stages on the samples themselves, so padding counts against early
    exits: this is never more than the hindsight saving, and negative when padding outweighs it.

    Args:
      executed: ``[stages]``, rows that each stage ran, with padding (`Outcome.executed`).
      flops: ``[stages]``, FLOP of one sample in each stage, its exit head included.
      n: number of samples.
      full: see `hindsight_saving`.

    Returns:
      A fraction, at most 1.

    Example:
      >>> round(executed_saving([128, 64], [1e6, 3e6], n=100), 3)  # 1 - (128 + 192) / 400.
      0.2
    """
    return _saving(executed, flops, n, full)


def _saving(rows: Any, flops: Any, n: int, full: float | None) -> float:
    rows, flops = np.asarray(rows, float), np.asarray(flops, float)
    if rows.shape != flops.shape:
        raise ValueError(f"flops must have one entry for each of {len(rows)} stages, got {flops}")
    return float(1 - rows @ flops / (n * (flops.sum() if full is None else full)))


class Seconds(NamedTuple):
    """Measured wall-clock time.

    Attributes:
      compacted_s: median seconds of the compacted execution.
      full_s: median seconds of the full one.
      ratio: median over the repeats of compacted / full; below 1 it is faster.
    """

    compacted_s: float
    full_s: float
    ratio: float


def measure_seconds(
    run_compacted: Callable[[], Any], run_full: Callable[[], Any], repeats: int = 7
) -> Seconds:
    """Measures two executions in turn, so that a change of load on the machine meets both.

    Both run once before, to compile. The fair opponent answers at the last exit only: `make_full`
    of ``StagedModel(model.stages, model.exits[-1:])``.

    Args:
      run_compacted: runs the one on all samples.
      run_full: runs the other on the same samples.
      repeats: of the pair, >= 1.

    Returns:
      Medians, measured on this machine.

    Example:
      >>> seconds = measure_seconds(lambda: sum(range(10)), lambda: sum(range(100_000)))
      >>> seconds.ratio < 1
      True
    """

    def clock(run):
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    clock(run_compacted), clock(run_full)
    pairs = [(clock(run_compacted), clock(run_full)) for _ in range(repeats)]
    return Seconds(
        *(statistics.median(column) for column in zip(*((a, b, a / b) for a, b in pairs)))
    )
