"""SkewScout: travelling models against loops, hill climbing, and what it chooses on which data."""

import chex
import jax
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import fedavg, flat, place, replicate
from eejax.cotrain.skew import (
    climb,
    keep_models,
    objective,
    skewscout,
    start_climb,
    travel,
)

THETAS = (1, 2, 4, 8)


def correct(w, samples):
    return (samples["x"] @ w["kernel"] + w["bias"][None]).argmax(1) == samples["y"]


def make(fleet):
    return keep_models(fedavg(fleet.grad_fn, optax.sgd(fleet.lr)))


def test_clients_keep_the_model_before_averaging_and_training_is_the_same(fleet):
    kept, plain = (
        fleet.train(flat(a, fleet.mesh(), steps=2, batch=fleet.batch), rounds=1)[0]
        for a in (make(fleet), fedavg(fleet.grad_fn, optax.sgd(fleet.lr)))
    )
    chex.assert_trees_all_equal(kept.server, plain.server)
    for k in range(8):
        w = fleet.params
        for batch in fleet.batches_of(k, 0, 2):
            w = fleet.descend(w, fleet.gradient(w, batch))
        ours = jax.tree.map(lambda x, k=k: x.reshape(8, *x.shape[2:])[k], kept.clients.state.model)
        chex.assert_trees_all_close(ours, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("empty", [(), (2, 7), tuple(range(1, 8))])
def test_travelling_models_equal_loops(fleet, empty):
    rng = np.random.default_rng(0)
    models = {
        "kernel": rng.normal(size=(2, 4, 6, 3)).astype(np.float32),
        "bias": rng.normal(size=(2, 4, 3)).astype(np.float32),
    }
    counts = np.array(fleet.rows.counts)
    counts.reshape(-1)[list(empty)] = 0
    rows = fleet.rows._replace(counts=counts)
    own = [row[:n] for row, n in zip(rows.table.reshape(8, -1), counts.reshape(-1))]
    who, losses = [k for k in range(8) if k not in empty], []
    for i, k in enumerate(who):
        w = {name: m.reshape(8, *m.shape[2:])[k] for name, m in models.items()}
        home, away = (
            np.mean(correct(w, {n: a[own[c]] for n, a in fleet.data.items()}))
            for c in (k, who[(i + 1) % len(who)])
        )
        losses.append(home - away)
    ours = jax.jit(lambda *a: travel(correct, *a))(models, rows, fleet.data)
    np.testing.assert_allclose(ours, np.mean(losses), atol=1e-6)


def test_objective_by_hand():
    assert objective(0.05, 1.0) == 1.0
    assert objective(0.15, 0.25, tolerance=0.05, lambda_al=10.0, lambda_c=2.0) == pytest.approx(1.5)


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("best", range(4))
def test_climbing_finds_the_best_of_a_valley_and_stays(start, best):
    state = start_climb(4, start)
    for _ in range(8):
        state = climb(state, abs(state.place - best), memory=100)
    assert state.place == best
    assert climb(state, 0.0, memory=100).place == best


@pytest.mark.parametrize("best", range(4))
def test_it_forgets_and_looks_again(best):
    """Neighbours of the best are tried every few steps, and left at once."""
    state, places = start_climb(4), []
    for _ in range(40):
        places.append(state.place)
        state = climb(state, abs(state.place - best), memory=5)
    later = np.array(places[10:])
    assert (abs(later - best) <= 1).all()
    assert 0.6 < (later == best).mean() < 1
    assert not ((later[1:] != best) & (later[:-1] != best)).any()


def test_climbing_follows_when_the_objective_changes():
    state = start_climb(4, 3)
    for _ in range(6):
        state = climb(state, 3 - state.place)
    assert state.place == 3
    places = []
    for _ in range(20):  # Now little communication costs accuracy.
        state = climb(state, 10 * state.place)
        places.append(state.place)
    assert np.bincount(places).argmax() == 0


def run(fleet, data, periods=5, **settings):
    rows = place(fleet.mesh(), fleet.rows)

    def engine_of(theta):
        return flat(make(fleet), fleet.mesh(), steps=theta, batch=fleet.batch)

    scout = skewscout(engine_of, THETAS, correct, steps=8, **settings)
    return scout(fleet.params, rows, replicate(fleet.mesh(), data), fleet.key, periods)


def test_it_communicates_often_under_skew_and_seldom_without(fleet):
    """With labels that are the client's own, a model that trains alone is of no use elsewhere."""
    owner, n = np.repeat(np.arange(8), fleet.counts), sum(fleet.counts)
    skewed = {"x": np.zeros((n, 6), np.float32), "y": (owner % 3).astype(np.int32)}
    alike = {"x": np.zeros((n, 6), np.float32), "y": np.zeros(n, np.int32)}
    for data, theta in ((skewed, 1), (alike, 8)):
        state, history = run(fleet, data, start=1, tolerance=0.1)
        assert history[-1].theta == theta
        assert int(state.steps) == 5 * 8
    assert history[0].nbytes == 8 * 84 * (2 * 4 + 1)
    assert history[0].objective == 0.5


def test_a_single_theta_is_fedavg(fleet):
    rows = place(fleet.mesh(), fleet.rows)
    engine = flat(make(fleet), fleet.mesh(), steps=2, batch=fleet.batch)
    scout = skewscout(lambda theta: engine, (2,), correct, steps=4)
    state, history = scout(fleet.params, rows, fleet.data, fleet.key, periods=2)
    theirs, _ = fleet.train(engine, rounds=4)
    chex.assert_trees_all_close(state.server, theirs.server, rtol=1e-6)
    assert [p.theta for p in history] == [2, 2]


@pytest.mark.parametrize(
    ("thetas", "start", "message"),
    [
        ((2, 1), 0, "must ascend and divide"),
        ((1, 3), 0, "must ascend and divide"),
        ((1, 2), 2, "position in 2 thetas"),
    ],
)
def test_wrong_settings_are_refused(thetas, start, message):
    with pytest.raises(ValueError, match=message):
        skewscout(lambda theta: None, thetas, correct, steps=4, start=start)
