"""What evaluation says, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import (
    Epochs,
    FederatedState,
    Rows,
    fedavg,
    place,
    population,
    replicate,
    rows_of,
)
from eejax.cotrain.federated.clients import ClientStack
from eejax.cotrain.personal import (
    Personal,
    Score,
    by_client,
    evaluator,
    fine_tune,
    hold_out,
    local_only,
    mean_score,
    worst_clients,
)
from eejax.data import pack
from eejax.tiers import three_tier, tier_mesh

KEY = jax.random.key(0)
# Nine samples to train on, each client's all alike; and then seven held out, the last unused.
DATA = {"x": np.array([1, 1, 2, 2, 2, 2, 4, 4, 4, 1, 2, 2, 2, 4, 0, np.nan], np.float32)}
TRAIN = [np.arange(2), np.arange(2, 6), np.arange(6, 9)]
HELD = [np.array([9, 14]), np.arange(10, 13), np.array([], int)]


def grad_fn(w, batch, key):
    del key
    return w - batch["x"].mean(), {}


def near(w, samples):
    return {"near": jnp.abs(samples["x"] - w) < 0.6, "error": jnp.abs(samples["x"] - w)}


def rows_for(indices, edges=1):
    return rows_of(three_tier(3, edges), pack(indices))


def state_of(w, own=()):
    return FederatedState(jnp.asarray(w), ClientStack(own, ()), (), jnp.array(0))


TUNED = fine_tune(
    fedavg(grad_fn, optax.sgd(0.5))._replace(broadcast=lambda w: w), grad_fn, optax.sgd(0.5)
)


def judged(state, devices=1, edges=1, personal=TUNED, local=None, **settings):
    mesh = tier_mesh(edges, 2, jax.devices()[:devices])
    settings = {"steps": 2, "batch": 2} | settings
    evaluate = evaluator(personal, near, mesh, **settings)
    rows, held = (replicate(mesh, rows_for(i, edges)) for i in (TRAIN, HELD))
    state, local, data = replicate(mesh, (state, local, DATA))
    return jax.device_get(evaluate(state, rows, held, data, KEY, local=local))


@pytest.mark.parametrize(
    ("devices", "edges", "clients", "at_once"),
    [(1, 1, "scan", 256), (2, 1, "vmap", 2), (4, 2, "chunk:2", 3)],
)
def test_sums_and_weights_of_global_and_personal_models(devices, edges, clients, at_once):
    """Two steps of 1/2 go 3/4 of the way from 0: to 0.75, 1.5 and 3; NaN lies in no client."""
    found = judged(state_of(0.0), devices, edges, clients=clients, at_once=at_once)
    assert set(found) == {"global", "personal"}
    for kind, near_, error in (
        ("global", [1, 0, 0], [1, 6, 0]),
        ("personal", [1, 3, 0], [1, 1.5, 0]),
    ):
        score = found[kind]["near"]
        np.testing.assert_array_equal(score.weight[:3], [2, 3, 0])
        np.testing.assert_array_equal(score.total[:3], near_)
        np.testing.assert_allclose(found[kind]["error"].total[:3], error)
        assert not score.weight[3:].any()
    assert mean_score(found["personal"]["near"]) == 4 / 5
    assert mean_score(found["global"]["near"]) == 1 / 5


def test_epochs_give_each_client_as_many_steps_as_it_has_batches():
    """One step for client 0, two for client 1: to 0.5 and 1.5."""
    found = judged(state_of(0.0), steps=Epochs(1))
    np.testing.assert_allclose(found["personal"]["error"].total, [0.5 + 0.5, 1.5, 0])


def test_no_step_leaves_the_global_model():
    found = judged(state_of(1.9), steps=0)
    np.testing.assert_array_equal(found["personal"]["near"].total, [0, 3, 0])
    np.testing.assert_array_equal(found["global"]["near"].total, [0, 3, 0])


def test_local_only_models_come_along_in_the_same_program():
    local = np.array([[1.0, 5.0, 5.0]], np.float32)
    found = judged(state_of(2.0), local=local, steps=0)
    np.testing.assert_array_equal(found["local"]["near"].total, [1, 0, 0])
    np.testing.assert_array_equal(found["global"]["near"].total, [0, 3, 0])
    alone = local_only(grad_fn, optax.sgd(0.5))
    own = FederatedState((), ClientStack(local, ()), (), jnp.array(0))
    found = judged(own, personal=alone)
    assert set(found) == {"personal"}
    np.testing.assert_array_equal(found["personal"]["near"].total, [1, 0, 0])


def test_clients_are_in_the_order_of_their_numbers():
    mesh = tier_mesh(1, 3, jax.devices()[:1])
    rows, held = (rows_for(i) for i in (TRAIN, HELD))
    turned = [Rows(*(np.ascontiguousarray(a[:, ::-1]) for a in r)) for r in (rows, held)]
    evaluate = evaluator(TUNED, near, mesh, steps=2, batch=2)
    one, two = (
        evaluate(state_of(0.0), *place(mesh, tuple(r)), replicate(mesh, DATA), KEY)
        for r in ([rows, held], turned)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert evaluate._cache_size() == 1


def test_rows_of_a_population_are_shared_out_to_any_number_of_devices():
    mesh = tier_mesh(2, 4)
    rows, held = (replicate(mesh, population(pack(i))) for i in (TRAIN, HELD))
    evaluate = evaluator(TUNED, near, mesh, steps=2, batch=2)
    found = evaluate(*replicate(mesh, (state_of(0.0), rows, held, DATA)), KEY)
    np.testing.assert_array_equal(found["personal"]["near"].total, [1, 3, 0])


def test_what_is_deployed_may_differ_from_what_is_sent_in_training():
    personal = Personal(TUNED.algorithm, TUNED.personalise, deploy=lambda w: w + 2)
    found = judged(state_of(0.0), personal=personal, steps=0)
    np.testing.assert_array_equal(found["global"]["near"].total, [0, 3, 0])


def test_the_worst_tenth_is_the_mean_of_the_lowest_clients():
    right = np.array([9, 1, 5, 10, 4, 8, 8, 8, 8, 8, 8, 3], float)
    score = Score(right, np.array([10] * 11 + [4], float))
    assert worst_clients(score) == pytest.approx((0.1 + 0.4) / 2)  # Two of twelve.
    assert worst_clients(score, 1.0) == pytest.approx(by_client(score).mean())
    assert mean_score(score) == pytest.approx(80 / 114)
    parts = [Score(score.total[i], score.weight[i]) for i in (slice(5), slice(5, None))]
    total = Score(sum(p.total.sum() for p in parts), sum(p.weight.sum() for p in parts))
    assert mean_score(total) == mean_score(score)
    assert mean_score(Score(*map(jnp.asarray, score))) == mean_score(score)
    nobody = Score(np.zeros(2), np.zeros(2))
    assert np.isnan([mean_score(nobody), worst_clients(nobody)]).all()


def test_held_out_samples_are_of_their_client_and_not_trained_on():
    parts = [np.arange(0, 9), np.arange(9, 10), np.arange(10, 50)]
    train, held = hold_out(parts, 0.25, seed=3)
    assert [len(h) for h in held] == [2, 0, 10]
    for part, t, h in zip(parts, train, held):
        np.testing.assert_array_equal(np.sort(np.concatenate([t, h])), part)
    again, other = (hold_out(parts, 0.25, seed=s)[1][2] for s in (3, 4))
    np.testing.assert_array_equal(held[2], again)
    assert (held[2] != other).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: judged(state_of(0.0), steps=-1), "steps must be at least 0, got -1"),
        (lambda: judged(state_of(0.0), clients="map"), "clients 'map' is none of auto"),
        (lambda: hold_out([], 1.0, 0), "share must be in"),
        (lambda: worst_clients(Score([1.0], [1.0]), 0), "share must be in"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
