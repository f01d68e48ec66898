import jax
import numpy as np
import pytest
from scipy import stats

from eejax.protect import trimmed_mean


@pytest.mark.parametrize(("here", "f"), [(9, 2), (7, 3), (8, 0)])
def test_trimmed_mean_is_scipy_s_over_those_present(here, f):
    x = np.random.default_rng(here).normal(size=(9, 4)).astype(np.float32)
    _, upload = jax.jit(trimmed_mean(9, f).aggregate)((), x, np.arange(9) < here)
    expected = stats.trim_mean(x[:here], f / here + 1e-9, axis=0)
    np.testing.assert_allclose(upload, expected, rtol=1e-5)


def test_trimming_less_than_there_are_adversaries_does_not_protect():
    """The reference's digits: ten clients, three send -100; b=3 holds and b=2 does not."""
    x = np.random.default_rng(0).normal(1, 0.1, (10, 50)).astype(np.float32)
    x[:3] = -100
    errors = {}
    for f in (2, 3):
        _, upload = jax.jit(trimmed_mean(10, f).aggregate)((), x, np.ones(10))
        errors[f] = np.abs(np.asarray(upload) - 1).max()
    assert errors[3] < 0.2
    assert errors[2] > 10
