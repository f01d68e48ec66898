"""SCAFFOLD on clients of one or two classes, where wrong implementations fall to chance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import data
from eejax.cotrain.federated import (
    Epochs,
    fedavg,
    population,
    replicate,
    sampled,
    samplers,
    scaffold,
)
from eejax.tiers import tier_mesh

LR = 0.05


def logits(w, x):
    return jax.nn.relu(x @ w["hidden"] + w["bias"][None]) @ w["out"]


def grad_fn(w, batch, key):
    del key

    def loss(w):
        each = optax.softmax_cross_entropy_with_integer_labels(logits(w, batch["x"]), batch["y"])
        return each.mean()

    return jax.grad(loss)(w), {}


ALGORITHMS = {"fedavg": fedavg(grad_fn, optax.sgd(LR)), "scaffold": scaffold(grad_fn, LR)}


@functools.cache
def digits():
    source = data.load("digits")
    x = np.asarray(source.images, np.float32).reshape(len(source.images), -1)
    return {"x": x / x.max(), "y": np.asarray(source.labels, np.int32)}


@functools.cache
def accuracy(name, classes, clients, cohort, rounds):
    """Of the global model on all samples; client i holds the classes from i mod 10 on."""
    y = digits()["y"]
    deal = [[] for _ in range(clients)]
    for c in range(10):
        own = [k for k in range(clients) if (c - k) % 10 < classes]
        for k, part in zip(own, np.array_split(np.flatnonzero(y == c), len(own))):
            deal[k].extend(part)
    mesh = tier_mesh(1, 1, jax.devices()[:1])
    rows, samples = replicate(mesh, (population(data.pack(deal)), digits()))
    engine = sampled(
        ALGORITHMS[name], mesh, samplers.uniform(cohort), steps=Epochs(2), batch=10
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (64, 32)) * 0.18,
        "bias": jnp.zeros(32),
        "out": jax.random.normal(keys[1], (32, 10)) * 0.25,
    }
    state, _ = engine.run(engine.init(params, rows), rows, samples, keys[0], rounds=rounds)
    said = np.asarray(logits(jax.device_get(state.server.params), digits()["x"])).argmax(-1)
    return float((said == y).mean())


@pytest.mark.parametrize(
    ("classes", "clients", "cohort", "rounds"),
    [(1, 10, 10, 30), (2, 10, 10, 30), (2, 100, 10, 100)],
)
def test_it_does_not_collapse_but_beats_fedavg(classes, clients, cohort, rounds):
    ours, plain = (
        accuracy(name, classes, clients, cohort, rounds) for name in ("scaffold", "fedavg")
    )
    assert plain < ours
    assert ours > 0.85
