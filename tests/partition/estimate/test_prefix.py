"""QDMP's differences of prefix times."""

import numpy as np
import pytest

from eejax.partition.estimate import prefix_seconds
from eejax.partition.graph import Layer, LayerGraph, Tensor

DIAMOND = LayerGraph(
    tuple(Layer(name, 0, 0, 0) for name in ("stem", "left", "right", "join")),
    (
        Tensor("x", -1, (0,), 4),
        Tensor("a", 0, (1, 2), 4),
        Tensor("b", 1, (3,), 4),
        Tensor("c", 2, (3,), 4),
    ),
    "layer",
)


def test_differences_in_order_sum_up():
    # stem 1, left 2, right 3, join 1.
    estimate = prefix_seconds(DIAMOND, [1, 3, 6, 7])
    assert estimate.seconds.tolist() == [1, 2, 3, 1]
    assert estimate.negative == 0
    assert estimate.errors is None


def test_predecessors_count_the_shorter_branch_twice():
    # Times to run just what a layer needs: right does without left.
    assert prefix_seconds(DIAMOND, [1, 3, 4, 7], over="predecessors").seconds.tolist() == [
        1,
        2,
        3,
        3,
    ]
    # The join holds the 2 of left, which the layers themselves hold as well.
    chain = DIAMOND._replace(tensors=tuple(Tensor(f"t{i}", i - 1, (i,), 4) for i in range(4)))
    for over in ("order", "predecessors"):
        assert prefix_seconds(chain, [1, 3, 6, 7], over=over).seconds.tolist() == [1, 2, 3, 1]


def test_noise_makes_no_negative_layer_and_no_layer_of_its_own():
    # Layer 1 seems to take -0.2; layer 2 is measured against the larger total before it.
    estimate = prefix_seconds(DIAMOND, [2, 1.8, 3, 4])
    np.testing.assert_allclose(estimate.seconds, [2, 0, 1, 1])
    assert estimate.negative == 1
    assert estimate.seconds.sum() == 4


def test_the_median_of_repeats_counts_and_errors_are_on_held_out_ones():
    totals = np.array([[1, 3, 6, 7], [1, 3, 6, 7], [1, 3, 6, 7], [2, 6, 12, 14]], float)
    estimate = prefix_seconds(DIAMOND, totals)
    assert estimate.seconds.tolist() == [1, 2, 3, 1]
    # Three repeats are met exactly, of the fourth half is missed.
    assert estimate.errors.median == 0
    assert estimate.errors.p90 == pytest.approx(0.5)
    assert estimate.errors.samples == 16
    # Of two repeats, each is predicted by the other: twice or half as long.
    both = prefix_seconds(DIAMOND, totals[2:])
    assert both.errors.median == pytest.approx(0.75)
    same = prefix_seconds(DIAMOND, np.tile([1.0, 3, 6, 7], (3, 1)))
    assert same.errors[:3] == (0, 0, 0)


@pytest.mark.parametrize(
    ("totals", "keywords", "message"),
    [
        ([1, 2, 3], {}, r"totals must be \[repeats, 4 layers\], got \(1, 3\)"),
        ([1, 2, 3, -4], {}, "totals must be finite and > 0"),
        ([1, 2, 3, np.nan], {}, "totals must be finite and > 0"),
        ([1, 2, 3, 4], {"over": "ordre"}, "over 'ordre' is none of .*; did you mean 'order'"),
    ],
)
def test_errors_name_the_argument(totals, keywords, message):
    with pytest.raises(ValueError, match=message):
        prefix_seconds(DIAMOND, totals, **keywords)
