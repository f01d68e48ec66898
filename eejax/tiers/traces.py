"""Bandwidth or load that varies in time, as step functions: constant, Markov, recorded.

Time runs in seconds from 0. A value holds from its time to the next one, the last value for ever.
"""

import csv
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eejax.tiers.nodes import same_fields


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A step function of time.

    Attributes:
      times_s: float64 ``[steps]``, seconds at which the values begin: 0 first, then ascending.
      values: float64 ``[steps]``, finite and >= 0: bits per second for a bandwidth, a fraction for
        a load. 0 bits per second is an outage.

    Raises:
      ValueError: an array has the wrong shape or a wrong value; names it.

    Example:
      >>> outage = Trace([0, 10, 12], [8e6, 0, 8e6])
      >>> float(transfer_end(outage, start_s=9, nbytes=2_000_000))  # 1 s, 2 s of waiting, 1 s.
      13.0
    """

    times_s: np.ndarray
    values: np.ndarray

    def __post_init__(self):
        """Checks and freezes the arrays."""
        for field in ("times_s", "values"):
            array = np.array(getattr(self, field), np.float64)
            if array.ndim != 1 or not array.size:
                raise ValueError(f"{field} must be an array [steps], got shape {array.shape}")
            wrong = ~(np.isfinite(array) & (array >= 0))
            if wrong.any():
                i = int(wrong.argmax())
                raise ValueError(f"{field}[{i}] must be finite and >= 0, got {array[i]:g}")
            array.setflags(write=False)
            # The class is frozen for its users; this is its constructor.
            object.__setattr__(self, field, array)
        if self.times_s.size != self.values.size:
            raise ValueError(f"times_s has {self.times_s.size} steps, values {self.values.size}")
        if self.times_s[0] != 0:
            raise ValueError(f"times_s[0] must be 0, got {self.times_s[0]:g}")
        late = np.diff(self.times_s) <= 0
        if late.any():
            i = int(late.argmax()) + 1
            before = self.times_s[i - 1]
            raise ValueError(f"times_s[{i}] must be > {before:g}, got {self.times_s[i]:g}")

    def __eq__(self, other):
        """Compares all steps."""
        return same_fields(self, other)


def constant(value: float) -> Trace:
    """Makes a trace that never changes.

    Args:
      value: finite and >= 0.

    Returns:
      A trace of one step.
    """
    return Trace(np.zeros(1), np.full(1, value))


def markov(
    states: Sequence[float],
    transition: Any,
    step_s: float,
    duration_s: float,
    key: jax.Array,
    *,
    start: int = 0,
) -> Trace:
    """Draws a Markov chain, such as a link that switches between good and bad.

    Args:
      states: the values, such as bandwidths in bits per second, ``[states]``.
      transition: probability to go from state (row) to state (column) in one step,
        ``[states, states]``.
      step_s: seconds between steps, > 0.
      duration_s: seconds to draw, rounded up to whole steps, > 0.
      key: a JAX key; the same key draws the same trace.
      start: index of the first state.

    Returns:
      A trace of ``ceil(duration_s / step_s)`` steps.

    Raises:
      ValueError: a shape, a row of probabilities or a time is wrong.
    """
    transition = np.asarray(transition, np.float64)
    size = len(states)
    if transition.shape != (size, size):
        raise ValueError(f"transition must be [{size}, {size}], got {transition.shape}")
    rows = (transition >= 0).all(1) & np.isclose(transition.sum(1), 1)
    if not rows.all():
        i = int(rows.argmin())
        raise ValueError(f"transition[{i}] must be probabilities of sum 1, got {transition[i]}")
    for field, value in (("step_s", step_s), ("duration_s", duration_s)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{field} must be finite and > 0, got {value!r}")
    if not 0 <= start < size:
        raise ValueError(f"start must be in [0, {size}), got {start}")

    steps = int(np.ceil(duration_s / step_s))
    limits = np.cumsum(transition / transition.sum(1, keepdims=True), axis=1)
    draws = np.asarray(jax.random.uniform(key, (steps - 1,)))
    path = [start]
    for draw in draws:
        path.append(int(np.searchsorted(limits[path[-1]], draw, side="right")))
    return Trace(np.arange(steps) * step_s, np.asarray(states)[path])


def from_csv(path: str | os.PathLike) -> Trace:
    """Reads a recorded trace.

    Args:
      path: a CSV file whose first line is ``time_s,value``.

    Returns:
      The trace.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has another form or a wrong value; names file and line.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or [name.strip() for name in lines[0]] != ["time_s", "value"]:
        found = ",".join(lines[0]) if lines else ""
        raise ValueError(f"{os.fspath(path)}: line 1 must be 'time_s,value', got {found!r}")
    steps = []
    for number, line in enumerate(lines[1:], 2):
        try:
            time_s, value = map(float, line)
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(path)}: line {number} must be two numbers, got {','.join(line)!r}"
            ) from error
        steps.append((time_s, value))
    try:
        return Trace(*np.reshape(steps, (-1, 2)).T)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}; index 0 is line 2") from error


def value_at(trace: Trace, t: Any) -> Any:
    """Reads a trace.

    Args:
      trace: a trace.
      t: seconds, a number or any array, >= 0.

    Returns:
      Values in the shape of ``t``.

    Raises:
      ValueError: a time is negative or NaN.
    """
    return trace.values[_step(trace, "t", t)]


def transfer_end(trace: Trace, start_s: Any, nbytes: Any) -> Any:
    """Finds when a transfer over a varying bandwidth ends, by exact integration of the steps.

    Only the bits themselves are priced: add half a round trip for the propagation.

    Args:
      trace: bandwidth in bits per second.
      start_s: seconds at which the first byte goes out, a number or any array, >= 0.
      nbytes: bytes to carry, a number or any array that broadcasts with ``start_s``, >= 0.

    Returns:
      Seconds at which the last byte is out; ``inf`` when the trace ends in an outage before.

    Raises:
      ValueError: a number is negative or NaN.
    """
    start_s, nbytes = np.asarray(start_s, np.float64), np.asarray(nbytes, np.float64)
    if not (nbytes >= 0).all():
        raise ValueError(f"nbytes must be >= 0, got {nbytes.min():g}")
    # Bits that the link could have carried up to the beginning of each step.
    carried = np.concatenate([[0], np.cumsum(np.diff(trace.times_s) * trace.values[:-1])])
    first = _step(trace, "start_s", start_s)
    before = carried[first] + (start_s - trace.times_s[first]) * trace.values[first]
    target = before + 8 * nbytes
    last = np.maximum(np.searchsorted(carried, target, side="left") - 1, 0)
    rest = target - carried[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = np.where(rest > 0, rest / trace.values[last], 0)
    # Rounding must not end a transfer before it began; nothing to send ends at once.
    end = np.maximum(trace.times_s[last] + wait, start_s)
    return np.where(nbytes > 0, end, start_s)[()]


def _step(trace: Trace, field: str, t: Any) -> Any:
    t = np.asarray(t, np.float64)
    if not (t >= 0).all():
        raise ValueError(f"{field} must be >= 0, got {t.min():g}")
    return np.searchsorted(trace.times_s, t, side="right") - 1
