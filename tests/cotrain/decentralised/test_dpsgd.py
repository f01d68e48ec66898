"""D-PSGD over clients: loops, any mesh and order, special cases, consensus."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.cotrain.decentralised import (
    complete,
    consensus_distance,
    dpsgd,
    graph_bytes,
    mean_model,
    metropolis,
    random_matching,
    ring,
    seat,
    spectral_gap,
)
from eejax.cotrain.federated import (
    Epochs,
    Rows,
    fedavg,
    fedavgm,
    flat,
    place,
    replicate,
    rows_of,
    scaffold,
)
from eejax.cotrain.replica import Batch, gossip
from eejax.data import client_batches, pack
from eejax.tiers import collectives, make_mesh, three_tier, tier_mesh

LR, K1, BATCH, ROUNDS = 0.1, 2, 4, 3
COUNTS = (5, 9, 1, 12, 7, 3, 8, 6)
KEY = jax.random.key(7)


def loss(w, batch):
    logits = batch["x"] @ w["kernel"] + w["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def grad_fn(w, batch, key):
    del key
    value, grads = jax.value_and_grad(loss)(w, batch)
    return grads, {"loss": value}


FEDAVG = fedavg(grad_fn, optax.sgd(LR))


@functools.cache
def make_data():
    rng = np.random.default_rng(0)
    n = sum(COUNTS)
    return {
        "x": rng.normal(size=(n, 6)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }


def make_params():
    kernel = np.random.default_rng(1).normal(size=(6, 3))
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(3)}


def make_rows(counts=COUNTS):
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    return rows_of(three_tier(len(counts), 2), pack(parts))


ROWS = make_rows()
GRAPH = metropolis(np.eye(8, k=1) + np.eye(8, k=-1) + np.eye(8, k=5) + np.eye(8, k=-5) > 0)
DIRECTED = (np.eye(8) + np.roll(np.eye(8), 1, 1)) / 2
GRAPHS = {
    "ring": ring(8),
    "graph": GRAPH,
    "directed": DIRECTED,
    "pairs": random_matching(GRAPH),
}
host_batches = jax.jit(client_batches, static_argnums=(4, 5))


def gradient(w, batch):
    logits = batch["x"] @ w["kernel"] + w["bias"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    error = (odds / odds.sum(1, keepdims=True) - np.eye(3)[batch["y"]]) / len(logits)
    return {"kernel": batch["x"].T @ error, "bias": error.sum(0)}


def batches_of(client, start, steps):
    if isinstance(steps, Epochs):
        epoch = -(-COUNTS[client] // BATCH)
        start, steps = start * epoch, steps.epochs * epoch
    order_key = jax.random.split(jax.random.fold_in(KEY, client), 3)[0]
    table = np.asarray(ROWS.table).reshape(8, -1)[client]
    picked = host_batches(order_key, table, COUNTS[client], start, steps, BATCH)
    return [{name: a[step] for name, a in make_data().items()} for step in np.asarray(picked)]


def matrix_of(name, start):
    if not callable(GRAPHS[name]):
        return GRAPHS[name]
    round_key = jax.random.fold_in(jax.random.fold_in(KEY, np.iinfo(np.int32).max - 1), start)
    return np.asarray(GRAPHS[name](round_key, 8))


def mean_by(weights, trees_):
    return jax.tree.map(lambda *leaves: sum(a * b for a, b in zip(weights, leaves)), *trees_)


@functools.cache
def loop_result(name, steps=K1):
    """Lian et al., Algorithm 1, with local steps: nothing but loops."""
    x = [jax.device_get(make_params()) for _ in COUNTS]
    start = 0
    for _ in range(ROUNDS):
        for i in range(8):
            for batch in batches_of(i, start, steps):
                x[i] = jax.tree.map(lambda w, g: w - LR * g, x[i], gradient(x[i], batch))
        x = [mean_by(row, x) for row in matrix_of(name, start)]
        start += steps.epochs if isinstance(steps, Epochs) else steps
    return jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *x)


def mesh_of(devices):
    return tier_mesh(2, 4, jax.devices()[:devices])


def train(engine, mesh, rows=ROWS, rounds=ROUNDS, calls=1, data=None):
    data = replicate(mesh, make_data() if data is None else data)
    state = engine.init(make_params(), place(mesh, rows))
    for _ in range(calls):
        state, metrics = engine.run(state, place(mesh, rows), data, KEY, rounds=rounds // calls)
    return state, metrics


def models(state):
    return jax.tree.map(lambda x: np.asarray(x).reshape(8, *x.shape[2:]), state.server.params)


def assert_close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "clients", "devices"),
    [
        *((name, "scan", 8) for name in GRAPHS),
        ("graph", "scan", 1), ("graph", "vmap", 1), ("graph", "chunk:2", 2),
        ("pairs", "vmap", 2),
    ],
)  # fmt: skip
def test_loop_equals_scan_vmap_and_shard_map(name, clients, devices):
    mesh = mesh_of(devices)
    assert mesh.size == devices
    engine = dpsgd(FEDAVG, mesh, w=GRAPHS[name], steps=K1, batch=BATCH, clients=clients)
    state, metrics = train(engine, mesh)
    assert_close(models(state), loop_result(name))
    np.testing.assert_allclose(metrics["consensus"][-1], consensus_distance(models(state)), 1e-5)


def test_loop_equals_engine_with_unequal_numbers_of_steps():
    mesh = mesh_of(2)
    engine = dpsgd(FEDAVG, mesh, w=ring(8), steps=Epochs(2), batch=BATCH)
    assert_close(models(train(engine, mesh)[0]), loop_result("ring", Epochs(2)))


def test_seats_on_the_mesh_lie_across_it_too():
    """A device then holds two of the four clients of both edge servers."""
    mesh = make_mesh((1, 2), ("edge", "end"), jax.devices()[:2])
    engine = dpsgd(FEDAVG, mesh, w=GRAPH, steps=K1, batch=BATCH)
    assert_close(models(train(engine, mesh)[0]), loop_result("graph"))


def test_the_complete_graph_is_fedavg_with_clients_alike():
    mesh = mesh_of(1)
    state, _ = train(dpsgd(FEDAVG, mesh, w=complete(8), steps=K1, batch=BATCH), mesh)
    uniform = flat(FEDAVG._replace(weighting="uniform"), mesh, steps=K1, batch=BATCH)
    server = jax.device_get(train(uniform, mesh)[0].server.params)
    for i in range(8):
        assert_close(jax.tree.map(lambda x, i=i: x[i], models(state)), server)
    assert_close(mean_model(state, ROWS, FEDAVG), server)


def test_the_identity_is_training_alone():
    mesh = mesh_of(1)
    alone, _ = train(dpsgd(FEDAVG, mesh, w=np.eye(8), steps=K1, batch=BATCH), mesh)
    for i in (0, 3):
        w = jax.device_get(make_params())
        for batch in batches_of(i, 0, ROUNDS * K1):
            w = jax.tree.map(lambda w, g: w - LR * g, w, gradient(w, batch))
        assert_close(jax.tree.map(lambda x, i=i: x[i], models(alone)), jax.tree.map(np.float32, w))


def test_one_step_of_all_samples_is_gossip_of_replicas():
    counts, mesh = (6,) * 8, mesh_of(1)
    data = jax.tree.map(lambda a: a[:48], make_data())
    engine = dpsgd(FEDAVG, mesh, w=ring(8), steps=1, batch=6)
    ours = models(train(engine, mesh, make_rows(counts), data=data)[0])

    batch = Batch(
        jax.tree.map(lambda a: a.reshape(8, 1, 6, *a.shape[1:]), data), np.ones((8, 1, 6), "f4")
    )
    theirs = gossip(
        lambda w, batch, key: grad_fn(w, batch.data, key), optax.sgd(LR), mesh, ("edge", "end"),
        w=ring(8), adapt_first=True,
    )  # fmt: skip
    state = theirs.init(make_params())
    for _ in range(ROUNDS):
        state, _ = theirs.step(state, batch, KEY)
    assert_close(ours, jax.device_get(state.params))


def test_the_mean_is_kept_and_mixing_alone_contracts_by_the_spectral_gap():
    mesh, w = mesh_of(1), ring(8)
    still = fedavg(grad_fn, optax.sgd(0.0))
    state, _ = train(dpsgd(FEDAVG, mesh, w=np.eye(8), steps=K1, batch=BATCH), mesh)
    mean, before = mean_model(state, ROWS, FEDAVG), consensus_distance(models(state))
    engine = dpsgd(still, mesh, w=w, steps=1, batch=BATCH)
    data = replicate(mesh, make_data())
    state, metrics = engine.run(state, place(mesh, ROWS), data, KEY, rounds=10)
    assert_close(mean_model(state, ROWS, FEDAVG), mean)
    distances = np.append(before, metrics["consensus"])
    assert (distances[1:] <= (1 - spectral_gap(w)) * distances[:-1] * (1 + 1e-5)).all()
    np.testing.assert_allclose(distances[-1] / distances[-2], 1 - spectral_gap(w), rtol=0.05)


def test_where_clients_sit_changes_nothing():
    mesh = mesh_of(1)
    turned = Rows(*(np.ascontiguousarray(np.asarray(x)[::-1, ::-1]) for x in ROWS))
    there = jax.tree.map(lambda x: x[::-1], models(
        train(dpsgd(FEDAVG, mesh, w=seat(GRAPH, turned), steps=K1, batch=BATCH), mesh, turned)[0]
    ))  # fmt: skip
    assert_close(there, loop_result("graph"))


def test_an_empty_seat_changes_nothing_and_is_not_in_the_mean():
    mesh = mesh_of(1)
    rows = make_rows(COUNTS[:7])
    w = seat(ring(7), rows)
    assert np.flatnonzero(np.diag(w) == 1).tolist() == [7]
    engine = dpsgd(FEDAVG, mesh, w=w, steps=K1, batch=BATCH)
    state, metrics = train(engine, mesh, rows)
    seven = jax.tree.map(lambda x: x[:7], models(state))
    empty = jax.tree.map(lambda x: x[7], models(state))
    chex.assert_trees_all_equal(empty, jax.device_get(make_params()))
    mean = jax.tree.map(lambda x: x.mean(0), seven)
    assert_close(mean_model(state, rows, FEDAVG), mean)
    np.testing.assert_allclose(metrics["consensus"][-1], consensus_distance(seven), rtol=1e-5)


def test_a_client_without_samples_only_mixes_and_may_hold_nan():
    mesh = mesh_of(1)
    counts = np.array(ROWS.counts)
    counts[0, 1] = 0
    poisoned = jax.tree.map(np.copy, make_data())
    poisoned["x"][ROWS.table[0, 1]] = np.nan
    engine = dpsgd(FEDAVG, mesh, w=ring(8), steps=K1, batch=BATCH)
    state, metrics = train(engine, mesh, ROWS._replace(counts=counts), data=poisoned)
    chex.assert_tree_all_finite((models(state), metrics))
    moved = np.abs(models(state)["kernel"][1] - make_params()["kernel"]).max()
    assert moved > 0.01
    assert metrics["rejected"].tolist() == [0] * ROUNDS
    diverged, metrics = train(engine, mesh, data=poisoned)
    assert_close(models(diverged), models(state))
    assert metrics["rejected"].tolist() == [1] * ROUNDS


def test_one_compilation_and_no_difference_where_a_run_is_cut():
    mesh = mesh_of(8)
    algorithm = fedavgm(grad_fn, optax.sgd(LR), 0.5, 0.9)
    engine = dpsgd(algorithm, mesh, w=random_matching(GRAPH), steps=K1, batch=BATCH)
    whole, _ = train(engine, mesh, rounds=4)
    cut, _ = train(engine, mesh, rounds=4, calls=4)
    assert engine.run._cache_size() == 2  # Rounds of one call are static.
    chex.assert_trees_all_equal(jax.device_get(whole), jax.device_get(cut))


def test_any_algorithm_runs_and_counters_are_not_mixed():
    mesh = mesh_of(1)
    adam = fedavg(grad_fn, optax.sgd(LR), optax.adam(0.01))
    for algorithm in (adam, scaffold(grad_fn, LR)):
        state, metrics = train(dpsgd(algorithm, mesh, w=ring(8), steps=K1, batch=BATCH), mesh)
        chex.assert_tree_all_finite((state.server, metrics))
        if algorithm is adam:
            assert np.unique(state.server.opt_state[0].count).tolist() == [ROUNDS]


def test_only_the_edges_of_a_fixed_graph_carry_models():
    mesh = mesh_of(8)
    rows, data = place(mesh, ROWS), replicate(mesh, make_data())
    sent = {}
    for name in ("ring", "pairs"):
        engine = dpsgd(FEDAVG, mesh, w=GRAPHS[name], steps=K1, batch=BATCH)
        lowered = engine.run.lower(engine.init(make_params(), rows), rows, data, KEY)
        sent[name] = collectives(lowered.compile(), mesh).by_kind
    model = trees.nbytes(make_params())
    assert sent["ring"]["collective-permute"] == pytest.approx(2 * model)
    assert "all-gather" not in sent["ring"]
    assert sent["pairs"]["all-gather"] == pytest.approx(7 * model)
    assert graph_bytes(ring(8), make_params()).sum() == 8 * 2 * model


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (ring(7), "7 nodes do not sit on the 8 seats"),
        (random_matching(ring(6)), "6 nodes do not sit on the 8 seats"),
    ],
)
def test_a_matrix_for_other_seats_is_refused(w, message):
    mesh = mesh_of(1)
    with pytest.raises(ValueError, match=message):
        train(dpsgd(FEDAVG, mesh, w=w, steps=1, batch=BATCH), mesh)


def test_a_matrix_that_is_not_doubly_stochastic_is_refused():
    with pytest.raises(ValueError, match="rows and columns of sum 1"):
        dpsgd(FEDAVG, mesh_of(1), w=np.ones((8, 8)), steps=1, batch=BATCH)
