"""Asynchronous training against plain loops over the arrivals, and against FedAvg."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import data, tiers, wire
from eejax.cotrain.federated import fedavg, fedprox, flat, place, replicate, rows_of
from eejax.cotrain.federated.asynchronous import asynchronous
from eejax.cotrain.federated.fedasync import constant_staleness, fedasync, hinge, polynomial
from eejax.cotrain.federated.fedbuff import fedbuff
from eejax.tiers import Faults, Turnaround, arrivals

STEPS, BATCH, CLIENTS = 3, 4, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5)).astype(np.float32)
DATA = {"x": jnp.asarray(X), "y": jnp.asarray(X @ RNG.normal(size=5).astype(np.float32))}
PARTS = [np.arange(15 * i, 15 * i + 6 + i) for i in range(CLIENTS)]
INDEX = data.pack(PARTS)
KEY = jax.random.key(3)
PARAMS = {"w": jnp.zeros(5), "b": jnp.zeros(())}


def grad_fn(params, batch, key):
    del key

    def loss(p):
        return jnp.mean((batch["x"] @ p["w"] + p["b"] - batch["y"]) ** 2)

    value, grads = jax.value_and_grad(loss)(params)
    return grads, {"loss": value}


FEDAVG = fedavg(grad_fn, optax.sgd(0.05))


def turn_of(seconds):
    zero = np.zeros(len(seconds))
    return Turnaround(zero, np.asarray(seconds, float), zero)


def events_of(seconds=(1, 1.3, 1.7, 2.3, 4.1, 9.7), events=30, concurrency=4, **faults):
    return arrivals(
        turn_of(seconds), events=events, concurrency=concurrency, seed=1, faults=Faults(**faults)
    )


def run(server, found, algorithm=FEDAVG, codec=None, cuts=(30,)):
    engine = asynchronous(algorithm, server, INDEX, found, steps=STEPS, batch=BATCH, codec=codec)
    state, metrics = engine.init(PARAMS), []
    for count in cuts:
        state, some = engine.run(state, DATA, KEY, count)
        metrics.append(some)
    return state, jax.tree.map(lambda *m: np.concatenate(m), *metrics)


def trained(model, client, turn, mu=0.0):
    """Trains a client by hand from a model in float64; the batches alone come from the package."""
    order, *_ = jax.random.split(jax.random.fold_in(KEY, client), 4)
    row, count = jnp.asarray(INDEX.table)[client], int(INDEX.counts[client])
    picked = np.asarray(data.client_batches(order, row, count, turn * STEPS, STEPS, BATCH))
    w, b = model
    x, y = (np.asarray(DATA[k], np.float64) for k in "xy")
    for rows in picked:
        error = x[rows] @ w + b - y[rows]
        gw, gb = 2 * x[rows].T @ error / BATCH, 2 * error.mean()
        w, b = w - 0.05 * (gw + mu * (w - model[0])), b - 0.05 * (gb + mu * (b - model[1]))
    return w, b


def by_hand(found, receive, mu=0.0):
    """Follows the arrivals one by one; turns begin when all that came at their instant is in."""
    server = {"model": (np.zeros(5), 0.0), "version": 0}
    slots = dict.fromkeys(set(found.slot.tolist()), (server["model"], 0))
    turns, waiting, stale = dict.fromkeys(range(CLIENTS), 0), [], []
    for e, (client, slot) in enumerate(zip(found.client.tolist(), found.slot.tolist())):
        if not found.duplicate[e]:
            pulled, version = slots[slot]
            new = trained(pulled, client, turns[client], mu)
            turns[client] += 1
            waiting.append(slot)
            stale.append(server["version"] - version)
            if not found.lost[e]:
                receive(server, pulled, new, int(INDEX.counts[client]), stale[-1])
        if e + 1 == len(found.time_s) or found.time_s[e + 1] > found.time_s[e]:
            slots |= dict.fromkeys(waiting, (server["model"], server["version"]))
            waiting = []
    return server["model"], stale


def fedasync_by_hand(alpha, s):
    def receive(server, pulled, new, samples, stale):
        del pulled, samples
        a = alpha * s(stale)
        server["model"] = tuple((1 - a) * x + a * n for x, n in zip(server["model"], new))
        server["version"] += 1

    return receive


def fedbuff_by_hand(size, s):
    buffer = []

    def receive(server, pulled, new, samples, stale):
        del samples
        buffer.append([s(stale) * (n - p) for n, p in zip(new, pulled)])
        if len(buffer) == size:
            mean = [sum(parts) / size for parts in zip(*buffer)]
            server["model"] = tuple(x + m for x, m in zip(server["model"], mean))
            server["version"] += 1
            buffer.clear()

    return receive


def check(state, model):
    params = state.server.params
    np.testing.assert_allclose(params["w"], model[0], atol=1e-5)
    np.testing.assert_allclose(params["b"], model[1], atol=1e-5)


FAULTS = [{}, {"jitter": 0.3, "dropout": 0.3, "duplicate": 0.3}]


@pytest.mark.parametrize("faults", FAULTS)
def test_fedasync_is_the_loop_of_the_paper(faults):
    found = events_of(**faults)
    state, metrics = run(fedasync(0.6), found)
    model, stale = by_hand(found, fedasync_by_hand(0.6, lambda t: (t + 1) ** -0.5))
    check(state, model)
    assert metrics["staleness"][~found.duplicate].tolist() == stale
    assert metrics["taken"].tolist() == (~found.lost & ~found.duplicate).tolist()
    assert max(stale) > 2


def test_fedasync_with_clients_that_keep_near_their_model():
    found = events_of()
    state, _ = run(fedasync(0.5, hinge(1, 2)), found, fedprox(grad_fn, optax.sgd(0.05), mu=0.7))
    model, _ = by_hand(
        found, fedasync_by_hand(0.5, lambda t: 1.0 if t <= 2 else 1 / (t - 2 + 1)), mu=0.7
    )
    check(state, model)


@pytest.mark.parametrize("faults", FAULTS)
def test_fedbuff_is_the_loop_of_the_paper(faults):
    found = events_of(**faults)
    state, _ = run(fedbuff(3), found)
    model, stale = by_hand(found, fedbuff_by_hand(3, lambda t: (t + 1) ** -0.5))
    check(state, model)
    assert max(stale) > 0


def test_fedbuff_of_a_whole_cohort_of_equal_clients_is_fedavg():
    found = events_of(seconds=[2.0] * CLIENTS, events=3 * CLIENTS, concurrency=CLIENTS)
    codec = wire.from_name("topk:0.4")
    server = fedbuff(CLIENTS, weighting="samples")
    state, metrics = run(server, found, codec=codec, cuts=(3 * CLIENTS,))
    assert (metrics["staleness"] == 0).all()
    rows = rows_of(tiers.three_tier(ends=CLIENTS, edges=1), INDEX)
    mesh = tiers.tier_mesh(*rows.counts.shape, jax.devices()[:1])
    engine = flat(FEDAVG, mesh, steps=STEPS, batch=BATCH, codec=codec)
    rows, samples = place(mesh, rows), replicate(mesh, DATA)
    same, _ = engine.run(engine.init(PARAMS, rows), rows, samples, KEY, rounds=3)
    check(state, (same.server.params["w"], same.server.params["b"]))


def test_a_run_may_be_cut_anywhere():
    found = events_of(jitter=0.2, dropout=0.2)
    codec = wire.from_name("topk:0.4")  # Keeps residuals.
    whole, metrics = run(fedbuff(2), found, codec=codec)
    parts, pieces = run(fedbuff(2), found, codec=codec, cuts=(7, 1, 22))
    for a, b in zip(jax.tree.leaves((whole, metrics)), jax.tree.leaves((parts, pieces))):
        np.testing.assert_array_equal(a, b)


def test_a_client_that_diverged_is_not_heard():
    def broken(params, batch, key):
        grads, metrics = grad_fn(params, batch, key)
        bad = (batch["y"] > 1.5).any()
        return jax.tree.map(lambda g: jnp.where(bad, jnp.nan, g), grads), metrics

    state, metrics = run(fedasync(), events_of(), fedavg(broken, optax.sgd(0.05)))
    assert 0 < metrics["taken"].sum() < 30
    assert np.isfinite(state.server.params["w"]).all()


def test_functions_of_staleness():
    t = jnp.array([0, 3, 8])
    np.testing.assert_allclose(polynomial(0.5)(t), [1, 0.5, 1 / 3], rtol=1e-6)
    assert constant_staleness(t).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fedasync(1.5), r"alpha must be in \(0, 1\)"),
        (lambda: fedbuff(0), "size must be at least 1"),
        (lambda: fedbuff(1, weighting="sample"), "weighting must be"),
        (
            lambda: asynchronous(FEDAVG, fedasync(), INDEX, events_of(), steps=0, batch=1),
            "steps must be at least 1",
        ),
        (
            lambda: asynchronous(
                FEDAVG, fedasync(), data.pack(PARTS[:3]), events_of(), steps=1, batch=1
            ),
            "there are only 3",
        ),
        (lambda: run(fedasync(), events_of(), cuts=(31,)), r"events must be in \[1, 30\]"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
