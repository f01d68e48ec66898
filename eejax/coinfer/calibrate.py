"""Thresholds of exits, chosen on validation data: as cheap as an accuracy to keep allows."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.coinfer.hindsight import at_exit, leave_at

_NEVER = -1.0


class Calibration(NamedTuple):
    """Thresholds and what they do on the validation data.

    Attributes:
      thresholds: one for each exit but the last; all -1, which never fires, if infeasible.
      feasible: whether the floor can be kept at all.
      accuracy: share of right answers.
      exit_fractions: ``[exits]``, share of samples that leave at each exit.
      cost: mean cost of a sample, in the units that were given.
    """

    thresholds: tuple[float, ...]
    feasible: bool
    accuracy: float
    exit_fractions: np.ndarray
    cost: float


def calibrate(
    scores: Any,
    correct: Any,
    *,
    floor: float,
    cost: Sequence[float] | None = None,
    margin: float = 1.0,
    points: int = 101,
) -> Calibration:
    """Finds the cheapest thresholds that keep the accuracy, never to be done on test data.

    Candidates of an exit are -1 (never) and quantiles of its scores. All pairs are tried, which for
    two and three exits is exact if there are at most ``points`` different scores. With more exits,
    pairs of exits take turns with the others held until none gets cheaper: a good answer, not
    always the best.

    The cheapest of many thresholds is the one that these samples flatter most: in simulations with
    500 to 4,000 samples, new data fell below a floor set from the last exit's accuracy in 45 to 82%
    of cases with ``margin=0``, 10 to 28% with 1 and 0 to 5% with 2. The standard error is that of
    the difference from the last exit on the same samples, sqrt((b - d^2) / n) with b the share
    where just one of both is right and d the difference; so never leaving has none, and a floor is
    best stated as the last exit's accuracy less what may be lost.

    Args:
      scores: ``[exits, n]`` >= 0, those of every exit for every sample (`make_full`).
      correct: ``[exits, n]``, whether each exit answers each sample correctly.
      floor: accuracy that must be kept, in [0, 1].
      cost: ``[exits]`` >= 0, cost of a sample that leaves at each exit, such as modelled seconds;
        1, 2, ..., N if None.
      margin: standard errors by which to stay above the floor; 0 to meet it on just these samples.
      points: quantiles of each exit.

    Returns:
      The calibration. Of equally cheap thresholds the most accurate.

    Raises:
      ValueError: shapes differ, there are less than two exits or no samples, scores are negative or
        NaN, ``cost`` has a wrong length, or a number is out of range.

    Example:
      >>> scores = [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]]
      >>> correct = [[1, 1, 0, 1], [1, 1, 1, 0]]
      >>> calibration = calibrate(scores, correct, floor=0.75, cost=[1, 5], margin=0)
      >>> calibration.thresholds, calibration.accuracy, calibration.cost
      ((0.4,), 0.75, 1.0)
    """
    scores, correct = _checked(scores, correct)
    exits, n = scores.shape
    cost = np.arange(1.0, exits + 1) if cost is None else np.asarray(cost, float)
    if cost.shape != (exits,) or not ((cost >= 0) & (cost < np.inf)).all():
        raise ValueError(f"cost must be {exits} numbers >= 0, one for each exit; got {cost}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor!r}")
    if not margin >= 0:
        raise ValueError(f"margin must be >= 0, got {margin!r}")

    grids = [np.append(_NEVER, _quantiles(row, points)) for row in scores[:-1]]
    price = np.broadcast_to((cost / (cost.max() or 1))[:, None], scores.shape)
    values = np.stack([correct, correct != correct[-1], price])
    thresholds, cheapest, improved = np.full(exits - 1, _NEVER), np.inf, True
    while improved:
        improved = False
        for e, f in list(itertools.combinations(range(exits - 1), 2)) or [(0, 0)]:
            grid = grids[e], grids[f] if e < f else np.array([_NEVER])
            right, differs, spent = _try_pairs(scores, values, thresholds, (e, f), grid) / n
            error = np.sqrt(np.maximum(differs - (right - correct[-1].mean()) ** 2, 0) / n)
            kept = right - margin * error >= floor - 1e-9
            # Rounding makes equal what only the order of summation tells apart.
            order = np.lexsort((-right.ravel(), spent.ravel().round(12), ~kept.ravel()))
            a, b = np.unravel_index(order[0], kept.shape)
            if kept[a, b] and spent[a, b] < cheapest - 1e-12:
                cheapest, improved = spent[a, b], True
                thresholds[f], thresholds[e] = grid[1][b], grid[0][a]

    exit_index = leave_at(scores, thresholds)
    fractions = np.bincount(exit_index, minlength=exits) / n
    return Calibration(
        thresholds=tuple(thresholds.tolist()),
        feasible=bool(np.isfinite(cheapest)),
        accuracy=float(at_exit(correct, exit_index).mean()),
        exit_fractions=fractions,
        cost=float(fractions @ cost),
    )


class Sweep(NamedTuple):
    """The trade-off as a curve, from nobody leaving early to all leaving at the first exit.

    Attributes:
      quantiles: ``[points]`` from 0 to 1, common to all exits.
      thresholds: ``[points, exits - 1]``, that quantile of the scores of each exit; -1 for 0.
      accuracy: ``[points]``.
      exit_fractions: ``[points, exits]``.
    """

    quantiles: np.ndarray
    thresholds: np.ndarray
    accuracy: np.ndarray
    exit_fractions: np.ndarray


def sweep(scores: Any, correct: Any, points: int = 101) -> Sweep:
    """Draws the curve of accuracy against exit fractions for thresholds at a common quantile.

    Args:
      scores: ``[exits, n]`` >= 0, those of every exit for every sample (`make_full`).
      correct: ``[exits, n]``, whether each exit answers each sample correctly.
      points: of the curve, >= 2.

    Returns:
      The curve; its first point is the full model.

    Raises:
      ValueError: as for `calibrate`.

    Example:
      >>> scores = [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]]
      >>> curve = sweep(scores, [[1, 1, 0, 1], [1, 1, 1, 1]], points=3)
      >>> curve.accuracy.tolist(), curve.exit_fractions[:, 0].tolist()
      ([1.0, 1.0, 0.75], [0.0, 0.5, 1.0])
    """
    scores, correct = _checked(scores, correct)
    thresholds = np.stack([_quantiles(row, points) for row in scores[:-1]], 1)
    thresholds[0] = _NEVER
    index = [leave_at(scores, t) for t in thresholds]
    return Sweep(
        quantiles=np.linspace(0, 1, points),
        thresholds=thresholds,
        accuracy=np.array([at_exit(correct, i).mean() for i in index]),
        exit_fractions=np.array([np.bincount(i, minlength=len(scores)) / len(i) for i in index]),
    )


def _checked(scores: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, correct = np.asarray(scores, float), np.asarray(correct, bool)
    if scores.ndim != 2 or scores.shape != correct.shape or len(scores) < 2 or not scores.size:
        raise ValueError(
            "scores and correct must both be [exits, n] with at least two exits and one sample; "
            f"got {scores.shape} and {correct.shape}"
        )
    if not (scores >= 0).all():
        raise ValueError(
            "scores must be >= 0 and not NaN; those of an Outcome are NaN where a sample had left, "
            "make_full gives all of them"
        )
    return scores, correct


def _quantiles(row: np.ndarray, points: int) -> np.ndarray:
    # Real scores, not values between: float32 holds them exactly, so execution decides the same.
    return np.quantile(row, np.linspace(0, 1, points), method="inverted_cdf")


def _try_pairs(
    scores: np.ndarray,
    values: np.ndarray,
    thresholds: np.ndarray,
    pair: tuple[int, int],
    grids: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Sums ``values [k, exits, n]`` over samples for all thresholds of a pair: ``[k, a, b]``."""
    leave = np.ones(scores.shape, bool)
    leave[:-1] = scores[:-1] <= thresholds[:, None]
    leave[list(pair)] = False

    def if_fires(*exits: int) -> np.ndarray:
        fires = leave.copy()
        fires[list(exits)] = True
        return values[:, fires.argmax(0), np.arange(scores.shape[1])]

    first, second = pair
    on_first, on_second, otherwise = if_fires(first), if_fires(second), if_fires()
    leaves, leaves_second = (
        (scores[e] <= grid[:, None]).astype(float) for e, grid in zip(pair, grids)
    )
    stays = 1 - leaves
    alone = on_first @ leaves.T + otherwise @ stays.T
    gain = (on_second - otherwise)[:, None] * leaves_second
    return alone[..., None] + stays @ gain.swapaxes(1, 2)
