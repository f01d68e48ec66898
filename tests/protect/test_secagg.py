import jax
import numpy as np
import pytest

from eejax.protect import fixed_point, secagg_nbytes, secure_sum
from eejax.protect.secagg import _keys, mask, prg


def make_codes(n, seed=0):
    rng = np.random.default_rng(seed)
    most = 2**31 - 1
    return {
        "w": rng.integers(-most, most, (n, 3, 4), dtype=np.int32),
        "b": rng.integers(-9, 9, (n,), dtype=np.int32),
    }


def plain_sum(codes, who):
    return jax.tree.map(
        lambda x: x[who].astype(np.int64).sum(0).astype(np.uint64).astype(np.uint32).view(np.int32),
        codes,
    )


DROPOUTS = {
    "none": ([1] * 6, [1] * 6),
    "one before sending": ([1, 1, 0, 1, 1, 1], None),
    "two before sending": ([0, 1, 1, 1, 1, 0], None),
    "one after sending": ([1] * 6, [1, 0, 1, 1, 1, 1]),
    "both": ([1, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1]),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_the_sum_is_exact_modulo_2_to_the_32(name):
    sent, answered = DROPOUTS[name]
    codes = make_codes(6)
    total, _ = secure_sum(codes, threshold=4, seed=1, sent=sent, answered=answered)
    expected = plain_sum(codes, np.array(sent, bool))
    assert jax.tree.structure(total) == jax.tree.structure(codes)
    for x, y in zip(jax.tree.leaves(total), jax.tree.leaves(expected)):
        assert x.dtype == np.int32
        np.testing.assert_array_equal(x, y)


def test_what_a_client_sends_looks_random_and_only_its_masks_explain_it():
    rng = np.random.default_rng(0)
    keys = [_keys(lambda most: int.from_bytes(rng.bytes(40), "big") % most) for _ in range(3)]
    public = [k.public for k in keys]
    d = 50_000
    masked = [mask(np.zeros(d, np.int32), u, keys[u], public) for u in range(3)]
    for y in masked:
        # Uniform on [0, 2^32): mean 1/2 and deviation 1 / sqrt(12) of the range.
        assert np.mean(y / 2**32) == pytest.approx(0.5, abs=0.01)
        assert np.std(y / 2**32) == pytest.approx(12**-0.5, abs=0.01)
    # Pair masks cancel in the sum, own ones stay; without one client nothing cancels.
    own = sum(prg(k.seed, d) for k in keys)
    np.testing.assert_array_equal(sum(masked), own)
    assert (masked[0] + masked[1] != prg(keys[0].seed, d) + prg(keys[1].seed, d)).mean() > 0.99


def test_the_sum_of_fixed_point_uploads_is_the_mean_that_training_sees():
    n, codec = 8, fixed_point(1.0, clients=8)
    uploads = np.random.default_rng(0).normal(0, 0.2, (n, 40)).astype(np.float32)
    payload = jax.jit(jax.vmap(lambda x: codec.encode((), x, None)[1]))(uploads)
    total, _ = secure_sum(payload.codes, threshold=5, seed=3)
    one_by_one = np.asarray(codec.decode(payload), np.float64).sum(0)
    np.testing.assert_allclose(total / 2**22, one_by_one, atol=1e-6)
    np.testing.assert_allclose(total / 2**22 / n, uploads.mean(0), atol=2**-23 * 1.01)


def test_too_few_survivors_are_an_error():
    codes = make_codes(6)
    secure_sum(codes, threshold=4, seed=0, sent=[1, 1, 1, 1, 0, 0])
    with pytest.raises(ValueError, match="3 of 6 clients answered, fewer than the threshold of 4"):
        secure_sum(codes, threshold=4, seed=0, sent=[1, 1, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="3 of 6 clients answered"):
        secure_sum(codes, threshold=4, seed=0, answered=[1, 1, 1, 0, 0, 0])


def test_bytes_are_those_of_the_paper():
    """Its cost of a client: 2 n keys, 5 n - 4 shares, and the vector."""
    for n, d in ((2, 1), (100, 10_000)):
        up, down = secagg_nbytes(n, d)
        assert up + down == 32 * 2 * n + 32 * (5 * n - 4) + 4 * d


def test_bytes_of_those_who_drop_out():
    _, traffic = secure_sum(
        make_codes(4), threshold=3, seed=0, sent=[1, 1, 1, 1], answered=[1, 1, 1, 0]
    )
    up, down = secagg_nbytes(4, 13)
    assert traffic.up.tolist() == [up] * 3 + [up - 4 * 32]
    assert traffic.down.tolist() == [down] * 4


def test_wrong_arguments_are_refused():
    for threshold in (2, 5):
        with pytest.raises(ValueError, match=r"threshold must be in \[3, 4\]"):
            secure_sum(make_codes(4), threshold=threshold, seed=0)
    with pytest.raises(ValueError, match="codes must be int32, got float32"):
        secure_sum(np.ones((3, 2), np.float32), threshold=2, seed=0)
