"""Calibration against brute force, and against what is then really executed."""

import itertools

import numpy as np
import pytest

from eejax.coinfer import (
    at_exit,
    calibrate,
    leave_at,
    make_compacted,
    make_full,
    normalised_entropy,
    sweep,
)


def brute_force(scores, correct, floor, cost, margin):
    """Lowest mean cost, and the best accuracy at that cost, over all thresholds; None if none."""
    found = []
    for thresholds in itertools.product(*([-1, *np.unique(row)] for row in scores[:-1])):
        index = leave_at(scores, thresholds)
        right = at_exit(correct, index)
        difference = right.astype(float) - correct[-1]
        error = difference.std() / np.sqrt(len(right))
        if right.mean() - margin * error >= floor - 1e-9:
            found.append((round(cost[index].mean(), 9), -right.mean()))
    return min(found, default=None)


def problem(seed, exits):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 13))
    scores = rng.integers(0, 6, (exits, n)) / 10
    correct = rng.random((exits, n)) < np.linspace(0.6, 0.9, exits)[:, None]
    cost = np.sort(rng.random(exits)) if seed % 2 else np.arange(1.0, exits + 1)
    floor = float(np.clip(correct[-1].mean() + rng.choice([0.05, 0, -0.1, -0.2]), 0, 1))
    return scores, correct, floor, cost, seed % 3 / 2


@pytest.mark.parametrize("exits", [2, 3])
def test_calibration_is_the_best_of_all_thresholds(exits):
    outcomes = set()
    for seed in range(40):
        scores, correct, floor, cost, margin = problem(seed, exits)
        best = brute_force(scores, correct, floor, cost, margin)
        got = calibrate(scores, correct, floor=floor, cost=cost, margin=margin)
        outcomes.add(got.feasible)
        assert got.feasible == (best is not None)
        if got.feasible:
            assert got.cost == pytest.approx(best[0], abs=1e-8)
            assert got.accuracy == pytest.approx(-best[1])
        else:
            assert got.thresholds == (-1,) * (exits - 1)
        index = leave_at(scores, got.thresholds)
        assert got.accuracy == at_exit(correct, index).mean()
        np.testing.assert_allclose(got.exit_fractions @ cost, got.cost)
        np.testing.assert_allclose(
            got.exit_fractions, np.bincount(index, minlength=exits) / len(index)
        )
    assert outcomes == {True, False}


def test_with_four_exits_it_is_feasible_and_rarely_above_the_best():
    excess = []
    for seed in range(15):
        scores, correct, floor, cost, margin = problem(seed, 4)
        best = brute_force(scores, correct, floor, cost, margin)
        got = calibrate(scores, correct, floor=floor, cost=cost, margin=margin)
        if got.feasible:
            assert best is not None
            excess.append(got.cost / best[0] - 1)
    assert len(excess) > 5
    assert np.mean(np.array(excess) < 1e-6) > 0.8
    assert max(excess) < 0.2


def test_a_hand_made_case():
    """Exit 1 is right for the two surest samples; letting the third leave as well costs 1/4."""
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]])
    correct = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    got = calibrate(scores, correct, floor=1.0, cost=[2, 10])
    assert got.thresholds == (0.2,)
    assert got.exit_fractions.tolist() == [0.5, 0.5]
    assert got.cost == 6
    assert calibrate(scores, correct, floor=0.75, margin=0).thresholds == (0.3,)
    # d = -1/4, b = 1/4: standard error sqrt((1/4 - 1/16) / 4) = 0.2165 above the floor.
    assert calibrate(scores, correct, floor=0.75, margin=1).thresholds == (0.2,)
    assert calibrate(scores, correct, floor=0.53, margin=1).thresholds == (0.3,)
    assert calibrate(scores, correct, floor=0.54, margin=1).thresholds == (0.2,)


def test_a_floor_above_the_last_exit_can_be_kept_by_early_ones():
    scores = np.array([[0.1, 0.9], [0.5, 0.5]])
    correct = np.array([[1, 0], [0, 1]])
    got = calibrate(scores, correct, floor=1.0, margin=0)
    assert (got.feasible, got.accuracy, got.thresholds) == (True, 1.0, (0.1,))


def test_of_equally_cheap_thresholds_the_most_accurate_are_taken():
    scores = np.array([[0.1, 0.2], [0.1, 0.2], [0.0, 0.0]])
    correct = np.array([[1, 1], [0, 0], [1, 1]])
    got = calibrate(scores, correct, floor=0.0, cost=[1, 1, 3])
    assert (got.cost, got.accuracy) == (1, 1)


