"""DRFA: its pseudo-code as a loop, the simplex, and who gains by it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import drfa, fedavg, population, replicate, sampled, samplers
from eejax.cotrain.federated.drfa import project_simplex
from eejax.data import client_batches, pack
from eejax.tiers import tier_mesh

COUNTS, SIZE, STEPS, BATCH, LR, GAMMA = (5, 9, 2, 12, 7, 3), 3, 3, 4, 0.1, 0.02
KEY = jax.random.key(2)
INDEX = pack(np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1]))
host_batches = jax.jit(client_batches, static_argnums=(4, 5))


def grad_fn(w, batch, key):
    del key
    error = batch["x"] @ w - batch["y"]
    return batch["x"].T @ error / len(error), {"loss": (error**2).mean() / 2}


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sum(COUNTS), 3)).astype(np.float32)
    return {"x": x, "y": rng.normal(size=sum(COUNTS)).astype(np.float32)}


def batches_of(key, client, start, steps):
    picked = host_batches(key, INDEX.table[client], COUNTS[client], start, steps, BATCH)
    return [{name: a[p] for name, a in make_data().items()} for p in np.asarray(picked)]


def project(x):
    """The simplex by bisection on the threshold."""
    low, high = x.min() - 1, x.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(x - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(x - low, 0)


def drfa_loop(rounds):
    """Deng, Kamani and Mahdavi, Algorithm 1."""
    n, w, mixture = len(COUNTS), np.zeros(3), np.full(len(COUNTS), 1 / len(COUNTS))
    for start in range(0, rounds * STEPS, STEPS):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 2**31 - 1), start)
        by_mixture, when, evenly, batch_key = jax.random.split(key, 4)
        cohort = jax.random.choice(by_mixture, n, (SIZE,), p=jnp.float32(mixture))
        snapshot_at = int(jax.random.randint(when, (), 1, STEPS + 1))
        models, snapshots = [], []
        for i in cohort.tolist():
            y, order = w, jax.random.split(jax.random.fold_in(KEY, i), 3)[0]
            for t, batch in enumerate(batches_of(order, i, start, STEPS), 1):
                y = y - LR * grad_fn(y, batch, None)[0]
                if t == snapshot_at:
                    snapshots.append(y)
            models.append(y)
        w, snapshot = np.mean(models, 0), np.mean(snapshots, 0)
        v = np.zeros(n)
        for i in samplers.uniform(SIZE)(evenly, start, jnp.ones(n)).clients.tolist():
            order = jax.random.split(jax.random.fold_in(batch_key, i))[0]
            (batch,) = batches_of(order, i, start, 1)
            v[i] = n / SIZE * grad_fn(snapshot, batch, None)[1]["loss"]
        mixture = project(mixture + STEPS * GAMMA * v)
    return np.float32(w), np.float32(mixture)


def train(engine, mesh, rounds, calls=1, index=INDEX, data=None):
    rows, data = replicate(mesh, (population(index), make_data() if data is None else data))
    state = engine.init(jnp.zeros(data["x"].shape[1]), rows)
    for _ in range(calls):
        state, metrics = engine.run(state, rows, data, KEY, rounds=rounds // calls)
    return jax.device_get(state.server), metrics


@pytest.mark.parametrize(("devices", "clients"), [(1, "scan"), (8, "vmap")])
def test_it_equals_its_loop_and_compiles_once(devices, clients):
    mesh = tier_mesh(2, devices // 2 or 1, jax.devices()[:devices])
    engine = drfa(
        grad_fn, optax.sgd(LR), mesh,
        size=SIZE, steps=STEPS, batch=BATCH, lr=GAMMA, clients=clients,
    )  # fmt: skip
    whole, metrics = train(engine, mesh, rounds=4)
    chex.assert_trees_all_close(tuple(whole), drfa_loop(4), rtol=1e-5, atol=1e-6)
    assert metrics["loss"].shape == (4,)
    assert whole.mixture.std() > 0.01
    if devices == 1:
        chex.assert_trees_all_equal(whole, train(engine, mesh, rounds=4, calls=4)[0])
        assert engine.run._cache_size() == 2


def test_the_projection_is_onto_the_simplex():
    rng = np.random.default_rng(0)
    for x in rng.normal(size=(20, 7)).astype(np.float32) * 2:
        np.testing.assert_allclose(jax.jit(project_simplex)(x), project(x), atol=1e-6)
    inside = np.array([0.2, 0.5, 0.3], np.float32)
    np.testing.assert_allclose(project_simplex(inside), inside, atol=1e-7)
    with_nobody = jnp.array([-jnp.inf, 3.0, 3.0])
    np.testing.assert_allclose(project_simplex(with_nobody), [0, 0.5, 0.5])


def test_the_worst_client_gains_and_empty_clients_have_no_weight():
    """Nine clients want 0 and one wants 1: the mean is 0.1, robust is the middle."""
    data = {"x": np.ones((40, 1), np.float32), "y": np.float32(np.arange(40) >= 36)}
    index = pack([*np.split(np.arange(40), 10), []])
    mesh = tier_mesh(1, 1, jax.devices()[:1])
    settings = {"steps": 2, "batch": 4}
    robust, _ = train(
        drfa(grad_fn, optax.sgd(0.05), mesh, size=5, lr=0.01, **settings),
        mesh, rounds=600, index=index, data=data,
    )  # fmt: skip
    plain, _ = train(
        sampled(fedavg(grad_fn, optax.sgd(0.05)), mesh, samplers.uniform(11), **settings),
        mesh, rounds=100, index=index, data=data,
    )  # fmt: skip
    np.testing.assert_allclose(plain.params, 0.1, atol=1e-3)
    np.testing.assert_allclose(robust.params, 0.5, atol=0.15)
    np.testing.assert_allclose(robust.mixture.sum(), 1, atol=1e-5)
    assert robust.mixture[9] > 0.3
    assert robust.mixture[10] == 0
