import numpy as np
import pytest

from eejax.data import iid, power_law, quantity_skew

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


def mix(row):
    return np.bincount(LABELS[row], minlength=10) / len(row)


def distance(row):
    """Total variation distance between the classes of a client and those of all."""
    return np.abs(mix(row) - mix(np.arange(1000))).sum() / 2


def test_iid_sizes_differ_by_one():
    assert sorted({len(row) for row in iid(LABELS, 7, 0)}) == [142, 143]


def test_quantity_skew_keeps_the_mix_of_classes():
    indices = quantity_skew(LABELS, 5, 0)
    sizes = np.array([len(row) for row in indices])
    assert sizes.max() > 3 * sizes.min()
    assert distance(indices[sizes.argmax()]) < 0.1


@pytest.mark.parametrize(
    ("exponent", "sizes"),
    [
        (1.0, [480, 240, 160, 120]),  # 1000 / (1 + 1/2 + 1/3 + 1/4) is 480.
        (2.0, [702, 176, 78, 44]),  # 1000 / (1 + 1/4 + 1/9 + 1/16) is 702.4.
        (30.0, [994, 2, 2, 2]),
        (1e-9, [250, 250, 250, 250]),
    ],
)
def test_power_law_by_hand(exponent, sizes):
    rows = power_law(LABELS, 4, 0, exponent)
    assert sorted(map(len, rows), reverse=True) == sizes
    assert distance(max(rows, key=len)) < 0.1


def test_any_client_may_be_the_largest():
    largest = {int(np.argmax([len(row) for row in power_law(LABELS, 4, s)])) for s in range(30)}
    assert largest == {0, 1, 2, 3}


@pytest.mark.parametrize(("partition", "uneven"), [(quantity_skew, 0.1), (power_law, 3.0)])
def test_min_size_is_kept(partition, uneven):
    assert min(len(row) for row in partition(LABELS, 20, 0, uneven, min_size=0)) < 2
    assert min(len(row) for row in partition(LABELS, 20, 0, uneven, min_size=20)) == 20
    assert {len(row) for row in partition(LABELS, 20, 0, uneven, min_size=50)} == {50}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iid(LABELS, 0, 0), "clients must be at least 1; got 0"),
        (lambda: iid(LABELS, 1001, 0), "1001 clients with at least 1 .* need 1001 samples"),
        (lambda: quantity_skew(LABELS, 5, 0, alpha=np.nan), "alpha must be positive .*; got nan"),
        (lambda: power_law(LABELS, 5, 0, exponent=0), "exponent must be positive .*; got 0"),
        (lambda: power_law(LABELS, 501, 0), "at least 2 samples each need 1002 samples"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
