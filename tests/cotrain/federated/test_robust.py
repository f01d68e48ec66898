"""Robust aggregation and attacks inside the engines: equal to a plain loop over rounds."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import protect
from eejax.cotrain.federated import (
    Adversaries,
    fedavg,
    fednova,
    flat,
    place,
    population,
    replicate,
    rows_of,
    sampled,
    samplers,
    scaffold,
)
from eejax.data import client_batches, pack
from eejax.protect import attacks, sampling, user_level_dp
from eejax.tiers import three_tier, tier_mesh
from eejax.wire import topk

COUNTS = (5, 9, 2, 12, 7, 3, 8, 6)
N, LR, BATCH, STEPS, ROUNDS, KEY = len(COUNTS), 0.1, 4, 2, 3, jax.random.key(3)
INDEX = pack(np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1]))
ATTACKERS = np.arange(N) == 3


def grad_fn(w, batch, key):
    del key
    error = batch["x"] @ w - batch["y"]
    return batch["x"].T @ error / len(error), {"loss": (error**2).mean() / 2}


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sum(COUNTS), 3)).astype(np.float32)
    return {"x": x, "y": rng.normal(size=sum(COUNTS)).astype(np.float32)}


def root(w, key):
    """The server's own update: noise tells that it has a key of its own every round."""
    return -0.1 * w + 0.1 + 0.01 * jax.random.normal(key, w.shape)


FEDAVG = fedavg(grad_fn, optax.sgd(LR))
AGGREGATORS = {
    "mean": protect.mean(),
    "krum": protect.krum(N, 1),
    "median": protect.median(N, 1),
    "trimmed_mean": protect.trimmed_mean(N, 1),
    "fltrust": protect.fltrust(root),
}
ATTACKS = {
    "sign_flip": attacks.sign_flip(5.0),
    "gaussian": attacks.gaussian(3.0),
    "inner_product": attacks.inner_product(0.5),
}
host_batches = jax.jit(client_batches, static_argnums=(4, 5))


@functools.cache
def loop(aggregator, attack, cohorts=None):
    """Every client of every round, one after the other, and the rule on the host."""
    data, w, rule = make_data(), np.zeros(3, np.float32), AGGREGATORS[aggregator]
    kept = rule.init(jnp.zeros(3))
    for round_ in range(ROUNDS):
        start = round_ * STEPS
        cohort = range(N) if cohorts is None else cohorts[round_]
        uploads = []
        for i in cohort:
            key = jax.random.split(jax.random.fold_in(KEY, i), 3)[0]
            y = w
            for picked in np.asarray(
                host_batches(key, INDEX.table[i], COUNTS[i], start, STEPS, BATCH)
            ):
                y = y - LR * grad_fn(y, {n: a[picked] for n, a in data.items()}, None)[0]
            uploads.append(y - w)
        uploads = jnp.asarray(np.stack(uploads), jnp.float32)
        weights = jnp.asarray([COUNTS[i] for i in cohort], jnp.float32)
        round_key = jax.random.fold_in(jax.random.fold_in(KEY, 2**31 - 2), start)
        attack_key, prepare_key = jax.random.split(round_key)
        if attack:
            who = jnp.asarray(ATTACKERS[list(cohort)])
            uploads = ATTACKS[attack](uploads, weights, who, attack_key)
        kept = rule.prepare(kept, jnp.asarray(w), prepare_key)
        kept, upload = rule.aggregate(kept, uploads, weights)
        w = np.asarray(w + upload)
    return w


@functools.cache
def mesh_of(devices):
    return tier_mesh(2, 4, jax.devices()[:devices])


