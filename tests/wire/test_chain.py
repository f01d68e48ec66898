"""Chain: order, grouping, keys, golden sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.wire import affine, cast, chain, deflate, identity, serialize, topk


@pytest.fixture
def update():
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(30, 10)).astype(np.float32), "b": np.arange(7, dtype=np.float32)}


def test_grouping_changes_nothing(update):
    update = update["w"][:3, :5, None]
    a, b, c = topk(0.25), affine(8), deflate()
    chains = [chain(a, b, c), chain(chain(a, b), c), chain(a, chain(b, c))]
    states, payloads = zip(*[x.encode(x.init(update), update, None) for x in chains])
    for codec, state, payload in zip(chains, states, payloads):
        assert serialize(payload) == serialize(payloads[0])
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(states[0]), strict=True):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(*map(jax.tree.leaves, (codec.decode(payload), chains[0].decode(payload)))):
            np.testing.assert_array_equal(x, y)


def test_chain_of_one_and_identity_are_neutral(update):
    codec = cast(jnp.bfloat16)
    _, alone = codec.encode((), update, None)
    for chained in (chain(codec), chain(identity(), codec), chain(codec, identity())):
        _, payload = chained.encode(chained.init(update), update, None)
        assert serialize(payload) == serialize(alone)
        assert chained.nbytes(payload) == codec.nbytes(alone)


def test_sizes_of_a_sparse_quantised_update(update):
    codec = chain(topk(0.1), affine(8))
    _, payload = jax.jit(codec.encode)(codec.init(update), update, None)
    # w: 30 of 300 values, 2-byte indices; b: 1 of 7, 1-byte; 5 bytes of grid each.
    assert codec.nbytes(payload) == (30 * (1 + 2) + 5) + (1 * (1 + 1) + 5)
    back = jax.device_get(jax.jit(codec.decode)(payload))
    kept = back["w"] != 0
    assert kept.sum() == 30
    span = np.ptp(np.append(update["w"][kept], 0))
    np.testing.assert_allclose(back["w"][kept], update["w"][kept], atol=span / 255 / 2 * 1.001)


def test_same_codec_twice_keeps_two_states():
    codec = chain(topk(k=2), topk(k=1))
    g = jnp.array([3.0, 2.0, 1.0])
    state, payload = codec.encode(codec.init(g), g, None)
    assert [s.tolist() for s in jax.tree.leaves(state)] == [[0.0, 0.0, 1.0], [0.0, 2.0]]
    assert codec.decode(payload).tolist() == [3.0, 0.0, 0.0]


def test_every_codec_has_a_key_of_its_own():
    x = np.linspace(0, 1, 50, dtype=np.float32)
    noisy = affine(4, stochastic=True)
    key = jax.random.key(0)
    codec = chain(identity(), noisy)
    _, payload = jax.jit(codec.encode)(codec.init(x), x, key)
    _, expected = jax.jit(noisy.encode)((), x, jax.random.split(key, 2)[1])
    assert serialize(payload) == serialize(expected)


def test_needs_a_codec():
    with pytest.raises(ValueError, match="at least one codec"):
        chain()
