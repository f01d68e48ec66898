"""The secure mean: the arithmetic of masks, the same sum as the protocol, and what it loses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import mean, secure_mean, secure_sum
from eejax.protect.secure_mean import masked, masked_sum

KEY = jax.random.key(3)
SUM = jax.jit(masked_sum)


def uploads_of(clients, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": rng.uniform(-0.9, 0.9, (clients, 3, 4)).astype(np.float32),
        "b": rng.uniform(-0.9, 0.9, (clients,)).astype(np.float32),
    }


def of_round(aggregator, uploads, weights, key=KEY):
    state = aggregator.init(jax.tree.map(lambda x: x[0], uploads))
    state = aggregator.prepare(state, None, key)
    return jax.jit(aggregator.aggregate)(state, uploads, jnp.asarray(weights, jnp.float32))[1]


@pytest.mark.parametrize("sent", [[1] * 5, [1, 0, 1, 1, 1], [0, 1, 0, 1, 1]])
def test_the_sum_is_that_of_the_protocol(sent):
    codes = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 7)).astype(np.int32)
    sent = np.array(sent, bool)
    whole, _ = secure_sum(codes, threshold=3, seed=1, sent=sent)
    np.testing.assert_array_equal(SUM(codes, np.ones(5, bool), sent, KEY), whole)
    np.testing.assert_array_equal(SUM(codes, sent, sent, KEY), whole)  # Places without anybody.


def test_what_a_client_sends_looks_random_and_only_its_masks_explain_it():
    codes, everyone = np.zeros((4, 20_000), np.int32), np.ones(4, bool)
    y = np.asarray(masked(codes, everyone, KEY))
    for row in y:
        assert np.mean(row / 2**32) == pytest.approx(0.5, abs=0.02)
        assert np.std(row / 2**32) == pytest.approx(12**-0.5, abs=0.02)
    alone = np.asarray(masked(codes, everyone & (np.arange(4) == 1), KEY))
    assert (alone[1] != y[1]).mean() > 0.99
    assert not alone[[0, 2, 3]].any()
    later = np.asarray(masked(codes, everyone, jax.random.fold_in(KEY, 1)))
    assert (later != y).mean() > 0.99
    own = sum(np.asarray(masked(codes, np.arange(4) == u, KEY))[u] for u in range(4))
    np.testing.assert_array_equal(y.sum(0, dtype=np.uint32), own)  # Those of pairs cancel.


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [30, 10, 0, 2], [0, 0, 0, 5]])
def test_it_is_the_mean_up_to_rounding(weights):
    uploads = uploads_of(4)
    plain = of_round(mean(), uploads, weights)
    secure = of_round(secure_mean(4), uploads, weights)
    for a, b in zip(jax.tree.leaves(secure), jax.tree.leaves(plain), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_masks_of_another_key_change_nothing():
    uploads = uploads_of(4)
    a, b = (of_round(secure_mean(4), uploads, [1, 2, 3, 0], jax.random.key(k)) for k in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_is_beyond_the_limit_is_cut():
    upload = of_round(secure_mean(2, limit=0.5), jnp.array([[2.0], [0.25]]), [1, 1])
    assert float(upload[0]) == pytest.approx((0.5 + 0.25) / 2, abs=1e-6)


def test_who_is_nan_does_not_send():
    upload = of_round(secure_mean(3), jnp.array([[0.5], [jnp.nan], [0.25]]), [1, 9, 1])
    assert float(upload[0]) == pytest.approx(0.375, abs=1e-6)


def test_too_few_lose_the_round():
    uploads = jnp.full((4, 1), 0.5)
    assert float(of_round(secure_mean(4, least=3), uploads, [1, 1, 1, 0])[0]) == pytest.approx(0.5)
    assert float(of_round(secure_mean(4, least=3), uploads, [1, 1, 0, 0])[0]) == 0
    assert float(of_round(secure_mean(4), uploads, [0, 0, 0, 0])[0]) == 0


def test_refusals():
    with pytest.raises(ValueError, match=r"least must be in \[1, clients = 3\], got 4"):
        secure_mean(3, least=4)
    with pytest.raises(ValueError, match="empty must be one of dropped, nobody, got 'gone'"):
        secure_mean(3, empty="gone")
    with pytest.raises(ValueError, match="limit must be above 0"):
        secure_mean(3, limit=0)
    with pytest.raises(ValueError, match="made for 3 clients"):
        of_round(secure_mean(3), jnp.ones((2, 1)), [1, 1])