def test_an_infeasible_floor_lets_nobody_leave_early_and_says_so():
    scores = np.array([[0.1, 0.2], [0.0, 0.0], [0.0, 0.0]])
    correct = np.array([[0, 0], [0, 0], [1, 0]])
    got = calibrate(scores, correct, floor=0.9)
    assert (got.feasible, got.thresholds, got.accuracy) == (False, (-1.0, -1.0), 0.5)
    assert got.exit_fractions.tolist() == [0, 0, 1]
    assert got.cost == 3


def test_execution_decides_as_calibrated_to_the_sample(tiny):
    model, params, x = tiny
    logits, scores = make_full(model, normalised_entropy([-1, -1]), batch=8)(params, x)
    correct = scores < np.median(scores, 1, keepdims=True)
    correct[-1] = True
    got = calibrate(scores, correct, floor=0.9, margin=0)
    assert (got.exit_fractions > 0).all()
    outcome = make_compacted(model, normalised_entropy(got.thresholds), batch=8)(params, x)
    np.testing.assert_array_equal(outcome.exit_index, leave_at(scores, got.thresholds))
    np.testing.assert_array_equal(outcome.logits, at_exit(logits, outcome.exit_index))


def test_a_quantile_grid_is_close_to_exact_on_many_samples():
    rng = np.random.default_rng(0)
    scores = rng.random((3, 2000))
    correct = rng.random(scores.shape) < 1 - scores * np.array([0.5, 0.3, 0.1])[:, None]
    grid = calibrate(scores, correct, floor=0.9, margin=0)
    fine = calibrate(scores, correct, floor=0.9, margin=0, points=301)
    assert grid.accuracy >= 0.9
    assert fine.cost <= grid.cost + 1e-9
    assert grid.cost < fine.cost * 1.01


def test_a_margin_keeps_the_floor_on_new_data_more_often():
    """A simulation in the small: the cheapest thresholds are flattered by their own samples."""

    def draw(rng, n):
        difficulty = rng.normal(size=n)
        z = difficulty + 0.7 * rng.normal(size=(2, n))
        return 1 / (1 + np.exp(-z - 0.5 * rng.normal(size=z.shape))), z < [[1.2], [1.6]]

    broken = {0.0: 0, 2.0: 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (scores, correct), (new_scores, new_correct) = draw(rng, 400), draw(rng, 20_000)
        for margin in broken:
            thresholds = calibrate(
                scores, correct, floor=correct[-1].mean() - 0.01, margin=margin
            ).thresholds
            accuracy = at_exit(new_correct, leave_at(new_scores, thresholds)).mean()
            broken[margin] += accuracy < new_correct[-1].mean() - 0.01
    assert broken[0.0] >= 7
    assert broken[2.0] <= 3


def test_sweep_goes_from_the_full_model_to_the_first_exit():
    rng = np.random.default_rng(0)
    scores, correct = rng.random((3, 200)), rng.random((3, 200)) < [[0.5], [0.7], [0.9]]
    curve = sweep(scores, correct, points=11)
    assert curve.accuracy[0] == correct[-1].mean()
    assert curve.accuracy[-1] == correct[0].mean()
    assert curve.exit_fractions[0].tolist() == [0, 0, 1]
    assert curve.exit_fractions[-1].tolist() == [1, 0, 0]
    np.testing.assert_allclose(curve.exit_fractions.sum(1), 1)
    # The first exit sees everyone, so its fraction is the quantile.
    np.testing.assert_allclose(curve.exit_fractions[:, 0], curve.quantiles, atol=1 / 200 + 1e-9)
    assert curve.thresholds.shape == (11, 2)
    assert (curve.thresholds[0] == -1).all()
    index = leave_at(scores, curve.thresholds[4])
    assert curve.accuracy[4] == at_exit(correct, index).mean()


ZEROS, ONES = np.zeros((2, 3)), np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("scores", "correct", "options", "message"),
    [
        (ZEROS, ONES[:1], {}, r"both be \[exits, n\].* got \(2, 3\) and \(1, 3\)"),
        (ZEROS[:1], ONES[:1], {}, "at least two exits"),
        (ZEROS[:, :0], ONES[:, :0], {}, "one sample"),
        (ZEROS - 1, ONES, {}, "scores must be >= 0 and not NaN"),
        (ZEROS * np.nan, ONES, {}, "make_full gives all of them"),
        (ZEROS, ONES, {"floor": 98}, r"floor must be in \[0, 1\], got 98"),
        (ZEROS, ONES, {"cost": [1]}, "cost must be 2 numbers >= 0"),
        (ZEROS, ONES, {"cost": [1, -1]}, "cost must be 2 numbers >= 0"),
        (ZEROS, ONES, {"margin": -1}, "margin must be >= 0, got -1"),
    ],
)
def test_errors_name_the_argument(scores, correct, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(scores, correct, **{"floor": 0.5, **options})
