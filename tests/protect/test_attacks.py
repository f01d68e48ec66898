import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import attacks, krum, median, norm_bound

N, F = 11, 2
ATTACKERS = jnp.arange(N) < F
ATTACKS = {
    "sign_flip": attacks.sign_flip(3.0),
    "gaussian": attacks.gaussian(10.0),
    "a_little_is_enough": attacks.a_little_is_enough(N, F),
    "inner_product": attacks.inner_product(0.5),
}


def honest():
    x = np.random.default_rng(0).normal(1, 0.5, (N, 2, 200)).astype(np.float32)
    return {"a": jnp.asarray(x[:, 0]), "b": jnp.asarray(x[:, 1])}


@pytest.mark.parametrize("name", ATTACKS)
def test_only_attackers_change_and_it_is_pure(name):
    uploads = honest()
    attack = jax.jit(ATTACKS[name])
    bad = attack(uploads, jnp.ones(N), ATTACKERS, jax.random.key(0))
    again = attack(uploads, jnp.ones(N), ATTACKERS, jax.random.key(0))
    for x, y, z in zip(*map(jax.tree.leaves, (uploads, bad, again))):
        np.testing.assert_array_equal(x[F:], y[F:])
        np.testing.assert_array_equal(y, z)
        assert (x[:F] != y[:F]).all()


@pytest.mark.parametrize("name", ["a_little_is_enough", "inner_product"])
def test_those_who_collude_send_the_same_and_do_not_look_at_the_absent(name):
    uploads, weights = honest(), jnp.arange(N) < N - 2
    bad = ATTACKS[name](uploads, weights, ATTACKERS, None)
    np.testing.assert_array_equal(bad["a"][0], bad["a"][1])
    here = np.asarray(uploads["a"][F : N - 2])
    expected = {
        # s = 6 - 2 = 4 of 9: the normal quantile of 5/9.
        "a_little_is_enough": here.mean(0) - 0.1397103 * here.std(0),
        "inner_product": -0.5 * here.mean(0),
    }
    np.testing.assert_allclose(bad["a"][0], expected[name], rtol=2e-4, atol=1e-5)


def test_label_flip():
    labels = jnp.array([[0, 1, 2], [0, 1, 2]])
    assert attacks.label_flip(labels, jnp.array([False, True]), 3).tolist() == [
        [0, 1, 2],
        [2, 1, 0],
    ]


def test_a_little_is_enough_gets_past_krum_and_far_ones_do_not():
    uploads, weights = honest(), jnp.ones(N)
    rule = krum(N, F)
    chosen = {}
    for name in ("a_little_is_enough", "sign_flip"):
        bad = ATTACKS[name](uploads, weights, ATTACKERS, None)
        _, upload = jax.jit(rule.aggregate)((), bad, weights)
        chosen[name] = bool((upload["a"] == bad["a"][0]).all())
    assert chosen == {"a_little_is_enough": True, "sign_flip": False}


def test_small_norm_passes_the_norm_bound_and_the_median_holds():
    """Five of eleven that pull back: the bound cuts nobody, the median loses half of the step."""
    uploads, weights, five = honest(), jnp.ones(N), jnp.arange(N) < 5
    bad = attacks.inner_product(0.5)(uploads, weights, five, None)
    norm = np.linalg.norm(np.concatenate([bad["a"], bad["b"]], 1), axis=1)
    assert norm[:5].max() < norm[5:].min()
    _, bounded = norm_bound(float(norm.max())).aggregate((), bad, weights)
    np.testing.assert_allclose(bounded["a"].mean(), (6 - 2.5) / 11, atol=0.03)
    assert median(N, 5).aggregate((), bad, weights)[1]["a"].mean() > 0.35


@pytest.mark.parametrize(("n", "f"), [(10, 0), (10, 5)])
def test_a_little_is_enough_needs_a_minority(n, f):
    with pytest.raises(ValueError, match="f must be in"):
        attacks.a_little_is_enough(n, f)
