"""States of clients in host memory and on disk: the same training as with states on the device."""

import json
import os
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import (
    Rows,
    disk_store,
    fedavg,
    host_store,
    population,
    replicate,
    sampled,
    samplers,
    scaffold,
    stored,
)
from eejax.data import pack
from eejax.tiers import tier_mesh
from eejax.wire import topk

CLIENTS, KEY, ROUNDS = 12, jax.random.key(5), 6


def grad_fn(w, batch, key):
    del key
    return w - batch.mean(0), {"loss": ((w[None] - batch) ** 2).mean()}


SETTINGS = {"steps": 2, "batch": 2, "codec": topk(0.5)}
SAMPLER = samplers.poisson(0.5)
DATA = np.random.default_rng(0).normal(size=(3 * CLIENTS, 4)).astype(np.float32)
ROWS = population(pack(np.split(np.arange(3 * CLIENTS), CLIENTS)))


def stores(tmp_path):
    return {"host": host_store(), "disk": disk_store(tmp_path / "store")}


def start(engine, mesh):
    rows, data = replicate(mesh, (ROWS, DATA))
    return engine.init(jnp.zeros(4), rows), rows, data


@pytest.mark.parametrize("kind", ["host", "disk"])
@pytest.mark.parametrize("devices", [1, 8])
def test_it_is_training_with_states_on_the_device(kind, devices, tmp_path):
    """In two calls; of 12 clients half take part, so many come twice in a row."""
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    algorithm, store = scaffold(grad_fn, 0.1), stores(tmp_path)[kind]
    ours = stored(algorithm, mesh, SAMPLER, store, **SETTINGS)
    theirs = sampled(algorithm, mesh, SAMPLER, **SETTINGS)
    (a, rows, data), (b, _, _) = (start(engine, mesh) for engine in (ours, theirs))
    for rounds in (ROUNDS - 2, 2):
        a, a_metrics = ours.run(a, rows, data, KEY, rounds=rounds)
        b, b_metrics = theirs.run(b, rows, data, KEY, rounds=rounds)
        chex.assert_trees_all_close(a.server, b.server, rtol=1e-6, atol=1e-7)
        chex.assert_trees_all_close(a_metrics, b_metrics, rtol=1e-6)
    states = store.gather(a.clients, np.arange(CLIENTS), int(a.steps))
    states = jax.tree.leaves(states)
    on_device = [x[0] for x in jax.tree.leaves(jax.device_get(b.clients))]
    chex.assert_trees_all_close(states, on_device, rtol=1e-6, atol=1e-7)
    assert len(states) == 3  # The control variate, and residuals of both parts of an upload.
    assert all(np.abs(x).max() > 0.01 for x in states)


def test_a_million_clients_of_a_kilobyte_on_disk(tmp_path):
    clients, size = 1_000_000, 256
    mesh = tier_mesh(1, 1)
    began = time.monotonic()
    every = np.arange(clients, dtype=np.int32)[None]
    rows = Rows(every[..., None] % 1000, np.ones_like(every), every)
    data = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    rows, data = replicate(mesh, (rows, data))
    store = disk_store(tmp_path / "store")
    engine = stored(scaffold(grad_fn, 0.1), mesh, samplers.uniform(100), store, steps=1, batch=1)
    state = engine.init(jnp.zeros(size), rows)
    for _ in range(2):
        state, metrics = engine.run(state, rows, data, KEY, rounds=3)
    assert time.monotonic() - began < 60  # Of which the machine may be busy most.
    assert np.isfinite(metrics["loss"]).all()

    path = tmp_path / "store" / "states.bin"
    assert path.stat().st_size >= clients * 1024
    blocks = 512 * sum(p.stat().st_blocks for p in path.parent.iterdir())
    assert blocks < 50e6  # What was written, in pages, and numbers of steps.
    trained = np.flatnonzero(
        np.asarray(np.memmap(path.parent / "versions.bin", np.int32)).reshape(clients, -1).any(1)
    )
    assert 590 < len(trained) <= 600
    states = store.gather(state.clients, np.append(trained, 7), 6)
    variates = jax.tree.leaves(states)[0]
    np.testing.assert_allclose(
        variates[:-1].mean(0) * len(trained) / clients, state.server.control, atol=1e-7
    )
    assert (np.abs(variates).max(1) > 0).tolist() == [True] * len(trained) + [7 in trained]


