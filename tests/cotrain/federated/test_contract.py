"""The contract of federated training: a new algorithm joins by adding a row to ALGORITHMS.

Every algorithm comes with its pseudo-code as a plain Python loop, which the compiled engines must
reproduce over any mesh and in any order of clients.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain import fedavg, flat, hierfavg, replicate, rows_of
from eejax.cotrain.federated.rows import Rows, place
from eejax.data import client_batches, pack
from eejax.tiers import three_tier, tier_mesh
from eejax.wire import affine, topk

LR, K1, BATCH, ROUNDS = 0.1, 3, 4, 3
COUNTS = (5, 9, 1, 12, 7, 3, 8, 6)  # Less than a batch, and more than an epoch in a round.
KEY = jax.random.key(7)


def loss(w, batch):
    logits = batch["x"] @ w["kernel"] + w["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def grad_fn(w, batch, key):
    del key
    value, grads = jax.value_and_grad(loss)(w, batch)
    return grads, {"loss": value}


def make_data():
    rng = np.random.default_rng(0)
    n = sum(COUNTS)
    return {
        "x": rng.normal(size=(n, 6)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }


def make_params():
    rng = np.random.default_rng(1)
    return {
        "kernel": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
        "bias": jnp.zeros(3),
    }


def make_rows(edges, counts=COUNTS):
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    return rows_of(three_tier(len(counts), edges), pack(parts))


def batches_of(rows, data, client, start):
    """The batches of one client, on the host; the order of samples is the data room's business."""
    (where,) = np.argwhere(np.asarray(rows.ids) == client)
    table, count = np.asarray(rows.table)[*where], np.asarray(rows.counts)[*where]
    order_key = jax.random.split(jax.random.fold_in(KEY, client), 3)[0]
    picked = np.asarray(client_batches(order_key, jnp.asarray(table), count, start, K1, BATCH))
    return [{name: a[step] for name, a in data.items()} for step in picked]


def sgd_steps(w, batches, grads):
    for batch in batches:
        w = jax.tree.map(lambda a, g: a - LR * g, w, grads(w, batch, None)[0])
    return w


def fedavg_loop(params, rows, data, rounds, k2=1):
    """McMahan et al., Algorithm 1, below the edges of Liu et al., Algorithm 1."""
    grads = jax.jit(grad_fn)
    ids, counts = np.asarray(rows.ids), np.asarray(rows.counts)
    start, cloud = 0, params
    for _ in range(rounds):
        edges = [cloud for _ in ids]
        for _ in range(k2):
            for e, row in enumerate(ids):
                clients = [c for c in row if c >= 0]
                models = [
                    sgd_steps(edges[e], batches_of(rows, data, c, start), grads) for c in clients
                ]
                n = np.array([COUNTS[c] for c in clients], np.float32)
                edges[e] = jax.tree.map(lambda *m, n=n: sum(a * b for a, b in zip(n / n.sum(), m)),
                                        *models)  # fmt: skip
            start += K1
        n = counts.sum(1) / counts.sum()
        cloud = jax.tree.map(lambda *m, n=n: sum(a * b for a, b in zip(n, m)), *edges)
    return cloud


@functools.cache
def loop_result(name, edges, rounds, k2=1):
    rows = make_rows(edges)
    return jax.device_get(ALGORITHMS[name].loop(make_params(), rows, make_data(), rounds, k2))


class Row(NamedTuple):
    algorithm: FederatedAlgorithm
    loop: Callable  # (params, rows, data, rounds, k2=1) -> params


ALGORITHMS = {"fedavg": Row(fedavg(grad_fn, optax.sgd(LR)), fedavg_loop)}
EVERY = pytest.mark.parametrize("name", ALGORITHMS)


