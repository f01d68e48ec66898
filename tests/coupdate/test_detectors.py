"""The contract of `DriftDetector`, for every detector: a new one joins by adding a row."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from eejax import trees
from eejax.core import DriftDetector
from eejax.coupdate import ddm, kswin, page_hinkley


def scores(rng, n, drift=0.0):
    """Skewed and in [0, 1], as the entropies of a good model are."""
    return rng.beta(0.3 + drift, 2.0, size=n)


def errors(rng, n, drift=0.0):
    return rng.random(n) < 0.1 + drift


class Row(NamedTuple):
    detector: DriftDetector
    draw: Callable  # (rng, n, drift) -> values [n]
    drift: float
    false_alarms: float  # share of streams of 2,000 values that raise one, at most
    delay: int  # values from the drift to the alarm, at most


DETECTORS = {
    "kswin": Row(kswin(), scores, 0.5, 0.01, 150),
    "kswin_small_windows": Row(kswin(window=50, alpha=0.05), scores, 0.5, 0.05, 150),
    "page_hinkley": Row(page_hinkley(), scores, 0.5, 0.05, 150),
    "page_hinkley_errors": Row(page_hinkley(), errors, 0.4, 0.05, 150),
    "ddm": Row(ddm(), errors, 0.4, 0.15, 150),
}
EVERY = pytest.mark.parametrize("name", DETECTORS)


def stream(row, seed, n=600, change=None):
    """``(reference [500], values [n])`` with a drift after ``change`` values."""
    rng = np.random.default_rng(seed)
    before = n if change is None else change
    reference = row.draw(rng, 500)
    values = np.concatenate([row.draw(rng, before), row.draw(rng, n - before, row.drift)])
    return reference, values


@EVERY
def test_update_is_pure_and_keeps_the_shape_of_its_state(name):
    row = DETECTORS[name]
    reference, values = stream(row, 0)
    state = row.detector.init(reference)
    before = trees.sha256((state, reference, values))
    first, second = (row.detector.update(state, values[:130]) for _ in range(2))
    assert trees.sha256(first[0]) == trees.sha256(second[0])
    assert first[1] == second[1]
    assert trees.sha256((state, reference, values)) == before
    assert all(isinstance(leaf, np.ndarray) for leaf in first[0])
    assert trees.abstract(first[0]) == trees.abstract(state)


@EVERY
@pytest.mark.parametrize("change", [None, 250])
def test_one_call_or_many_make_no_difference(name, change):
    row = DETECTORS[name]
    reference, values = stream(row, 1, change=change)
    whole = row.detector.update(row.detector.init(reference), values)
    for sizes in ([1] * 600, [7, 0, 400, 193], [100] * 6):
        state, parts = row.detector.init(reference), np.split(values, np.cumsum(sizes)[:-1])
        for part in parts:
            state, metrics = row.detector.update(state, part)
        assert metrics == whole[1]
        assert trees.sha256(state) == trees.sha256(whole[0])


@EVERY
def test_metrics_are_scalars_with_an_alarm_and_a_statistic(name):
    row = DETECTORS[name]
    reference, values = stream(row, 2)
    state = row.detector.init(reference)
    for part in ([], values[:3], values):
        _, metrics = row.detector.update(state, part)
        assert type(metrics["alarm"]) is bool
        assert type(metrics["statistic"]) is float
        assert metrics["seen"] == len(part)
        assert all(type(value) in (bool, int, float) for value in metrics.values())


@EVERY
def test_false_alarms_are_no_more_than_stated(name):
    """200 streams of 2,000 values without drift; two standard errors are allowed for chance."""
    row = DETECTORS[name]
    alarms = 0
    for seed in range(200):
        reference, values = stream(row, seed, n=2000)
        alarms += row.detector.update(row.detector.init(reference), values)[1]["alarm"]
    p = row.false_alarms
    assert alarms / 200 <= p + 2 * np.sqrt(p * (1 - p) / 200)


@EVERY
def test_a_drift_is_noticed_soon(name):
    row = DETECTORS[name]
    delays = []
    for seed in range(20):
        reference, values = stream(row, seed, change=250)
        _, metrics = row.detector.update(row.detector.init(reference), values)
        assert metrics["alarm"]
        if metrics["seen"] > 250:
            delays.append(metrics["seen"] - 250)
    assert len(delays) >= 17
    assert max(delays) <= row.delay


@EVERY
def test_the_verdict_stands_after_the_alarm(name):
    row = DETECTORS[name]
    reference, values = stream(row, 3, change=0)
    state, verdict = row.detector.update(row.detector.init(reference), values)
    assert verdict["alarm"]
    later, metrics = row.detector.update(state, reference)
    assert metrics == verdict
    assert trees.sha256(later) == trees.sha256(state)


def test_kolmogorov_smirnov_by_hand():
    # Below 3 lie 2 of the 4 scores of the reference and none of the window; below 6.5 all and 2.
    state = kswin(window=4).init([1.0, 2.0, 3.0, 4.0])
    state, metrics = kswin(window=4).update(state, [3.5, 6.0, 7.0])
    assert (metrics["statistic"], metrics["p_value"], metrics["seen"]) == (0.0, 1.0, 3)
    _, metrics = kswin(window=4).update(state, [8.0])
    assert metrics["statistic"] == 0.75
    # Of the C(8, 4) = 70 orders of four and four, 16 have a distance of 3/4 or more.
    assert metrics["p_value"] == pytest.approx(16 / 70)
    assert metrics["p_value"] == pytest.approx(
        stats.ks_2samp([1, 2, 3, 4], [3.5, 6, 7, 8], method="exact").pvalue
    )


def test_kswin_levels_shrink_so_that_they_add_up_to_alpha():
    """The same window that is an alarm when it comes first is none when it comes second."""
    detector = kswin(window=4, alpha=0.1)
    state = detector.init([1.0, 2.0, 3.0, 4.0])
    far, near = [5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]
    # No scores in common: 2 of 70 orders, p = 0.0286 < 0.1 / (1 * 2).
    assert detector.update(state, far)[1]["alarm"]
    # 0.0286 > 0.1 / (2 * 3).
    assert not detector.update(state, near + far)[1]["alarm"]


def test_ddm_by_hand():
    """3 errors in 30, the last of them first; then only errors."""
    values = [1, 1, 1] + [0] * 27 + [1] * 10
    state = ddm().init([])
    # i = 30: p = 0.1, s = sqrt(0.09 / 30) = 0.05477, the lowest.
    state, metrics = ddm().update(state, values[:30])
    assert metrics["statistic"] == pytest.approx(0.15477, abs=1e-5)
    assert metrics["threshold"] == pytest.approx(0.1 + 3 * 0.05477, abs=1e-4)
    # i = 31: p = 4 / 31, s = 0.06020; 0.18924 < 0.1 + 2 * 0.05477 = 0.20954.
    state, metrics = ddm().update(state, values[30:31])
    assert metrics["statistic"] == pytest.approx(0.18924, abs=1e-4)
    assert (metrics["alarm"], metrics["warning"]) == (False, False)
    # i = 32: p = 5 / 32, s = 0.06419; 0.22044 > 0.20954.
    state, metrics = ddm().update(state, values[31:32])
    assert metrics["statistic"] == pytest.approx(0.22044, abs=1e-4)
    assert (metrics["alarm"], metrics["warning"]) == (False, True)
    # i = 34: p = 7 / 34, s = 0.06935; 0.27523 > 0.26432.
    state, metrics = ddm().update(state, values[32:])
    assert metrics["statistic"] == pytest.approx(0.27523, abs=1e-4)
    assert (metrics["alarm"], metrics["warning"], metrics["seen"]) == (True, True, 34)


def test_ddm_counts_on_from_its_reference():
    # p = 0.1, s = 0.03: as a whole, not at its lucky start of 90 right answers.
    _, metrics = ddm().update(ddm().init([0] * 90 + [1] * 10), [])
    assert metrics["threshold"] == pytest.approx(0.19)
    _, metrics = ddm().update(ddm().init([0] * 20), [])
    assert metrics["threshold"] == np.inf


def test_page_hinkley_by_hand():
    # Mean 2, sd 2: deviations 1, -1, 2, 2, less 0.5 each: sums 0.5, -1, 0.5, 2.
    detector = page_hinkley(delta=0.5, threshold=2.9)
    state, metrics = detector.update(detector.init([0.0, 4.0]), [4.0, 0.0])
    assert (metrics["statistic"], metrics["alarm"]) == (0.0, False)
    state, metrics = detector.update(state, [6.0])
    assert (metrics["statistic"], metrics["alarm"]) == (1.5, False)
    _, metrics = detector.update(state, [6.0, 6.0])
    assert (metrics["statistic"], metrics["alarm"], metrics["seen"]) == (3.0, True, 4)


def test_page_hinkley_does_not_see_a_fall_unless_negated():
    rng = np.random.default_rng(0)
    reference, fallen = rng.normal(size=500), rng.normal(-2, 1, size=200)
    detector = page_hinkley()
    assert not detector.update(detector.init(reference), fallen)[1]["alarm"]
    assert detector.update(detector.init(-reference), -fallen)[1]["alarm"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kswin(window=1), "window must be at least 2, got 1"),
        (lambda: kswin(alpha=0), r"alpha must be in \(0, 1\), got 0"),
        (lambda: kswin().init([]), "reference must hold at least one score"),
        (lambda: kswin().init([np.nan]), "reference must be finite"),
        (lambda: kswin().update(kswin().init([0, 1]), [np.inf]), "values must be finite"),
        (lambda: page_hinkley(delta=-1), "delta must be >= 0, got -1"),
        (lambda: page_hinkley(threshold=0), "threshold must be > 0, got 0"),
        (lambda: page_hinkley().init([1.0, 1.0]), "reference must hold different values"),
        (lambda: page_hinkley().init([np.inf]), "reference must be finite"),
        (lambda: ddm(minimum=0), "minimum must be at least 1, got 0"),
        (lambda: ddm().init([0.3]), r"reference must be 0 \(right\) or 1 \(wrong\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
