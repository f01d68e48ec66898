import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.cotrain.federated import fedavg, sampled, samplers
from eejax.cotrain.federated.cohort import population
from eejax.cotrain.federated.rows import replicate
from eejax.data import pack
from eejax.protect import AdaptiveClip, clip, sampling, user_level_dp
from eejax.tiers import tier_mesh
from eejax.wire import affine, chain

HOW = sampling("poisson", "add or remove one", clients=40, cohort=10)


def grad_fn(w, batch, key):
    """Of |w - x|^2 / 2: one step of rate 1 uploads x - w."""
    del key
    g = w - batch.mean(0)
    return g, {"loss": (g**2).sum() / 2}


PLAIN = fedavg(grad_fn, optax.sgd(1.0))


def private(noise_multiplier=1.0, bound=1.0, key=0, how=HOW):
    return user_level_dp(
        PLAIN, how, jax.random.key(key), noise_multiplier=noise_multiplier, bound=bound
    )


def test_uploads_are_clipped_as_a_whole_and_said_to_be():
    algorithm = private(bound=1.0)
    state = algorithm.init(jnp.zeros(2))
    for x, sent, clipped in (([3.0, 4.0], [0.6, 0.8], 1), ([0.3, 0.4], [0.3, 0.4], 0)):
        batches = jnp.array([[x]])
        upload, _, metrics = algorithm.local_update(algorithm.broadcast(state), (), batches, None)
        np.testing.assert_allclose(upload, sent, rtol=1e-6)
        assert metrics["clipped"] == clipped
    batches = jnp.array([[[jnp.nan, 1.0]]])
    upload, _, metrics = algorithm.local_update(algorithm.broadcast(state), (), batches, None)
    assert upload.tolist() == [0, 0]
    assert metrics["clipped"] == 1


def test_the_server_divides_by_the_expected_cohort():
    """The engine's mean is the sum over all 40; one upload of 1 moves the model by 1 / 10."""
    algorithm = private(noise_multiplier=0.0)
    state = algorithm.server_update(algorithm.init(jnp.zeros(2)), jnp.array([1.0, 0.0]) / 40)
    np.testing.assert_allclose(state.params, [0.1, 0.0], rtol=1e-6)


def test_noise_is_sigma_times_bound_over_cohort_anew_each_round_and_replays():
    algorithm = private(noise_multiplier=2.0, bound=0.5)
    first = algorithm.server_update(algorithm.init(jnp.zeros(20_000)), jnp.zeros(20_000))
    second = algorithm.server_update(first, jnp.zeros(20_000))
    noise = np.asarray(first.params), np.asarray(second.params - first.params)
    assert np.std(noise[0]) == pytest.approx(2.0 * 0.5 / 10, rel=0.02)
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.03
    again = algorithm.server_update(first, jnp.zeros(20_000))
    assert trees.sha256(again) == trees.sha256(second)
    assert [int(s.spent.rounds) for s in (first, second)] == [1, 2]


def test_a_resumed_run_goes_on_counting_with_its_own_noise(tmp_path):
    state = private(noise_multiplier=2.0).init(jnp.zeros(5))
    for _ in range(3):
        state = private(noise_multiplier=2.0).server_update(state, jnp.ones(5))
    leaves, structure = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as read:
        read = structure.unflatten([jnp.asarray(x) for x in read.values()])
    on = private(noise_multiplier=2.0).server_update(state, jnp.ones(5))
    other = private(noise_multiplier=9.0).server_update(read, jnp.ones(5))
    assert trees.sha256(on) == trees.sha256(other)
    assert float(other.spent.noise_multiplier) == 2
    assert int(other.spent.rounds) == 4


