"""LoAdaBoost: the engine against loops, its two ends that are FedAvg, and where it saves work."""

import chex
import jax
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import Epochs, fedavg, flat, hierfavg, population, sampled, samplers
from eejax.cotrain.skew import checkpoints, loadaboost, most_epochs, with_median
from eejax.data import ClientIndex

E, ROUNDS = 4, 3


def make(fleet, **settings):
    return loadaboost(fleet.grad_fn, fleet.loss, optax.sgd(fleet.lr), E, **settings)


def make_flat(fleet, algorithm, devices=1, clients="scan"):
    return flat(
        algorithm, fleet.mesh(devices), steps=most_epochs(E), batch=fleet.batch, clients=clients
    )


def loop(fleet, rounds=ROUNDS, median=1.0):
    """Huang et al., the client and the server procedure: nothing but loops."""
    w, trained_for = fleet.params, []
    for r in range(rounds):
        models, losses, epochs = [], [], []
        for k, n in enumerate(fleet.counts):
            epoch = -(-n // fleet.batch)
            start = r * 3 * E // 2 * epoch
            batches = fleet.batches_of(k, start, 3 * E // 2 * epoch)
            w_k, total, retraining = w, 0, 0
            todo = E // 2
            while True:
                for batch in batches[total * epoch : (total + todo) * epoch]:
                    g = fleet.gradient(w_k, batch)
                    w_k = fleet.descend(w_k, g)
                total += todo
                loss = np.mean([fleet.loss(w_k, b) for b in batches[:epoch]])
                if loss <= median or total == 3 * E // 2:
                    break
                retraining += 1
                todo = min(max(E // 2 - retraining + 1, 1), 3 * E // 2 - total)
            models.append(w_k)
            losses.append(loss)
            epochs.append(total)
        p = np.array(fleet.counts) / sum(fleet.counts)
        w = mean_by(p, models)
        median = float(np.median(losses))
        trained_for.append((p * epochs).sum())
    return w, median, trained_for


def mean_by(p, models):
    return jax.tree.map(lambda *ws: sum(a * b for a, b in zip(p, ws)), *models)


@pytest.mark.parametrize(("devices", "clients"), [(1, "scan"), (1, "vmap"), (8, "scan")])
def test_loop_equals_scan_vmap_and_shard_map(fleet, devices, clients):
    engine = with_median(make_flat(fleet, make(fleet), devices, clients))
    state, metrics = fleet.train(engine, devices)
    w, median, epochs = loop(fleet)
    chex.assert_trees_all_close(state.server.server.params, w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.server.median, median, rtol=1e-5)
    np.testing.assert_allclose(metrics["epochs"], epochs, rtol=1e-6)
    assert E / 2 < min(epochs) < max(epochs) < 3 * E / 2


@pytest.mark.parametrize(("median", "epochs"), [(3e38, E // 2), (-3e38, 3 * E // 2)])
def test_with_a_threshold_that_decides_nothing_it_is_fedavg(fleet, median, epochs):
    """One round, since later ones begin at other epochs."""
    ours, metrics = fleet.train(make_flat(fleet, make(fleet, median=median)), rounds=1)
    average = fedavg(fleet.grad_fn, optax.sgd(fleet.lr))
    engine = flat(average, fleet.mesh(), steps=Epochs(epochs), batch=fleet.batch)
    theirs, _ = fleet.train(engine, rounds=1)
    chex.assert_trees_all_close(ours.server.server.params, theirs.server.params, rtol=1e-6)
    assert metrics["epochs"].tolist() == [epochs]


def test_one_compilation_and_no_difference_where_a_run_is_cut(fleet):
    engine = with_median(make_flat(fleet, make(fleet), devices=8))
    whole, _ = fleet.train(engine, 8, rounds=2)
    cut, _ = fleet.train(engine, 8, rounds=2, calls=2)
    assert engine.run._cache_size() == 2  # Rounds of one call are static.
    chex.assert_trees_all_equal(whole, cut)


def test_hierarchical_with_one_edge_round_is_flat(fleet):
    hierarchical = hierfavg(make(fleet), fleet.mesh(), k1=most_epochs(E), k2=1, batch=fleet.batch)
    ours, _ = fleet.train(with_median(hierarchical), rounds=2)
    theirs, _ = fleet.train(with_median(make_flat(fleet, make(fleet))), rounds=2)
    chex.assert_trees_all_close(ours.server, theirs.server, rtol=1e-5, atol=1e-6)


def test_only_clients_of_the_cohort_count_in_the_median(fleet):
    index = ClientIndex(*(np.asarray(x).reshape(8, *x.shape[2:]) for x in fleet.rows[:2]))
    engine = sampled(
        make(fleet), fleet.mesh(), samplers.uniform(3), steps=most_epochs(E), batch=fleet.batch
    )
    rows = jax.tree.map(np.asarray, population(index))
    state = engine.init(fleet.params, rows)
    state, _ = with_median(engine).run(state, rows, fleet.data, fleet.key, rounds=1)
    losses = np.asarray(state.clients.state)
    assert np.isfinite(losses).sum() == 3
    np.testing.assert_allclose(state.server.median, np.nanmedian(losses))


@pytest.mark.parametrize("epochs", [0, 3])
def test_odd_epochs_are_refused(epochs):
    with pytest.raises(ValueError, match="must be even"):
        checkpoints(epochs)


def test_an_infinite_median_is_refused(fleet):
    with pytest.raises(ValueError, match="median must be finite"):
        make(fleet, median=np.inf)
