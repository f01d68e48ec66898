import jax
import numpy as np

from eejax.protect import mean


def test_weighted_mean_by_hand():
    x = np.array([[1.0, 2.0], [4.0, 8.0], [7.0, 7.0]], np.float32)
    _, upload = jax.jit(mean().aggregate)((), x, np.array([3.0, 1.0, 0.0], np.float32))
    assert upload.tolist() == [1.75, 3.5]
