"""Data sharing: who gets what, its bytes, and the gain on digits of two classes a client."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import fedavg, flat, place, replicate, rows_of
from eejax.cotrain.skew import data_sharing, hold_out, price_sharing, warm_up
from eejax.data import client_batches, load, pack, shards
from eejax.tiers import by_kind, three_tier, tier_mesh

LABELS = np.random.default_rng(0).integers(0, 4, 210)


def test_shared_samples_are_uniform_over_classes_and_nobodys_own():
    shared, private = hold_out(LABELS, 0.05, seed=1)
    assert len(shared) == round(0.05 * len(private)) == 10
    assert sorted(np.bincount(LABELS[shared]).tolist()) == [2, 2, 3, 3]
    assert np.array_equal(np.sort(np.append(shared, private)), np.arange(210))
    assert not np.array_equal(shared, hold_out(LABELS, 0.05, seed=2)[0])


def test_every_client_keeps_its_own_and_gets_a_random_part():
    index = pack([[0, 1, 2], [3], []])
    shared = np.arange(100, 120)
    new = data_sharing(index, shared, 0.25, seed=0)
    assert new.counts.tolist() == [8, 6, 5]
    parts = [set(row[:n].tolist()) for row, n in zip(new.table, new.counts)]
    own = [{0, 1, 2}, {3}, set()]
    for part, mine in zip(parts, own):
        assert mine < part
        assert len(part - mine) == 5
        assert part - mine < set(shared.tolist())
    assert parts[1] - own[1] != parts[2]


@pytest.mark.parametrize(("beta", "alpha"), [(0.0, 1.0), (0.2, 0.0)])
def test_nothing_shared_is_fedavg(beta, alpha):
    shared, private = hold_out(LABELS, beta, seed=0)
    index = pack(np.array_split(private, 4))
    chex.assert_trees_all_equal(data_sharing(index, shared, alpha, seed=0), index)
    if beta == 0:
        assert private.tolist() == list(range(210))
    assert price_sharing(index, shared, alpha, {"y": LABELS})[0].nbytes == 0


def test_raw_samples_travel_as_data():
    data = {"x": np.zeros((210, 5), np.float32), "y": LABELS.astype(np.int32)}
    ledger = price_sharing(pack([[0], [1], [2]]), np.arange(40), 0.5, data)
    assert by_kind(ledger) == {"data": 3 * 20 * 24, "information": 0, "knowledge": 0}


def squares(w, batch, key):
    del key
    return w - batch["x"].mean(), {}


def test_warm_up_is_training_on_what_is_shared():
    data = {"x": np.arange(20, dtype=np.float32)}
    shared, key = np.array([3, 5, 8, 13]), jax.random.key(3)
    ours = warm_up(squares, optax.sgd(0.5), jnp.array(1.0), data, shared, steps=6, batch=2, key=key)
    w = 1.0
    for picked in client_batches(jax.random.split(key)[0], shared.astype("i4"), 4, 0, 6, 2):
        assert set(picked.tolist()) <= {3, 5, 8, 13}
        w -= 0.5 * (w - data["x"][np.asarray(picked)].mean())
    np.testing.assert_allclose(ours, w, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hold_out(LABELS, -0.1, 0), "beta must be >= 0"),
        (lambda: hold_out([0, 0, 0, 0, 1], 4.0, 0), "class 1 has 1 samples, not 2"),
        (lambda: data_sharing(pack([[0]]), np.arange(3), 1.5, 0), r"alpha must be in \[0, 1\]"),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def logits_of(w, x):
    return jax.nn.relu(x @ w["w1"] + w["b1"][None]) @ w["w2"] + w["b2"][None]


def grad_fn(w, batch, key):
    del key

    def loss(w):
        logits = logits_of(w, batch["x"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

    return jax.grad(loss)(w), {}


def digits():
    data, sizes = [], []
    for split in ("train", "test"):
        source = load("digits", split)
        x = source.images.reshape(len(source.labels), -1).astype(np.float32) / 255
        data.append({"x": x, "y": source.labels})
        sizes.append(len(x))
    return data


@functools.cache
def engine_and_mesh():
    mesh = tier_mesh(1, 10, jax.devices()[:1])
    return flat(fedavg(grad_fn, optax.sgd(0.1)), mesh, steps=20, batch=10), mesh


def accuracy_after(index, data, test, seed, rounds=10):
    engine, mesh = engine_and_mesh()
    rows = place(mesh, rows_of(three_tier(10, 1), index))
    a, b = jax.random.split(jax.random.key(seed))
    params = {
        "w1": jax.random.normal(a, (64, 32)) * (2 / 64) ** 0.5, "b1": jnp.zeros(32),
        "w2": jax.random.normal(b, (32, 10)) * (2 / 32) ** 0.5, "b2": jnp.zeros(10),
    }  # fmt: skip
    state, _ = engine.run(
        engine.init(params, rows), rows, replicate(mesh, data), jax.random.key(seed), rounds=rounds
    )
    return float((logits_of(state.server.params, test["x"]).argmax(1) == test["y"]).mean())


def test_five_percent_of_shared_data_help_under_two_classes_a_client():
    """The published claim in small: 10 clients, 10 rounds of 20 steps, 3 seeds."""
    data, test = digits()
    gains = []
    for seed in range(3):
        shared, private = hold_out(data["y"], 0.05, seed)
        parts = [private[i] for i in shards(data["y"][private], 10, seed)]
        without = accuracy_after(pack(parts), data, test, seed)
        with_it = accuracy_after(data_sharing(pack(parts), shared, 1.0, seed), data, test, seed)
        gains.append(with_it - without)
        print(f"seed {seed}: {without:.3f} -> {with_it:.3f}")
    assert min(gains) > 0.02, gains
