import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import gaussian_noise


def test_noise_has_its_deviation_and_needs_a_key():
    codec, tree = (
        gaussian_noise(0.5),
        {"a": jnp.zeros(5000), "b": jnp.zeros(5000), "i": jnp.ones(2, int)},
    )
    _, sent = codec.encode((), tree, jax.random.key(0))
    assert sent["i"].tolist() == [1, 1]
    assert sent["a"].std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(sent["a"], sent["b"])[0, 1]) < 0.05
    with pytest.raises(ValueError, match="needs a key"):
        codec.encode((), tree, None)
    with pytest.raises(ValueError, match="std must be at least 0"):
        gaussian_noise(-1)
