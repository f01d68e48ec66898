"""KSWIN: the scores of a deployed model are compared with those of validation, without labels."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from eejax.core import DriftDetector


class KswinState(NamedTuple):
    """State of `kswin`; all are arrays.

    Attributes:
      reference: scores ``[n]`` from when all was well.
      window: ``[window]``, filled up to ``seen % window``.
      seen: values taken so far; the detector stops taking them at the alarm.
      alarm: whether the alarm was raised.
      statistic: of the newest full window; 0 before the first.
      p_value: likewise; 1 before the first.
    """

    reference: np.ndarray
    window: np.ndarray
    seen: np.ndarray
    alarm: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray


def kswin(window: int = 100, alpha: float = 0.01) -> DriftDetector:
    """Compares each window of scores with a reference by the Kolmogorov-Smirnov test.

    The statistic is the largest distance between the two empirical distribution functions. Scores
    are any numbers that need no label, such as the entropy of the answers.

    ``alpha`` bounds the probability of a false alarm over the whole stream, however long: only full
    windows that do not overlap are tested, and window ``i`` (from 1) raises the alarm when its p
    value is below ``alpha / (i (i + 1))``; these levels add up to ``alpha``. The price is that a
    drift has to be larger the later it comes. The bound holds if scores of the reference and of
    the stream are independent draws from one distribution: the reference must be validation data,
    not training data, and a stream that changes slowly by nature, such as video, must be thinned
    out.

    The paper draws a random sub-sample of the past of its own sliding window as the reference, and
    tests after every value at a fixed level. Here the reference is fixed, so a slow drift is not
    absorbed into it, and repeated tests are paid for.

    After the alarm the state stays as it is: update the model, and begin anew with new reference
    scores.

    Args:
      window: values in a window, at least 2. A drift is noticed no sooner than the window is full.
      alpha: probability of a false alarm, in (0, 1).

    Returns:
      A detector that runs on the host. Its metrics are ``alarm``, ``statistic``, ``p_value`` and
      ``seen``, the values taken; at an alarm ``seen`` tells when it was.

    Raises:
      ValueError: an argument is out of range, or scores are empty or not finite.

    References:
      Raab, Heusinger and Schleif, Reactive Soft Prototype Computing for Concept Drift Streams,
      2020.

    Example:
      >>> detector = kswin(window=20)
      >>> state = detector.init(np.linspace(0, 1, 200))
      >>> state, metrics = detector.update(state, np.linspace(0, 1, 20))
      >>> metrics["alarm"], metrics["seen"]
      (False, 20)
      >>> _, metrics = detector.update(state, np.linspace(0.5, 1, 100))
      >>> metrics["alarm"], metrics["seen"], round(metrics["statistic"], 2)
      (True, 40, 0.5)
    """
    if window < 2:
        raise ValueError(f"window must be at least 2, got {window}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha!r}")

    def init(reference):
        reference = _scores("reference", reference)
        if reference.size == 0:
            raise ValueError("reference must hold at least one score")
        no, zero, one = np.asarray(False), np.asarray(0.0), np.asarray(1.0)
        return KswinState(reference, np.zeros(window), np.asarray(0), no, zero, one)

    def update(state, values):
        reference, newest, seen, alarm, statistic, p_value = state
        values, newest = _scores("values", values), newest.copy()
        while values.size and not alarm:
            start = seen % window
            taken, values = values[: window - start], values[window - start :]
            newest[start : start + taken.size] = taken
            seen = seen + taken.size
            if seen % window == 0:
                statistic, p_value = stats.ks_2samp(reference, newest)
                i = seen // window
                alarm = p_value < alpha / (i * (i + 1))
        state = KswinState(reference, newest, *map(np.asarray, (seen, alarm, statistic, p_value)))
        metrics = {name: getattr(state, name).item() for name in state._fields[2:]}
        return state, metrics

    return DriftDetector(init, update)


def _scores(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite")
    return values
