"""Affine quantisation: golden codes, edge cases, unbiased stochastic rounding."""

import jax
import numpy as np
import pytest

from eejax.wire import affine


def round_trip(codec, tree, key=None):
    _, payload = jax.jit(codec.encode)(codec.init(tree), tree, key)
    return payload, jax.device_get(jax.jit(codec.decode)(payload))


def test_golden_8_bits():
    # Range [-51, 204], so step 1 and zero point 51.
    x = np.array([-51.0, 204.0, 0.0, 1.4, -0.6], np.float32)
    payload, y = round_trip(affine(8), x)
    assert payload.codes.tolist() == [0, 255, 51, 52, 50]
    assert payload.scales[0].tolist() == [1.0]
    assert payload.zero_points[0].tolist() == [51]
    assert y.tolist() == [-51.0, 204.0, 0.0, 1.0, -1.0]


def test_golden_4_bits_packs_the_even_element_low():
    # Range [-5, 10], so step 1 and zero point 5: codes 0, 15, 5, 6, 3.
    x = np.array([-5.0, 10.0, 0.0, 1.4, -1.6], np.float32)
    payload, y = round_trip(affine(4), x)
    assert payload.codes.tolist() == [0 | 15 << 4, 5 | 6 << 4, 3]
    assert y.tolist() == [-5.0, 10.0, 0.0, 1.0, -2.0]
    assert affine(4).nbytes(payload) == 3 + 4 + 1


def test_range_of_one_sign_is_extended_to_zero():
    _, y = round_trip(affine(8), np.array([255.0, 254.0, 100.2], np.float32))
    assert y.tolist() == [255.0, 254.0, 100.0]
    payload, y = round_trip(affine(8), np.array([-255.0, -254.0], np.float32))
    assert payload.zero_points[0].tolist() == [255]
    assert y.tolist() == [-255.0, -254.0]


def test_channels_have_their_own_range():
    x = np.array([[255.0, -15.0], [1.0, 240.0]], np.float32)
    payload, y = round_trip(affine(8, axis=1), {"w": x, "b": x[0], "s": x[0, 0]})
    # Leaves come in order of names; b and s have one range.
    assert [s.shape for s in payload.scales] == [(1,), (), (1, 2)]
    assert payload.scales[2].tolist() == [[1.0, 1.0]]
    assert payload.zero_points[2].tolist() == [[0, 15]]
    np.testing.assert_array_equal(y["w"], x)
    assert affine(8, axis=1).nbytes(payload) == (2 + 1 + 4) + 5 * (1 + 1 + 2)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("stochastic", [False, True])
def test_equal_elements_are_exact(bits, stochastic):
    # XLA computes 41 / 41 as 41 * (1 / 41) < 1, and 1 / 3e38 underflows.
    values = [0.0, 0.1, -0.1, 41.0, 3e38, -3e38, -1e-30]
    x = np.tile(np.array(values, np.float32), (5, 1))
    _, y = round_trip(affine(bits, axis=1, stochastic=stochastic), x, jax.random.key(0))
    np.testing.assert_array_equal(y, x)
    _, y = round_trip(affine(bits, stochastic=stochastic), x[:, 3], jax.random.key(0))
    np.testing.assert_array_equal(y, x[:, 3])


@pytest.mark.parametrize("stochastic", [False, True])
def test_zero_is_exact(stochastic):
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    x[::2] = 0
    _, y = round_trip(affine(8, stochastic=stochastic), x, jax.random.key(0))
    assert (y[::2] == 0).all()


def test_a_range_of_nearly_the_whole_dtype_stays_finite():
    x = np.array([-3e38, 3e38, 1e38], np.float32)
    _, y = round_trip(affine(8), x)
    np.testing.assert_allclose(y, x, atol=6e38 / 255 / 2 * 1.001)


@pytest.mark.parametrize("stochastic", [False, True])
def test_what_is_not_finite_spoils_its_channel_and_no_other(stochastic):
    x = np.ones((3, 4), np.float32)
    x[1, :3] = np.nan, np.inf, -np.inf
    _, y = round_trip(affine(8, axis=1, stochastic=stochastic), x, jax.random.key(0))
    assert np.isnan(y[:, :3]).all()
    assert (y[:, 3] == 1).all()
    _, y = round_trip(affine(4, stochastic=stochastic), x, jax.random.key(0))
    assert np.isnan(y).all()


def test_stochastic_rounding_is_unbiased():
    x = np.linspace(-1.3, 2.1, 41, dtype=np.float32)
    codec = affine(4, stochastic=True)
    step, draws = 3.4 / 14, 4000
    keys = jax.random.split(jax.random.key(3), draws)

    def draw(key):
        return codec.decode(codec.encode((), x, key)[1])

    samples = np.asarray(jax.jit(jax.vmap(draw))(keys))
    # One draw is spread over two codes, so its deviation is at most half a step; five standard
    # errors fail once in 40,000 runs over 41 elements, and the seed is fixed.
    np.testing.assert_allclose(samples.mean(0), x, atol=5 * 0.5 * step / np.sqrt(draws))
    assert (np.abs(samples - x) < step * 1.001).all()
    # Rounding to nearest fails the same bound.
    nearest = round_trip(affine(4), x)[1]
    assert np.abs(nearest - x).max() > 5 * 0.5 * step / np.sqrt(draws)


def test_leaves_have_independent_noise():
    x = np.linspace(0, 1, 100, dtype=np.float32)
    _, y = round_trip(affine(4, stochastic=True), {"a": x, "b": x}, jax.random.key(0))
    assert (y["a"] != y["b"]).any()


def test_errors():
    with pytest.raises(ValueError, match="bits must be 8 or 4; got 6"):
        affine(6)
    x = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="needs a key"):
        round_trip(affine(stochastic=True), x)
    with pytest.raises(ValueError, match="axis 2 is out of range for leaf 'end/w' of 2 axes"):
        round_trip(affine(axis=2), {"end": {"w": x}})
