import jax
import numpy as np
import pytest

from eejax.protect import norm_bound


def test_long_uploads_are_cut_and_short_ones_are_not():
    x = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [9.0, 9.0]], np.float32)
    _, upload = jax.jit(norm_bound(1.0).aggregate)((), x, np.array([5.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(upload, [(0.6 + 0.3) / 3, (0.8 + 0.4) / 3], rtol=1e-6)


def test_without_a_bound_it_is_the_median_norm_of_those_present():
    x = np.array([1.0, 2.0, 100.0, 9.0], np.float32)
    _, upload = jax.jit(norm_bound().aggregate)((), x, np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(upload, 5 / 3, rtol=1e-6)


@pytest.mark.parametrize("bound", [0, -1.0, float("nan")])
def test_bound_must_be_positive(bound):
    with pytest.raises(ValueError, match="bound must be above 0"):
        norm_bound(bound)
