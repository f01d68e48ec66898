import jax
import jax.numpy as jnp
import numpy as np

from eejax.protect import fltrust


def test_fltrust_equals_the_formula():
    rng = np.random.default_rng(0)
    g_0 = rng.normal(size=6)
    g = rng.normal(size=(8, 6)) + 0.3 * g_0
    scores = [max(0, gi @ g_0 / np.linalg.norm(gi) / np.linalg.norm(g_0)) for gi in g]
    expected = sum(
        s * np.linalg.norm(g_0) / np.linalg.norm(gi) * gi for s, gi in zip(scores, g)
    ) / sum(scores)
    assert min(scores) == 0  # Somebody is not trusted at all.
    rule = fltrust(lambda broadcast, key: broadcast)
    state = rule.prepare(rule.init(jnp.zeros(6)), jnp.asarray(g_0), None)
    _, upload = jax.jit(rule.aggregate)(state, jnp.asarray(g), jnp.ones(8))
    np.testing.assert_allclose(upload, expected, rtol=1e-5)


def test_root_update_is_made_anew_from_what_clients_receive():
    rule = fltrust(lambda broadcast, key: 2 * broadcast + jax.random.bits(key, (), jnp.uint8))
    first = rule.prepare(jnp.zeros(2), jnp.ones(2), jax.random.key(0))
    assert first.tolist() == rule.prepare(first, jnp.ones(2), jax.random.key(0)).tolist()
    assert first.tolist() != rule.prepare(first, jnp.ones(2), jax.random.key(1)).tolist()


def test_seven_of_ten_adversaries_are_withstood():
    x = np.random.default_rng(0).normal(1, 0.1, (10, 50)).astype(np.float32)
    x[:7] = -100
    rule = fltrust(lambda broadcast, key: broadcast)
    _, upload = jax.jit(rule.aggregate)(jnp.ones(50), x, jnp.ones(10))
    np.testing.assert_allclose(upload, np.ones(50), atol=0.2)


def test_a_root_update_or_uploads_of_zero_give_zero():
    rule = fltrust(lambda broadcast, key: broadcast)
    for g_0, g in ((jnp.zeros(2), jnp.ones((3, 2))), (jnp.ones(2), jnp.zeros((3, 2)))):
        assert rule.aggregate(g_0, g, jnp.ones(3))[1].tolist() == [0, 0]