def train(engine, rows, rounds=ROUNDS, calls=1, data=None, mesh=None):
    mesh = tier_mesh(*rows.counts.shape) if mesh is None else mesh
    data = replicate(mesh, make_data() if data is None else data)
    state = engine.init(make_params(), place(mesh, rows))
    for _ in range(calls):
        state, metrics = engine.run(state, place(mesh, rows), data, KEY, rounds=rounds // calls)
    return state, metrics


def params_after(*args, **kwargs):
    return jax.device_get(train(*args, **kwargs)[0].server.params)


@EVERY
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("clients", ["scan", "vmap", "chunk:2"])
def test_loop_equals_scan_vmap_and_shard_map(name, devices, clients):
    algorithm = ALGORITHMS[name].algorithm
    rows = make_rows(edges=2)
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    assert mesh.size == devices
    engine = flat(algorithm, mesh, steps=K1, batch=BATCH, clients=clients)
    chex.assert_trees_all_close(
        params_after(engine, rows, mesh=mesh),
        loop_result(name, 2, ROUNDS),
        rtol=1e-5,
        atol=1e-6,
    )


@EVERY
@pytest.mark.parametrize("devices", [1, 8])
def test_hierarchical_equals_its_loop(name, devices):
    algorithm = ALGORITHMS[name].algorithm
    rows = make_rows(edges=2)
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    engine = hierfavg(algorithm, mesh, k1=K1, k2=2, batch=BATCH)
    chex.assert_trees_all_close(
        params_after(engine, rows, mesh=mesh),
        loop_result(name, 2, ROUNDS, k2=2),
        rtol=1e-5,
        atol=1e-6,
    )


@EVERY
def test_hierarchical_with_k2_of_one_is_flat(name):
    rows = make_rows(edges=2)
    mesh = tier_mesh(2, 4)
    algorithm = ALGORITHMS[name].algorithm
    chex.assert_trees_all_close(
        params_after(hierfavg(algorithm, mesh, k1=K1, k2=1, batch=BATCH), rows),
        params_after(flat(algorithm, mesh, steps=K1, batch=BATCH), rows),
        rtol=1e-5,
        atol=1e-6,
    )


@EVERY
def test_hierarchical_with_one_edge_is_flat(name):
    rows = make_rows(edges=1)
    mesh = tier_mesh(1, 8)
    algorithm = ALGORITHMS[name].algorithm
    chex.assert_trees_all_close(
        params_after(hierfavg(algorithm, mesh, k1=K1, k2=3, batch=BATCH), rows, rounds=1),
        params_after(flat(algorithm, mesh, steps=K1, batch=BATCH), rows, rounds=3),
        rtol=1e-5,
        atol=1e-6,
    )


@EVERY
@pytest.mark.parametrize("edges", [1, 2])
def test_one_compilation_and_no_difference_where_a_run_is_cut(name, edges):
    rows = make_rows(edges)
    mesh = tier_mesh(*rows.counts.shape)
    engine = hierfavg(ALGORITHMS[name].algorithm, mesh, k1=K1, k2=1, batch=BATCH, codec=topk(0.5))
    whole, _ = train(engine, rows, rounds=4)
    compiled = engine.run._cache_size()
    cut, _ = train(engine, rows, rounds=4, calls=4)
    assert engine.run._cache_size() == compiled + 1  # Rounds of one call are static.
    chex.assert_trees_all_equal(jax.device_get(whole), jax.device_get(cut))


@EVERY
def test_an_empty_row_and_a_row_of_no_weight_change_nothing(name):
    """Seven clients at two edges leave one seat empty; an eighth without samples is the same."""
    algorithm = ALGORITHMS[name].algorithm
    mesh = tier_mesh(2, 4)
    engine = hierfavg(algorithm, mesh, k1=K1, k2=2, batch=BATCH)
    rows = make_rows(2, COUNTS[:7])
    assert np.asarray(rows.ids).min() == -1
    without = params_after(engine, rows)
    ids = np.where(rows.ids < 0, 7, rows.ids)
    with_empty = Rows(rows.table, rows.counts, ids.astype(np.int32))
    chex.assert_trees_all_equal(without, params_after(engine, with_empty))


@EVERY
def test_a_client_without_weight_may_hold_nan(name):
    algorithm = ALGORITHMS[name].algorithm
    rows = make_rows(2)
    counts = np.array(rows.counts)
    counts[0, 1] = 0
    poisoned = make_data()
    poisoned["x"][rows.table[0, 1]] = np.nan
    engine = flat(algorithm, tier_mesh(2, 4), steps=K1, batch=BATCH)
    rows = rows._replace(counts=counts)
    chex.assert_tree_all_finite(params_after(engine, rows, data=poisoned))
    chex.assert_trees_all_equal(
        params_after(engine, rows, data=poisoned), params_after(engine, rows)
    )


@EVERY
def test_the_order_of_clients_changes_nothing(name):
    algorithm = ALGORITHMS[name].algorithm
    rows = make_rows(2)
    turned = jax.tree.map(lambda x: np.ascontiguousarray(x[:, ::-1]), rows)
    engine = flat(algorithm, tier_mesh(2, 4), steps=K1, batch=BATCH)
    chex.assert_trees_all_close(
        params_after(engine, rows), params_after(engine, turned), rtol=1e-5, atol=1e-6
    )


@EVERY
def test_metrics_are_means_over_samples_for_each_round(name):
    rows = make_rows(2)
    engine = flat(ALGORITHMS[name].algorithm, tier_mesh(2, 4), steps=K1, batch=BATCH)
    _, metrics = train(engine, rows, rounds=ROUNDS)
    assert metrics["loss"].shape == (ROUNDS,)
    losses, n = [], np.array(COUNTS)
    for client in range(8):
        w, of_steps = make_params(), []
        for batch in batches_of(rows, make_data(), client, 0):
            of_steps.append(float(loss(w, batch)))
            w = sgd_steps(w, [batch], grad_fn)
        losses.append(np.mean(of_steps))
    np.testing.assert_allclose(metrics["loss"][0], (losses * n).sum() / n.sum(), rtol=1e-5)


@EVERY
def test_uploads_pass_the_codec_and_its_residuals_are_kept(name):
    algorithm = ALGORITHMS[name].algorithm
    rows = make_rows(2)
    mesh = tier_mesh(2, 4)
    exact = params_after(flat(algorithm, mesh, steps=K1, batch=BATCH), rows)
    coarse = params_after(flat(algorithm, mesh, steps=K1, batch=BATCH, codec=affine(8)), rows)
    assert trees.size(exact) > 0
    error = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (exact, coarse))))
    assert 0 < error < 0.02
    state, _ = train(flat(algorithm, mesh, steps=K1, batch=BATCH, codec=topk(0.5)), rows)
    residual = jax.device_get(state.clients.codec)
    assert residual["kernel"].shape == (2, 4, 6, 3)
    assert np.abs(residual["kernel"]).max(axis=(2, 3)).min() > 0


