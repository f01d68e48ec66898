"""VHL: its loss by hand, the engine against loops, FedAvg as its special case."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import fedavg, flat
from eejax.cotrain.skew import Virtual, gaussian_classes, match, price_virtual, vhl
from eejax.tiers import by_kind

STEPS, ROUNDS, VIRTUAL = 2, 2, 5


def apply(w, x):
    """Features are the logits of a linear model: what is tested is what is done with them."""
    logits = x @ w["kernel"] + w["bias"][None]
    return logits, logits


VIRTUALS = gaussian_classes(jax.random.key(3), (6,), classes=3, per_class=4)


def match_by_loops(features, labels, virtual, virtual_labels, temperature):
    """Khosla et al., equation 2, anchors real and the others virtual."""
    terms = []
    for z, y in zip(features, labels):
        cos = [z @ v / np.linalg.norm(z) / np.linalg.norm(v) / temperature for v in virtual]
        logs = [c - np.log(np.exp(cos).sum()) for c in cos]
        same = [log for log, label in zip(logs, virtual_labels) if label == y]
        if same:
            terms.append(-np.mean(same))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("virtual_labels", [[0, 1, 2, 2], [0, 0, 0, 0], [5, 5, 5, 5]])
def test_matching_equals_loops(virtual_labels):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(4, 4))
    args = (a, np.array([0, 1, 2, 0, 1]), b, np.array(virtual_labels), 0.5)
    ours = match(*(jnp.asarray(x) for x in args[:4]), 0.5)
    np.testing.assert_allclose(ours, match_by_loops(*args), rtol=1e-5)


def test_virtual_classes_are_separable_and_share_patterns():
    virtual = gaussian_classes(jax.random.key(0), (64,), classes=10, per_class=20)
    means = np.asarray(virtual.x).reshape(10, 20, 64).mean(1)
    nearest = np.square(np.asarray(virtual.x)[:, None] - means[None]).sum(2).argmin(1)
    assert (nearest == np.asarray(virtual.y)).all()
    assert np.asarray(virtual.x - np.repeat(means, 20, 0)).std() == pytest.approx(0.3, rel=0.05)
    assert means.std() == pytest.approx(1.0, rel=0.1)


def loss_by_hand(w, real, drawn, fixed, alpha, lam):
    ce, virtual_ce = (
        -jnp.take_along_axis(jax.nn.log_softmax(apply(w, x)[1]), y[:, None], 1).mean()
        for x, y in ((real["x"], real["y"]), drawn)
    )
    return ce + alpha * virtual_ce + lam * match(apply(w, real["x"])[0], real["y"], *fixed, 0.1)


def loop(fleet, alpha, lam):
    """Tang et al.: every client, step by step, with the virtual samples that its keys draw."""
    gradient = jax.jit(jax.grad(loss_by_hand))
    w = fleet.params
    for r in range(ROUNDS):
        models = []
        for k in range(8):
            w_k = w
            keys = fleet.keys_of(k, r * STEPS, STEPS)
            for batch, key in zip(fleet.batches_of(k, r * STEPS, STEPS), keys):
                chosen = jax.random.randint(key, (VIRTUAL,), 0, 12)
                drawn = Virtual(*(a[chosen] for a in VIRTUALS))
                fixed = (apply(w_k, drawn.x)[0], drawn.y)
                w_k = fleet.descend(w_k, gradient(w_k, batch, drawn, fixed, alpha, lam))
            models.append(w_k)
        p = np.array(fleet.counts) / sum(fleet.counts)
        w = jax.tree.map(lambda *ws, p=p: sum(a * b for a, b in zip(p, ws)), *models)
    return w


def make(fleet, alpha=1.0, lam=0.5):
    grad_fn = vhl(apply, VIRTUALS, batch=VIRTUAL, alpha=alpha, lam=lam)
    return fedavg(grad_fn, optax.sgd(fleet.lr))


@pytest.mark.parametrize(("devices", "clients"), [(1, "scan"), (8, "vmap")])
def test_loop_equals_scan_vmap_and_shard_map(fleet, devices, clients):
    engine = flat(make(fleet), fleet.mesh(devices), steps=STEPS, batch=fleet.batch, clients=clients)
    state, metrics = fleet.train(engine, devices, ROUNDS)
    chex.assert_trees_all_close(state.server.params, loop(fleet, 1.0, 0.5), rtol=1e-5, atol=1e-6)
    assert set(metrics) >= {"loss", "virtual", "match"}


def test_without_virtual_terms_it_is_fedavg(fleet):
    ours, theirs = (
        fleet.train(flat(algorithm, fleet.mesh(), steps=STEPS, batch=fleet.batch))[0]
        for algorithm in (make(fleet, 0.0, 0.0), fedavg(fleet.grad_fn, optax.sgd(fleet.lr)))
    )
    chex.assert_trees_all_close(ours.server.params, theirs.server.params, rtol=1e-5, atol=1e-6)


def test_virtual_samples_are_sent_once_to_each_client():
    assert by_kind(price_virtual(VIRTUALS, 8))["data"] == 8 * 12 * (6 + 1) * 4


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"lam": -1.0}, {"temperature": 0.0}])
def test_wrong_weights_are_refused(wrong):
    with pytest.raises(ValueError, match="must be >= 0 and temperature > 0"):
        vhl(apply, VIRTUALS, batch=2, **wrong)
