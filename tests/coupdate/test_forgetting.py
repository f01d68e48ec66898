"""Continual metrics against numbers worked out by hand."""

import numpy as np
import pytest

from eejax.coupdate import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    recovered,
)

# Three tasks; the first is best after the second, the second after itself.
R = [
    [0.80, 0.30, 0.10],
    [0.90, 0.70, 0.20],
    [0.60, 0.65, 0.85],
]


def test_metrics_by_hand():
    assert average_accuracy(R) == pytest.approx((0.60 + 0.65 + 0.85) / 3)
    assert forgetting(R) == pytest.approx(((0.90 - 0.60) + (0.70 - 0.65)) / 2)
    assert backward_transfer(R) == pytest.approx(((0.60 - 0.80) + (0.65 - 0.70)) / 2)
    assert forward_transfer(R, [0.1, 0.1, 0.15]) == pytest.approx(
        ((0.30 - 0.10) + (0.20 - 0.15)) / 2
    )


def test_forgetting_is_the_mirror_of_backward_transfer_when_training_was_the_best_moment():
    R = np.random.default_rng(0).uniform(0.2, 0.5, (5, 5))
    np.fill_diagonal(R, 0.9)
    assert forgetting(R) == pytest.approx(-backward_transfer(R))


def test_later_tasks_that_help_make_forgetting_negative():
    assert forgetting([[0.5, 0.0], [0.75, 1.0]]) == -0.25


def test_one_task_cannot_be_forgotten():
    assert average_accuracy([[0.75]]) == 0.75
    assert forgetting([[0.75]]) == backward_transfer([[0.75]]) == 0
    assert forward_transfer([[0.75]], [0.1]) == 0


def test_recovered_and_its_edges():
    share = recovered(
        before=[0.9, 0.9, 0.9, 0.9, 0.9, 0.5],
        drifted=[0.5, 0.5, 0.5, 0.5, 0.9, 0.9],
        after=[0.7, 0.5, 0.9, 0.4, 0.95, 0.9],
    )
    np.testing.assert_allclose(share, [0.5, 0, 1, -0.25, np.nan, np.nan])
    assert recovered(0.75, 0.25, 1.0) == 1.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forgetting([0.5, 0.5]), r"R must be \[tasks, tasks\], got shape \(2,\)"),
        (lambda: average_accuracy(np.zeros((2, 3))), r"got shape \(2, 3\)"),
        (lambda: backward_transfer(np.zeros((0, 0))), r"got shape \(0, 0\)"),
        (lambda: forward_transfer(R, [0.1]), r"b must be \[3\].*got shape \(1,\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
