"""Eight small clients, softmax regression and its batches, for all tests of the room."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import place, replicate, rows_of
from eejax.data import client_batches, pack
from eejax.tiers import three_tier, tier_mesh

LR, BATCH = 0.1, 4
COUNTS = (5, 9, 1, 12, 7, 3, 8, 6)
KEY = jax.random.key(7)
host_batches = jax.jit(client_batches, static_argnums=(4, 5))


class Fleet(NamedTuple):
    rows: object
    data: dict
    params: dict

    counts = COUNTS
    key = KEY
    lr = LR
    batch = BATCH

    def batches_of(self, client, start, steps):
        order_key = jax.random.split(jax.random.fold_in(KEY, client), 4)[0]
        table = np.asarray(self.rows.table).reshape(8, -1)[client]
        picked = host_batches(order_key, table, COUNTS[client], start, steps, BATCH)
        return [{name: a[step] for name, a in self.data.items()} for step in np.asarray(picked)]

    def keys_of(self, client, start, steps):
        local_key = jax.random.split(jax.random.fold_in(KEY, client), 4)[1]
        return jax.random.split(jax.random.fold_in(local_key, start), steps)

    def loss(self, w, batch):
        logits = batch["x"] @ w["kernel"] + w["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

    def grad_fn(self, w, batch, key):
        del key
        value, grads = jax.value_and_grad(self.loss)(w, batch)
        return grads, {"loss": value}

    def gradient(self, w, batch):
        """That of `grad_fn`, by hand."""
        logits = batch["x"] @ w["kernel"] + w["bias"]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = (odds / odds.sum(1, keepdims=True) - np.eye(3)[batch["y"]]) / len(logits)
        return {"kernel": batch["x"].T @ error, "bias": error.sum(0)}

    def descend(self, w, g):
        return jax.tree.map(lambda a, b: a - LR * b, w, g)

    def mesh(self, devices=1):
        return tier_mesh(2, 4, jax.devices()[:devices])

    def train(self, engine, devices=1, rounds=3, calls=1, rows=None):
        mesh = self.mesh(devices)
        rows = place(mesh, self.rows if rows is None else rows)
        data = replicate(mesh, self.data)
        state = engine.init(jax.tree.map(jnp.array, self.params), rows)
        for _ in range(calls):
            state, metrics = engine.run(state, rows, data, KEY, rounds=rounds // calls)
        return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="session")
def fleet():
    rng, n = np.random.default_rng(0), sum(COUNTS)
    data = {
        "x": rng.normal(size=(n, 6)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }
    params = {"kernel": rng.normal(size=(6, 3)).astype(np.float32), "bias": np.zeros(3, "f4")}
    parts = np.split(np.arange(n), np.cumsum(COUNTS)[:-1])
    return Fleet(rows_of(three_tier(8, 2), pack(parts)), data, params)
