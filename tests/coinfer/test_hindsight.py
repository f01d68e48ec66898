"""Selection after the fact."""

import numpy as np
import pytest

from eejax.coinfer import at_exit, leave_at


def test_a_sample_leaves_at_the_first_exit_that_is_sure_enough():
    scores = np.array([[0.2, 0.9, 0.2, np.nan], [0.9, 0.1, 0.1, 0.1], [0.9, 0.9, 0.0, 0.9]])
    assert leave_at(scores, [0.2, 0.1]).tolist() == [0, 1, 0, 1]
    assert leave_at(scores, [-1, -1]).tolist() == [2, 2, 2, 2]
    assert leave_at(scores[-1:], []).tolist() == [0, 0, 0, 0]


def test_at_exit_takes_rows_of_any_width():
    values = np.arange(24).reshape(2, 3, 4)
    taken = at_exit(values, [1, 0, 1])
    assert taken.tolist() == [[12, 13, 14, 15], [4, 5, 6, 7], [20, 21, 22, 23]]


@pytest.mark.parametrize("thresholds", [[0.1], [0.1, 0.1, 0.1]])
def test_a_wrong_number_of_thresholds_is_named(thresholds):
    with pytest.raises(ValueError, match="thresholds must have 2 entries"):
        leave_at(np.zeros((3, 5)), thresholds)
