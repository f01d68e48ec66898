"""Survey eq. (2) against numbers worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.coinfer import eta, normalised_entropy


@pytest.mark.parametrize(
    ("x", "value"),
    [
        ([1, 0], 0),
        ([0, 0, 1, 0], 0),
        ([1 / 2, 1 / 2], 1),
        ([1 / 10] * 10, 1),
        # 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2, over log 3.
        ([1 / 2, 1 / 4, 1 / 4], 1.5 * math.log(2) / math.log(3)),
        # Two of four classes share all: log 2 / log 4.
        ([1 / 2, 0, 1 / 2, 0], 0.5),
    ],
)
def test_eta_of_probabilities(x, value):
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(x), jnp.float32)
    assert float(eta(logits)) == pytest.approx(value, abs=1e-6)
    assert float(eta(logits + 5)) == pytest.approx(value, abs=1e-6)


def test_eta_is_in_the_unit_interval_for_any_shape_and_magnitude():
    logits = (
        np.random.default_rng(0).normal(size=(3, 5, 7)) * np.array([1e-8, 1, 1e6])[:, None, None]
    )
    score = eta(jnp.asarray(logits, jnp.float32))
    assert score.shape == (3, 5)
    assert score.min() >= 0
    assert score.max() <= 1


def test_a_threshold_in_nats_is_divided_by_the_log_of_the_classes():
    rng = np.random.default_rng(0)
    logits = rng.uniform(0, 8, (100, 1)) * rng.normal(size=(100, 10))
    x = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    nats = -(x * np.log(x)).sum(1)
    assert 0.05 / math.log(10) == pytest.approx(0.0217, abs=1e-4)
    rule = normalised_entropy([0.5 / math.log(10)])
    leave, _ = rule.decide(rule.init(), jnp.asarray(logits, jnp.float32), None, 0)
    np.testing.assert_array_equal(leave, nats <= 0.5)
    assert 10 < leave.sum() < 90


def test_the_threshold_itself_leaves_and_nan_never_does():
    logits = jnp.array([[0.0, 0.0], [jnp.nan, 0.0]])
    for threshold in (1.0, 0.999):
        rule = normalised_entropy([threshold])
        leave, score = rule.decide(rule.init(), logits, None, 0)
        assert leave.tolist() == [threshold == 1, False]
        assert np.isnan(score[1])
    assert rule.decide(rule.init(), logits, None, 1)[0].all()


@pytest.mark.parametrize("bad", [1.5, math.nan, math.inf])
def test_a_threshold_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=r"thresholds\[1\] must be in \[0, 1\], or negative"):
        normalised_entropy([0.5, bad])


def test_too_few_thresholds_and_too_few_classes_are_named():
    rule = normalised_entropy([0.5])
    with pytest.raises(ValueError, match="thresholds has 1 entries, but the model has more than 2"):
        rule.decide(rule.init(), jnp.zeros((1, 2)), None, 2)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        eta(jnp.zeros((4, 1)))
