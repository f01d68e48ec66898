"""Clients that diverge: they are not heard, counted, and harm neither others nor themselves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import (
    drfa,
    fedadam,
    fedavg,
    flat,
    hierfavg,
    place,
    population,
    replicate,
    rows_of,
    sampled,
    samplers,
    scaffold,
)
from eejax.data import pack
from eejax.protect import sampling, user_level_dp
from eejax.tiers import three_tier, tier_mesh
from eejax.wire import topk

COUNTS = (5, 9, 1, 12, 7, 3, 8, 6)  # Of one sample, too.
N, SICK, KEY, ROUNDS = len(COUNTS), 3, jax.random.key(3), 3
PARTS = np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1])
DATA = np.random.default_rng(0).normal(size=(sum(COUNTS), 3)).astype(np.float32)


def grad_fn(w, batch, key):
    del key
    return w - batch.mean(0), {"loss": ((w[None] - batch) ** 2).mean()}


FEDAVG, SCAFFOLD = fedavg(grad_fn, optax.sgd(0.1)), scaffold(grad_fn, 0.1)


def poisoned(*clients, value=np.nan):
    """One sample of each of these clients is bad."""
    data = DATA.copy()
    for client in clients:
        data[PARTS[client][0], 1] = value
    return data


def run(engine, mesh, rows, data, rounds=ROUNDS):
    state = engine.init(jnp.zeros(3), rows)
    return jax.device_get(engine.run(state, rows, replicate(mesh, data), KEY, rounds=rounds))


def train(algorithm, data, devices=1, without=None, make=flat, **settings):
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    rows = rows_of(three_tier(N, 2), pack(PARTS))
    if without is not None:
        rows = rows._replace(counts=np.where(rows.ids == without, 0, rows.counts))
    # A whole epoch in a round, so the bad sample comes at once.
    settings = ({"steps": 4} if make is flat else {"k1": 4, "k2": 2}) | settings
    return run(make(algorithm, mesh, batch=3, **settings), mesh, place(mesh, rows), data)


@pytest.mark.parametrize(("clients", "devices"), [("scan", 1), ("vmap", 1), ("chunk:2", 8)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_goes_on_as_without_a_client_that_diverged(clients, devices, value):
    settings = {"devices": devices, "clients": clients, "codec": topk(0.5)}
    ours, metrics = train(FEDAVG, poisoned(SICK, value=value), **settings)
    theirs, their_metrics = train(FEDAVG, DATA, without=SICK, **settings)
    chex.assert_trees_all_equal(ours, theirs)  # It keeps its residual, too.
    assert metrics["rejected"].tolist() == [1] * ROUNDS
    assert their_metrics["rejected"].tolist() == [0] * ROUNDS
    np.testing.assert_array_equal(metrics["loss"], their_metrics["loss"])


def test_it_stays_of_the_population_and_keeps_its_control_variate():
    state, _ = train(SCAFFOLD, poisoned(SICK), devices=8)
    chex.assert_tree_all_finite(state)
    variates = state.clients.state.reshape(N, 3)
    assert np.any(variates, axis=1).tolist() == [i != SICK for i in range(N)]
    np.testing.assert_allclose(state.server.control, variates.mean(0), atol=1e-6)


def test_a_diverged_client_recovers_when_its_data_do():
    mesh = tier_mesh(2, 4, jax.devices()[:1])
    engine = flat(SCAFFOLD, mesh, steps=4, batch=3, codec=topk(0.5))
    rows = place(mesh, rows_of(three_tier(N, 2), pack(PARTS)))
    state = engine.init(jnp.zeros(3), rows)
    for data, rejected in ((poisoned(SICK), 1), (DATA, 0)):
        state, metrics = engine.run(state, rows, replicate(mesh, data), KEY)
        assert metrics["rejected"].tolist() == [rejected]
    chex.assert_tree_all_finite(jax.device_get(state))


def test_hierarchies_and_cohorts_reject_too():
    ours, metrics = train(FEDAVG, poisoned(SICK), devices=8, make=hierfavg)
    chex.assert_tree_all_finite(ours)
    assert metrics["rejected"].tolist() == [2] * ROUNDS  # In both rounds of its edge.

    mesh = tier_mesh(1, 1)
    rows = replicate(mesh, population(pack(PARTS)))
    engine = sampled(SCAFFOLD, mesh, samplers.uniform(N), steps=4, batch=3)
    state, metrics = run(engine, mesh, rows, poisoned(SICK, 5))
    chex.assert_tree_all_finite(state)
    assert metrics["rejected"].tolist() == [2] * ROUNDS
    engine = drfa(grad_fn, optax.sgd(0.1), mesh, size=6, steps=4, batch=3, lr=0.01)
    state, metrics = run(engine, mesh, rows, poisoned(SICK))
    chex.assert_tree_all_finite(state)
    assert metrics["rejected"].sum() > 0


@pytest.mark.parametrize("devices", [1, 8])
def test_when_all_diverge_nothing_changes(devices):
    algorithm = fedadam(grad_fn, optax.sgd(0.1), 0.1)
    state, metrics = train(algorithm, poisoned(*range(N)), devices=devices)
    chex.assert_trees_all_equal(state.server, jax.device_get(algorithm.init(jnp.zeros(3))))
    assert metrics["rejected"].tolist() == [N] * ROUNDS
    assert metrics["loss"].tolist() == [0] * ROUNDS


@pytest.mark.parametrize("make", [flat, hierfavg])
def test_who_wants_to_see_nan_gets_it(make):
    state, metrics = train(FEDAVG, poisoned(SICK), make=make, reject=False)
    assert np.isnan(state.server.params).any()
    assert metrics["rejected"].tolist() == [0] * ROUNDS


@pytest.mark.parametrize("engine", ["flat", "sampled"])
def test_rounds_that_nobody_comes_to_are_noised_and_counted(engine):
    """Else the model of such a round would tell that nobody came."""
    how = sampling("poisson", "add or remove one", clients=N, cohort=4)
    private = user_level_dp(
        fedavg(grad_fn, optax.sgd(0.1)), how, KEY, noise_multiplier=2.0, bound=0.5
    )
    mesh, size = tier_mesh(1, 1), 5000
    rows = population(pack(PARTS))
    data = np.ones((sum(COUNTS), size), np.float32)
    if engine == "flat":
        made = flat(private, mesh, steps=1, batch=1)
        rows = place(mesh, rows._replace(counts=np.zeros_like(rows.counts)))
    else:
        made = sampled(
            private, mesh, samplers.available(3, np.zeros((1, N), bool)), steps=1, batch=1
        )
        rows = replicate(mesh, rows)
    state = made.init(jnp.zeros(size), rows)
    state, _ = made.run(state, rows, replicate(mesh, data), KEY, rounds=4)
    assert int(state.server.spent.rounds) == 4
    assert np.std(state.server.params) == pytest.approx(2.0 * 0.5 / 4 * 2, rel=0.05)
    with pytest.raises(ValueError, match=r"acts in every round.* needs a single server"):
        hierfavg(private, mesh, k1=1, k2=1, batch=1)