def train(algorithm, devices, rounds=ROUNDS, calls=1, data=None, **settings):
    mesh = mesh_of(devices)
    engine = flat(algorithm, mesh, steps=STEPS, batch=BATCH, **settings)
    rows = place(mesh, rows_of(three_tier(N, 2), INDEX))
    data = replicate(mesh, make_data() if data is None else data)
    state = engine.init(jnp.zeros(3), rows)
    for _ in range(calls):
        state, metrics = engine.run(state, rows, data, KEY, rounds=rounds // calls)
    return jax.device_get(state), jax.device_get(metrics)


CASES = [(name, "sign_flip", 1) for name in AGGREGATORS] + [
    ("krum", None, 8), ("median", "gaussian", 8), ("fltrust", "inner_product", 8),
]  # fmt: skip


@pytest.mark.parametrize(("aggregator", "attack", "devices"), CASES)
def test_flat_equals_its_loop(aggregator, attack, devices):
    adversaries = Adversaries(ATTACKS[attack], ATTACKERS) if attack else None
    state, _ = train(FEDAVG, devices, aggregator=AGGREGATORS[aggregator], attack=adversaries)
    expected = loop(aggregator, attack)
    chex.assert_trees_all_close(state.server.params, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - loop("mean", None)).max() > 1e-3 or not attack


@pytest.mark.parametrize("devices", [1, 8])
def test_a_cohort_equals_its_loop(devices):
    """Six of eight clients, which eight devices do not divide."""
    sampler, mesh = samplers.uniform(6), mesh_of(devices)
    engine = sampled(
        FEDAVG, mesh, sampler, steps=STEPS, batch=BATCH, aggregator=protect.krum(6, 1),
        attack=Adversaries(ATTACKS["sign_flip"], ATTACKERS),
    )  # fmt: skip
    rows, data = replicate(mesh, (population(INDEX), make_data()))
    state, _ = engine.run(engine.init(jnp.zeros(3), rows), rows, data, KEY, rounds=ROUNDS)
    cohorts = []
    for round_ in range(ROUNDS):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 2**31 - 1), round_ * STEPS)
        cohorts.append(tuple(sampler(key, 0, jnp.array(COUNTS)).clients.tolist()))
    AGGREGATORS["krum_of_6"] = protect.krum(6, 1)
    expected = loop("krum_of_6", "sign_flip", tuple(cohorts))
    chex.assert_trees_all_close(jax.device_get(state.server.params), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algorithm", [fednova(grad_fn, LR), scaffold(grad_fn, LR)])
def test_the_mean_as_an_aggregator_is_the_mean_of_the_engine(algorithm):
    """Also where parts are divided by the population, and a client sends NaN."""
    data = make_data()
    data["x"][INDEX.table[2, :2]] = np.nan
    ours, theirs = (
        train(algorithm, 1, data=data, aggregator=rule, codec=topk(0.5))
        for rule in (protect.mean(), None)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours[1]["rejected"].tolist() == [1] * ROUNDS


def test_a_run_may_be_cut_and_its_aggregator_is_kept():
    settings = {"aggregator": AGGREGATORS["fltrust"], "codec": topk(0.5)}
    whole, _ = train(FEDAVG, 1, **settings)
    cut, _ = train(FEDAVG, 1, calls=ROUNDS, **settings)
    chex.assert_trees_all_equal(whole, cut)
    assert np.abs(whole.aggregator).max() > 0.01


def test_one_attacker_ruins_the_mean_and_not_the_median():
    clean, _ = train(FEDAVG, 1, rounds=30)
    far = {}
    for name in ("mean", "median"):
        state, _ = train(
            FEDAVG, 1, rounds=30, aggregator=AGGREGATORS[name],
            attack=Adversaries(attacks.sign_flip(20.0), ATTACKERS),
        )  # fmt: skip
        far[name] = np.abs(state.server.params - clean.server.params).max()
    assert far["median"] < 0.5 < 2 * far["median"] + 0.5 < far["mean"]


def test_what_cannot_work_is_refused():
    how = sampling("poisson", "add or remove one", clients=N, cohort=4)
    private = user_level_dp(FEDAVG, how, KEY, noise_multiplier=1.0, bound=1.0)
    mixed = scaffold(grad_fn, LR)
    mixed = mixed._replace(weighting=type(mixed.weighting)("samples", "population"))
    for algorithm, message in ((private, "made for a mean"), (mixed, "population, samples")):
        with pytest.raises(ValueError, match=message):
            flat(algorithm, mesh_of(1), steps=1, batch=1, aggregator=AGGREGATORS["krum"])