def test_hierarchical_edge_codec_keeps_one_residual_an_edge():
    rows = make_rows(2)
    engine = hierfavg(
        fedavg(grad_fn, optax.sgd(LR)), tier_mesh(2, 4), k1=K1, k2=2, batch=BATCH,
        edge_codec=topk(0.5),
    )  # fmt: skip
    state, _ = train(engine, rows)
    assert sorted(x.shape for x in jax.tree.leaves(state.edges)) == [(2, 3), (2, 6, 3)]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(jax.device_get(state.edges)))


def test_another_server_optimiser_is_fedopt():
    rows = make_rows(2)
    mesh = tier_mesh(2, 4)
    plain = flat(fedavg(grad_fn, optax.sgd(LR)), mesh, steps=K1, batch=BATCH)
    half = flat(fedavg(grad_fn, optax.sgd(LR), optax.sgd(0.5)), mesh, steps=K1, batch=BATCH)
    before = jax.device_get(make_params())
    full = params_after(plain, rows, rounds=1)
    chex.assert_trees_all_close(
        params_after(half, rows, rounds=1),
        jax.tree.map(lambda a, b: (a + b) / 2, before, full),
        rtol=1e-5,
        atol=1e-6,
    )


def test_adam_of_the_server_runs_hierarchically():
    """Its step counter is a whole number, which no mean may touch."""
    rows = make_rows(2)
    algorithm = fedavg(grad_fn, optax.sgd(LR), optax.adam(0.01))
    state, _ = train(hierfavg(algorithm, tier_mesh(2, 4), k1=K1, k2=2, batch=BATCH), rows, rounds=2)
    assert int(state.server.opt_state[0].count) == 4
