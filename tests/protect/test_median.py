import jax
import numpy as np
import pytest

from eejax.protect import median


@pytest.mark.parametrize("here", [5, 6, 9])
def test_median_is_numpy_s_over_those_present(here):
    x = np.random.default_rng(here).normal(size=(9, 4)).astype(np.float32)
    _, upload = jax.jit(median(9, 2).aggregate)((), x, np.arange(9) < here)
    np.testing.assert_allclose(upload, np.median(x[:here], 0), rtol=1e-6)
