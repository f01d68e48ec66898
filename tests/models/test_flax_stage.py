"""Flax modules as stages: what `linen_stage` passes on and what it rejects."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import linen_stage, to_float


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(x)


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        del train
        return x * self.param("scale", nn.initializers.constant(3.0), ())


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train)(x)


X = jnp.ones((2, 50))


def test_init_is_the_same_for_values_and_shapes():
    stage = linen_stage("scaled", Scaled())
    assert stage.name == "scaled"
    for x in (X, jax.ShapeDtypeStruct(X.shape, X.dtype), np.ones((2, 50))):
        assert stage.init(jax.random.key(0), x) == {"scale": 3.0}
    assert stage.apply({"scale": 2.0}, X)[0, 0] == 2


def test_key_feeds_dropout_in_training_only():
    stage = linen_stage("dropped", Dropped())
    params = stage.init(jax.random.key(0), X)
    assert params == {}
    np.testing.assert_array_equal(stage.apply(params, X), X)
    np.testing.assert_array_equal(stage.apply(params, X, key=jax.random.key(0)), X)
    first = stage.apply(params, X, train=True, key=jax.random.key(0))
    assert sorted(set(np.asarray(first).ravel().tolist())) == [0, 2]
    np.testing.assert_array_equal(stage.apply(params, X, train=True, key=jax.random.key(0)), first)
    assert (stage.apply(params, X, train=True, key=jax.random.key(1)) != first).any()
    with pytest.raises(Exception, match='needs PRNG for "dropout"'):
        stage.apply(params, X, train=True)


def test_stages_keep_parameters_only():
    with pytest.raises(ValueError, match=r"stage 'bn' must keep parameters only.*batch_stats"):
        linen_stage("bn", Normalised()).init(jax.random.key(0), X)


def test_to_float_scales_integers_and_leaves_floats():
    pixels = jnp.array([[0, 102, 255]], jnp.uint8)
    np.testing.assert_allclose(to_float(pixels), [[-1, -0.2, 1]], atol=1e-6)
    np.testing.assert_allclose(to_float(pixels.astype(jnp.int32)), [[-1, -0.2, 1]], atol=1e-6)
    assert to_float(pixels).dtype == jnp.float32
    half = jnp.array([7.0], jnp.bfloat16)
    assert to_float(half) is half