def run_on(engine, state, mesh, rounds):
    rows, data = replicate(mesh, (ROWS, DATA))
    return engine.run(state, rows, data, KEY, rounds=rounds)[0]


def test_a_run_goes_back_to_where_its_last_two_calls_began(tmp_path):
    """As after kills amid a call, and when the newest checkpoint turns out to be damaged."""
    mesh = tier_mesh(1, 1)

    def opened():
        store = disk_store(tmp_path / "store")
        engine = stored(scaffold(grad_fn, 0.1), mesh, SAMPLER, store, **SETTINGS)
        state, _, _ = start(engine, mesh)
        return engine, store, state

    def everything(store, state):
        return jax.device_get(state.server), store.gather((), np.arange(CLIENTS), int(state.steps))

    engine, store, state = opened()
    saved, expected = [], []
    for _ in range(4):
        saved.append(jax.device_get(state._replace(clients=())))
        state = run_on(engine, state, mesh, 2)
        expected.append(everything(store, state))

    for back in (3, 2):  # The calls, from 0.
        engine, store, first = opened()
        state = jax.tree.map(jnp.array, saved[back])._replace(clients=first.clients)
        for call in range(back, 4):
            state = run_on(engine, state, mesh, 2)
            chex.assert_trees_all_equal(everything(store, state), expected[call])
    engine, store, first = opened()
    too_old = jax.tree.map(jnp.array, saved[1])._replace(clients=first.clients)
    with pytest.raises(ValueError, match=r"states after \[8, 12, 16\] steps, not after 4"):
        run_on(engine, too_old, mesh, 1)
    # From the beginning it always goes.
    state = run_on(engine, start(engine, mesh)[0], mesh, 2)
    chex.assert_trees_all_equal(everything(store, state), expected[0])


def test_damage_and_other_runs_are_named(tmp_path):
    store = disk_store(tmp_path)
    store.init(np.zeros(3, np.float32), 5)
    store.begin((), 0)
    store.scatter((), np.array([1, 4]), np.ones((2, 3), np.float32), 1)
    store.finish((), 1)
    with pytest.raises(ValueError, match=r"'clients': 5.*needs.*'clients': 6"):
        disk_store(tmp_path).init(np.zeros(3, np.float32), 6)
    with pytest.raises(ValueError, match=r"float32\[3\].*needs.*float32\[2\]"):
        disk_store(tmp_path).init(np.zeros(2, np.float32), 5)
    content = bytearray((tmp_path / "states.bin").read_bytes())
    where = content.index(np.ones(3, np.float32).tobytes())
    content[where] ^= 1
    (tmp_path / "states.bin").write_bytes(content)
    again = disk_store(tmp_path)
    again.init(np.zeros(3, np.float32), 5)
    assert again.gather((), np.array([0, 4]), 1).tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(ValueError, match=r"state of client 1 in .* is damaged"):
        again.gather((), np.array([0, 1]), 1)


def test_a_half_made_folder_is_made_anew(tmp_path):
    (tmp_path / "states.bin").write_bytes(b"half")
    store = disk_store(tmp_path)
    store.init(np.ones(2, np.float32), 3)
    store.begin((), 0)
    assert store.gather((), np.arange(3), 0).tolist() == [[1, 1]] * 3
    assert json.loads((tmp_path / "store.json").read_text())["clients"] == 3


def test_clients_that_keep_nothing_need_no_room(tmp_path):
    mesh = tier_mesh(1, 1)
    algorithm = fedavg(grad_fn, optax.sgd(0.1))
    settings = {"steps": 2, "batch": 2}
    ours = stored(algorithm, mesh, SAMPLER, disk_store(tmp_path), **settings)
    theirs = sampled(algorithm, mesh, SAMPLER, **settings)
    states = [e.run(*start(e, mesh), KEY, rounds=2)[0].server for e in (ours, theirs)]
    chex.assert_trees_all_close(*states, rtol=1e-6)
    assert os.path.getsize(tmp_path / "states.bin") == CLIENTS * 3 * 4