def test_adaptive_bound_takes_the_step_of_the_paper():
    rule = AdaptiveClip(quantile=0.5, learning_rate=0.2, initial=1.0, bit_noise=1e-6)
    algorithm = private(0.0, rule)
    state = algorithm.init(jnp.zeros(1))
    uploads = [
        algorithm.local_update(algorithm.broadcast(state), (), jnp.array([[[x]]]), None)[0]
        for x in (0.2, 0.4, 0.9, 7.0)
    ]
    assert [float(bit) for _, bit in uploads] == [0.5, 0.5, 0.5, -0.5]
    mean = jax.tree.map(lambda *x: sum(x) / 40, *uploads)
    # Ten are expected: the other six count as half uncut; (3 + 3) / 10 = 0.6 uncut.
    after = algorithm.server_update(state, mean)
    assert float(after.bound) == pytest.approx(np.exp(-0.2 * (0.6 - 0.5)), rel=1e-5)
    np.testing.assert_allclose(after.params, [(0.2 + 0.4 + 0.9 + 1.0) / 10], rtol=1e-5)


def test_adaptive_bound_finds_the_quantile():
    rule = AdaptiveClip(quantile=0.75, learning_rate=0.3, initial=0.05, bit_noise=1.0)
    how = sampling("poisson", "add or remove one", clients=64, cohort=64)
    algorithm = private(0.5, rule, how=how)
    lengths = jnp.arange(1, 65) / 64

    @jax.jit
    def round_(state):
        state = state._replace(inner=state.inner._replace(params=jnp.zeros(1)))
        sent = algorithm.broadcast(state)
        uploads = jax.vmap(lambda x: algorithm.local_update(sent, (), x.reshape(1, 1, 1), None)[0])(
            lengths
        )
        return algorithm.server_update(state, jax.tree.map(lambda x: x.mean(0), uploads))

    state = algorithm.init(jnp.zeros(1))
    for _ in range(60):
        state = round_(state)
    assert float(state.bound) == pytest.approx(0.75, abs=0.08)


def test_mean_and_count_together_spend_the_noise_multiplier():
    sigma, bit = 1.5, 2.0
    algorithm = private(sigma, AdaptiveClip(initial=1.0, bit_noise=bit))
    start = algorithm.init(jnp.zeros(20_000))
    state = algorithm.server_update(start, (jnp.zeros(20_000), jnp.float32(0)))
    of_mean = np.std(state.params) * 10
    assert of_mean**-2 + (2 * bit) ** -2 == pytest.approx(sigma**-2, rel=0.03)
    with pytest.raises(ValueError, match="bit_noise must be above noise_multiplier / 2"):
        private(4.0, AdaptiveClip(bit_noise=2.0))


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_trains_with_a_poisson_cohort_and_a_lossy_codec(adaptive):
    n = 40
    data = 3 + np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    rows = population(pack([[i] for i in range(n)]))
    mesh = tier_mesh(1, 1)
    bound = AdaptiveClip(initial=1.0, bit_noise=1.0) if adaptive else 1.0
    algorithm = private(0.5, bound)
    engine = sampled(
        algorithm,
        mesh,
        samplers.poisson(HOW.rate),
        steps=1,
        batch=1,
        codec=None if adaptive else chain(clip(1.0), affine(8)),
    )
    rows = replicate(mesh, rows)
    state = engine.init(jnp.zeros(4), rows)
    state, metrics = engine.run(state, rows, jnp.asarray(data), jax.random.key(1), rounds=30)
    assert int(state.server.spent.rounds) == 30
    np.testing.assert_allclose(state.server.params, data.mean(0), atol=1.0)
    assert metrics["clipped"][0] == 1


def test_bad_arguments_are_refused():
    for noise in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="noise_multiplier must be at least 0"):
            private(noise)
    with pytest.raises(ValueError, match="bound must be above 0"):
        private(bound=0.0)
    whole = PLAIN._replace(local_update=lambda *_: (jnp.int32(1), (), {}))
    algorithm = user_level_dp(whole, HOW, jax.random.key(0), noise_multiplier=1.0, bound=1.0)
    with pytest.raises(ValueError, match="floating leaves, got int32"):
        algorithm.local_update(jnp.zeros(2), (), jnp.ones((1, 1, 2)), None)
