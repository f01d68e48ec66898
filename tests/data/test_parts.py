import numpy as np
import pytest

from eejax.data import pack
from eejax.data.parts import positive, sizes_of


def test_pack_by_hand():
    table, counts = pack([np.array([4, 2]), np.array([], np.int64), np.array([9, 8, 7])])
    assert (table.dtype, counts.dtype) == (np.int32, np.int32)
    assert table.tolist() == [[4, 2, 4], [0, 0, 0], [9, 8, 7]]
    assert counts.tolist() == [2, 0, 3]
    assert pack([np.array([], np.int64)]).table.tolist() == [[0]]


@pytest.mark.parametrize(
    ("weights", "n", "min_size", "sizes"),
    [
        ([1, 1, 1], 10, 0, [3, 4, 3]),  # Ends at 3.33, 6.67 and 10.
        ([6, 3, 1], 100, 0, [60, 30, 10]),
        ([1e9, 1, 1], 10, 2, [6, 2, 2]),
        ([1, 5, 5], 11, 3, [3, 4, 4]),
        ([1, 1], 4, 2, [2, 2]),
    ],
)
def test_sizes_by_hand(weights, n, min_size, sizes):
    assert sizes_of(np.array(weights, float), n, min_size).tolist() == sizes


def test_positive():
    assert positive("alpha", 1e-300) == 1e-300
    for value in (0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="alpha must be positive and finite; got"):
            positive("alpha", value)
