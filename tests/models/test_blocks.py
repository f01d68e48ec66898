"""Group normalisation against Flax and one sample at a time; dense layers and initial values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import GroupNorm
from eejax.models.blocks import Dense, fan_in_normal

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(2, 3, (3, 5, 4, 8)).astype(np.float32))
PARAMS = {
    "scale": jnp.asarray(RNG.normal(size=8).astype(np.float32)),
    "bias": jnp.asarray(RNG.normal(size=8).astype(np.float32)),
}


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_equals_flax_in_values_and_gradients(groups):
    @jax.jit
    def both(params, x):
        results = []
        for module in (GroupNorm(groups), nn.GroupNorm(groups, epsilon=1e-5)):
            y, vjp = jax.vjp(lambda p, x, m=module: m.apply({"params": p}, x), params, x)
            results.append((y, vjp(jnp.sin(X))))
        return results

    ours, theirs = both(PARAMS, X)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_golden():
    # Channels 0 and 1: mean 2, variance 1; channels 2 and 3: mean 20, variance 100.
    x = jnp.array([[1.0, 3.0, 10.0, 30.0]]).reshape(1, 1, 1, 4)
    params = {"scale": jnp.array([1.0, 2.0, 3.0, 4.0]), "bias": jnp.array([0.0, 0.0, 0.0, 5.0])}
    y = GroupNorm(groups=2, epsilon=0).apply({"params": params}, x)
    np.testing.assert_allclose(y.ravel(), [-1, 2, -3, 9], rtol=1e-6)


def test_a_sample_does_not_depend_on_its_batch():
    apply = GroupNorm().apply
    together = apply({"params": PARAMS}, X)
    for i in range(3):
        np.testing.assert_allclose(
            apply({"params": PARAMS}, X[i : i + 1])[0], together[i], rtol=1e-5
        )


def test_constant_images_give_the_bias_and_finite_gradients():
    def total(x):
        y = GroupNorm().apply({"params": PARAMS}, x)
        return jnp.sum(y), y

    grad, y = jax.grad(total, has_aux=True)(jnp.full((1, 4, 4, 8), 7.0))
    np.testing.assert_allclose(y[0, 0, 0], PARAMS["bias"], atol=1e-5)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_must_divide_the_channels(groups):
    with pytest.raises(ValueError, match=f"groups must divide the channels: {groups} and 8"):
        GroupNorm(groups).apply({"params": PARAMS}, X)


def test_dense_flattens_its_samples():
    x = jnp.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    params = {"kernel": jnp.array([[1.0, 0.0], [10.0, -1.0]]), "bias": jnp.array([0.5, 0.0])}
    y = Dense(2).apply({"params": params}, x)
    assert y.tolist() == [[21.5, -2.0], [43.5, -4.0]]


def test_initial_values_are_normal_with_the_variance_of_their_fan_in():
    kernel = np.asarray(fan_in_normal(2.0)(jax.random.key(0), (3, 3, 4, 2500)), np.float64)
    assert kernel.shape == (3, 3, 4, 2500)
    # 90,000 values: standard errors 0.003 of the scaled mean, 0.005 of the scaled variance.
    scaled = kernel * np.sqrt(3 * 3 * 4 / 2)
    assert abs(scaled.mean()) < 0.015
    assert abs(scaled.var() - 1) < 0.025
    assert abs((np.abs(scaled) < 1).mean() - 0.6827) < 0.01
