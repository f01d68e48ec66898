"""Regressions by type of layer: on laws that they know, and their held-out errors."""

import numpy as np
import pytest

from eejax.partition.estimate import features_of, fit_regression, predict_regression
from eejax.partition.graph import Layer, LayerGraph, Tensor

RNG = np.random.default_rng(0)
SIZES = 10 ** RNG.uniform(3, 8, (60, 2))


def test_each_type_has_its_own_law():
    kinds = ["Conv", "Relu"] * 30
    linear = 1e-3 + SIZES @ [2e-9, 5e-10]
    power = 1e-8 * (1 + SIZES[:, 0]) ** 0.7 * (1 + SIZES[:, 1]) ** 0.2
    seconds = np.where(np.array(kinds) == "Conv", linear, power)
    regression = fit_regression(kinds, SIZES, seconds)
    assert {kind: fit.form for kind, fit in regression.items()} == {
        "Conv": "linear",
        "Relu": "log-linear",
    }
    np.testing.assert_allclose(regression["Conv"].weights, [1e-3, 2e-9, 5e-10], rtol=1e-6)
    np.testing.assert_allclose(regression["Relu"].weights, [np.log(1e-8), 0.7, 0.2], rtol=1e-6)
    for fit in regression.values():
        assert fit.errors.p90 < 1e-6
        assert fit.errors.samples == 30
    # Predictions follow the rows, in any order and number.
    rows = RNG.permutation(60)[:17]
    got = predict_regression(regression, [kinds[i] for i in rows], SIZES[rows])
    np.testing.assert_allclose(got, seconds[rows], rtol=1e-6)


def test_held_out_errors_tell_noise_and_wrong_forms():
    power = 1e-9 * SIZES[:, 0] ** 0.6
    noisy = power * np.exp(RNG.normal(0, 0.3, 60))
    kinds = ["Conv"] * 60
    log = fit_regression(kinds, SIZES, noisy, form="log-linear")["Conv"].errors
    # The median of |exp(0.3 z) - 1| is 0.2 or so.
    assert 0.15 < log.median < 0.3
    line = fit_regression(kinds, SIZES, noisy, form="linear")["Conv"].errors
    assert line.median > 2 * log.median
    best = fit_regression(kinds, SIZES, noisy)["Conv"]
    assert best.form == "log-linear"
    assert best.errors == log


def test_errors_are_those_of_samples_left_out():
    # Five samples and six weights fit themselves exactly, but not each other.
    x, y = RNG.uniform(1, 2, (5, 5)), RNG.uniform(1, 2, 5)
    fit = fit_regression(["a"] * 5, x, y, form="linear", folds=5)
    np.testing.assert_allclose(predict_regression(fit, ["a"] * 5, x), y)
    assert fit["a"].errors.median > 0.01


def test_a_line_predicts_no_negative_time():
    x = np.arange(1.0, 11)[:, None]
    fit = fit_regression(["a"] * 10, x, np.maximum(x[:, 0] - 5, 0.1), form="linear")
    assert predict_regression(fit, ["a"], [[0.0]]) == 0


def test_features_of_a_graph_and_columns_of_tiers():
    layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e5, 1e4, 5000))
    tensors = (Tensor("x", -1, (0,), 4), Tensor("y", 0, (1,), 4))
    x = features_of(LayerGraph(layers, tensors, "layer"))
    assert x.tolist() == [[1e6, 1e5, 400], [1e5, 1e4, 5000]]
    samples = 10 ** RNG.uniform(3, 7, (40, 3))
    tiers = [fit_regression(["any"] * 40, samples, speed * samples[:, 0]) for speed in (1e-8, 1e-9)]
    seconds = np.stack([predict_regression(r, ["any"] * 2, x) for r in tiers], 1)
    np.testing.assert_allclose(seconds, [[1e-2, 1e-3], [1e-3, 1e-4]], rtol=1e-5)


ONES = np.ones((6, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_regression(["a"] * 6, ONES, np.zeros(6)), "seconds must be 6 numbers > 0"),
        (lambda: fit_regression(["a"] * 6, ONES, np.ones(5)), "seconds must be 6 numbers > 0"),
        (lambda: fit_regression(["a"] * 5, ONES, np.ones(5)), r"features must be \[5, features\]"),
        (lambda: fit_regression(["a"] * 6, -ONES, np.ones(6)), "features must be finite and >= 0"),
        (
            lambda: fit_regression(["a"] * 4 + ["b"] * 2, ONES, np.ones(6), folds=3),
            r"'b' has 2 samples; folds must be in \[2, 2\]: 3",
        ),
        (
            lambda: fit_regression(["a"] * 6, ONES, np.ones(6), form="log"),
            "form 'log' is none of linear, log-linear, best",
        ),
        (
            lambda: predict_regression(
                fit_regression(["a"] * 6, ONES, np.ones(6)), ["b", "a", "b", "c"], np.ones((4, 1))
            ),
            r"kinds without a fit: b \(2\), c \(1\); fitted are a",
        ),
        (
            lambda: predict_regression(
                fit_regression(["a"] * 6, ONES, np.ones(6)), ["a"], np.ones((1, 2))
            ),
            r"features must be \[layers, 1\], got \(1, 2\)",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
