"""Sampled cohorts: they equal a plain loop, and flat training when everybody is in them."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import (
    Epochs,
    fedavg,
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
from eejax.tiers import three_tier, tier_mesh
from eejax.wire import topk

COUNTS = (5, 9, 2, 12, 7, 3, 8, 6)
LR, BATCH, ROUNDS, KEY = 0.1, 4, 4, jax.random.key(3)
INDEX = pack(np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1]))


def grad_fn(w, batch, key):
    del key
    error = batch["x"] @ w - batch["y"]
    return batch["x"].T @ error / len(error), {"loss": (error**2).mean() / 2}


FEDAVG, SCAFFOLD = fedavg(grad_fn, optax.sgd(LR)), scaffold(grad_fn, LR, 0.9)


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sum(COUNTS), 3)).astype(np.float32)
    return {"x": x, "y": rng.normal(size=sum(COUNTS)).astype(np.float32)}


def train(engine, mesh, rounds=ROUNDS, calls=1, index=INDEX):
    rows, data = replicate(mesh, (population(index), make_data()))
    state = engine.init(jnp.zeros(3), rows)
    for _ in range(calls):
        state, metrics = engine.run(state, rows, data, KEY, rounds=rounds // calls)
    return jax.device_get(state), metrics


def cohorts(sampler, rounds, steps):
    """Who trains in each round, drawn on the host with the keys that the engine uses."""
    size = steps.epochs if isinstance(steps, Epochs) else steps
    for round_ in range(rounds):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 2**31 - 1), round_ * size)
        clients, present = sampler(key, jnp.array(round_), jnp.array(COUNTS))
        yield round_ * size, [int(c) for c in clients[present]]


def scaffold_loop(sampler, steps):
    """Karimireddy et al., Algorithm 1, with a cohort S of N clients."""
    data, x, c, c_i = make_data(), np.zeros(3), np.zeros(3), np.zeros((8, 3))
    for start, cohort in cohorts(sampler, ROUNDS, steps):
        dy, dc = [], []
        for i in cohort:
            begin, k = start, steps
            if isinstance(steps, Epochs):
                epoch = -(-COUNTS[i] // BATCH)
                begin, k = start * epoch, steps.epochs * epoch
            key = jax.random.split(jax.random.fold_in(KEY, i), 3)[0]
            y = x
            for picked in np.asarray(host_batches(key, INDEX.table[i], COUNTS[i], begin, k, BATCH)):
                batch = {name: a[picked] for name, a in data.items()}
                y = y - LR * (grad_fn(y, batch, None)[0] - c_i[i] + c)
            new = c_i[i] - c + (x - y) / (k * LR)
            dy.append(y - x)
            dc.append(new - c_i[i])
            c_i[i] = new
        if cohort:
            x, c = x + 0.9 * np.mean(dy, 0), c + np.sum(dc, 0) / 8
    return np.float32(x), np.float32(c), np.float32(c_i)


host_batches = jax.jit(client_batches, static_argnums=(4, 5))
TRACE = ((True, False) * 4, (False,) * 8, (True,) * 8)
SAMPLERS = {
    "uniform": samplers.uniform(3),
    "weighted": samplers.weighted(3),
    "available": samplers.available(5, TRACE),
    "poisson": samplers.poisson(0.4),
}


@functools.cache
def mesh_of(devices):
    return tier_mesh(2, 4, jax.devices()[:devices])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("devices", "clients", "steps"), [(1, "scan", Epochs(2)), (8, "vmap", 3)])
def test_scaffold_equals_its_loop(sampler, devices, clients, steps):
    """States of those who are not in a cohort stay, c counts all clients; 8 devices, 3 clients."""
    sampler = SAMPLERS[sampler]
    engine = sampled(SCAFFOLD, mesh_of(devices), sampler, steps=steps, batch=BATCH, clients=clients)
    state, _ = train(engine, mesh_of(devices))
    x, c, c_i = scaffold_loop(sampler, steps)
    chex.assert_trees_all_close(
        (*state.server, state.clients.state[0]), (x, c, c_i), rtol=1e-5, atol=1e-5
    )
    assert np.abs(c).max() > 0.01


@pytest.mark.parametrize("algorithm", [FEDAVG, SCAFFOLD])
def test_everybody_in_the_cohort_is_flat(algorithm):
    rows = rows_of(three_tier(8, 2), INDEX)
    mesh = mesh_of(1)
    settings = {"steps": Epochs(2), "batch": BATCH}
    engine = flat(algorithm, mesh, **settings)
    state = engine.init(jnp.zeros(3), place(mesh, rows))
    data = replicate(mesh, make_data())
    state, metrics = engine.run(state, place(mesh, rows), data, KEY, rounds=ROUNDS)
    ours, our_metrics = train(sampled(algorithm, mesh, samplers.uniform(8), **settings), mesh)
    chex.assert_trees_all_close(ours.server, jax.device_get(state.server), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(our_metrics, metrics, rtol=1e-5)


def test_a_run_may_be_cut_and_compiles_once():
    engine = sampled(SCAFFOLD, mesh_of(8), SAMPLERS["poisson"], steps=2, batch=BATCH,
                     codec=topk(0.5))  # fmt: skip
    whole, _ = train(engine, mesh_of(8))
    cut, _ = train(engine, mesh_of(8), calls=ROUNDS)
    assert engine.run._cache_size() == 2  # Four rounds a call and one.
    chex.assert_trees_all_equal(whole, cut)
    assert whole.clients.codec.params.shape == (1, 8, 3)


def test_an_empty_cohort_changes_nothing():
    nobody = samplers.available(3, np.zeros((1, 8), bool))
    state, metrics = train(sampled(SCAFFOLD, mesh_of(1), nobody, steps=2, batch=BATCH), mesh_of(1))
    assert not any(np.any(x) for x in jax.tree.leaves((state.server, state.clients, metrics)))
    assert state.steps == 2 * ROUNDS


def test_a_client_without_samples_is_not_of_the_population():
    """N is 8, and stays 8 beside a ninth that has nothing."""
    ninth = pack([*np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1]), []])
    everybody = [samplers.uniform(n) for n in (8, 9)]
    without, with_ninth = (
        train(sampled(SCAFFOLD, mesh_of(1), s, steps=2, batch=BATCH), mesh_of(1), index=index)[0]
        for s, index in zip(everybody, (INDEX, ninth))
    )
    chex.assert_trees_all_close(without.server, with_ninth.server, rtol=1e-5, atol=1e-6)


def test_a_round_touches_its_cohort_only():
    """In the loop over rounds, arrays as large as the population are changed in place only."""
    mesh, clients = mesh_of(1), 1000
    rows, data = replicate(mesh, (population(pack([np.arange(4)] * clients)), make_data()))
    engine = sampled(SCAFFOLD, mesh, samplers.uniform(4), steps=2, batch=BATCH)
    state = engine.init(jnp.zeros(3), rows)
    program = engine.run.lower(state, rows, data, KEY, rounds=2).compile()
    entry = program.as_text().index("ENTRY")
    inside = [line for line in program.as_text()[:entry].splitlines() if f"[1,{clients}," in line]
    assert inside
    assert not [line for line in inside if re.search(r"= \S+ (copy|select|sort)\(", line)]
