"""The contract of `Replica`: a new data-parallel method joins by adding a row to METHODS.

Every method comes with its pseudo-code as a plain Python loop over nodes, which the compiled step
must reproduce on any number of devices, with unequal batches and micro-batches.
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
from jax import lax

from eejax import trees
from eejax.cotrain.replica import (
    HIERARCHICAL,
    NESTED,
    Batch,
    async_server,
    data_parallel,
    gossip,
    mean_grad,
    metropolis,
    ring,
    split,
    zero,
)
from eejax.tiers import collectives, make_mesh

AXES = ("cloud", "edge", "end")
SIZES = (4, 1, 3, 2, 4, 0, 2, 3)  # Unequal, odd, and one node with nothing.
STEPS, MICRO, LR = 3, 2, 0.3
KEY = jax.random.key(3)
DELAYS = np.array([[0, 1, 2, -1, 0, 3, 1, 0], [-1, 2, 0, 1, -1, 0, 3, 2]])
STAR = metropolis(np.eye(8, dtype=int)[[0] * 8] | np.eye(8, dtype=int)[[0] * 8].T)


def loss_fn(w, data, key):
    """A small net; the noise shows whether every micro-batch has its own key."""
    noise = jax.random.normal(key, (8,))
    h = jnp.tanh(data["x"] @ w["kernel"] + (w["bias"] + 0.1 * noise)[None])
    logits = h @ w["head"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, data["y"])
    return loss, {"right": (logits.argmax(-1) == data["y"]).astype(jnp.float32)}


GRAD_FN = mean_grad(loss_fn)


def make_params():
    rng = np.random.default_rng(1)
    shapes = {"kernel": (5, 8), "bias": (8,), "head": (8, 3)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


@functools.cache
def make_batches():
    rng = np.random.default_rng(0)
    n = sum(SIZES)
    return [
        split(
            {
                "x": rng.normal(size=(n, 5)).astype(np.float32),
                "y": rng.integers(0, 3, n).astype(np.int32),
            },
            SIZES,
            MICRO,
        )
        for _ in range(STEPS)
    ]


@functools.cache
def jit_grad():
    return jax.jit(GRAD_FN)


def node_grad(params, batch, node, step):
    """Mean gradient and metrics of one node over its own samples, and their number."""
    total, grads, metrics = 0.0, None, None
    for m in range(MICRO):
        key = jax.random.fold_in(jax.random.fold_in(KEY, step), node * MICRO + m)
        micro = jax.tree.map(lambda x, m=m: x[node, m], batch)
        weight = micro.weights.sum()
        out = jax.tree.map(lambda x, w=weight: w * x, jit_grad()(params, micro, key))
        total += weight
        grads, metrics = out if grads is None else trees.add((grads, metrics), out)
    return jax.tree.map(lambda x: x / max(total, 1), (grads, metrics)), total


def weighted(items, weights):
    weights = np.asarray(weights, np.float32) / np.sum(weights)
    return jax.tree.map(lambda *x: sum(w * a for w, a in zip(weights, x)), *items)


def descend(params, grads):
    return jax.tree.map(lambda p, g: p - LR * g, params, grads)


def synchronous_loop(params):
    metrics = []
    for t, batch in enumerate(make_batches()):
        nodes, weights = zip(*(node_grad(params, batch, k, t) for k in range(8)))
        grads, m = weighted(nodes, weights)
        params = descend(params, grads)
        metrics.append(m)
    return params, metrics


def async_loop(params, aware):
    history, metrics = [params], []
    for t, batch in enumerate(make_batches()):
        arrived = [(k, tau) for k, tau in enumerate(DELAYS[t % 2]) if tau >= 0]
        nodes, weights = zip(
            *(node_grad(history[max(t - tau, 0)], batch, k, t) for k, tau in arrived)
        )
        scale = [1 / max(tau, 1) if aware else 1.0 for _, tau in arrived]
        scaled = [jax.tree.map(lambda g, s=s: g * s, g) for (g, _), s in zip(nodes, scale)]
        history.append(descend(history[-1], weighted(scaled, weights)))
        m = weighted([m for _, m in nodes], weights)
        metrics.append({**m, "staleness": np.mean([tau for _, tau in arrived])})
    return history[-1], metrics


def gossip_loop(params, w, adapt_first):
    x, metrics = [params] * 8, []
    for t, batch in enumerate(make_batches()):
        nodes, weights = zip(*(node_grad(x[k], batch, k, t) for k in range(8)))
        grads = [g for g, _ in nodes]
        if adapt_first:
            stepped = [descend(a, g) for a, g in zip(x, grads)]
            x = [weighted(stepped, w[i]) for i in range(8)]
        else:
            x = [descend(weighted(x, w[i]), grads[i]) for i in range(8)]
        metrics.append(weighted([m for _, m in nodes], weights))
    return weighted(x, np.ones(8)), metrics


class Row(NamedTuple):
    make: Callable  # (mesh) -> Replica
    loop: Callable  # (params) -> (params, [metrics of a step])


def method(maker, **kwargs):
    return lambda mesh: maker(GRAD_FN, optax.sgd(LR), mesh, AXES, **kwargs)


METHODS = {
    "synchronous": Row(method(data_parallel), synchronous_loop),
    "hierarchical": Row(method(data_parallel, reduce=HIERARCHICAL), synchronous_loop),
    "nested": Row(method(data_parallel, reduce=NESTED), synchronous_loop),
    "zero1": Row(method(zero, stage=1), synchronous_loop),
    "zero2": Row(method(zero, stage=2), synchronous_loop),
    "zero3": Row(method(zero, stage=3), synchronous_loop),
    "async": Row(method(async_server, delays=DELAYS), lambda p: async_loop(p, False)),
    "async_aware": Row(
        method(async_server, delays=DELAYS, staleness_aware=True), lambda p: async_loop(p, True)
    ),
    "gossip_ring": Row(method(gossip, w=ring(8)), lambda p: gossip_loop(p, ring(8), False)),
    "gossip_star_adapt_first": Row(
        method(gossip, w=STAR, adapt_first=True), lambda p: gossip_loop(p, STAR, True)
    ),
}
EVERY = pytest.mark.parametrize("name", METHODS)
SHAPES = {8: (2, 2, 2), 2: (1, 2, 1), 1: (1, 1, 1)}


@functools.cache
def made(name, devices=8):
    mesh = make_mesh(SHAPES[devices], AXES)
    return METHODS[name].make(mesh), mesh


@functools.cache
def compiled(name, devices=8):
    replica, _ = made(name, devices)
    return replica.step.lower(replica.init(make_params()), make_batches()[0], KEY).compile()


@functools.cache
def trained(name, devices=8):
    replica, _ = made(name, devices)
    state, metrics = replica.init(make_params()), []
    for batch in make_batches():
        state, m = compiled(name, devices)(state, batch, KEY)
        metrics.append(jax.device_get(m))
    return jax.device_get(replica.params(state)), metrics


def assert_close(a, b):
    chex.assert_trees_all_close(a, b, rtol=2e-6, atol=1e-6)


@EVERY
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_loop_equals_the_step_on_any_number_of_devices(name, devices):
    params, metrics = METHODS[name].loop(make_params())
    got_params, got_metrics = trained(name, devices)
    assert_close(got_params, params)
    assert_close(got_metrics, [dict(m) for m in metrics])


@EVERY
def test_compiles_once_and_keeps_the_buffers_of_the_caller(name):
    replica, _ = made(name)
    params = make_params()
    state = replica.init(params)
    for batch in make_batches():
        state, _ = replica.step(state, batch, KEY)
    assert replica.step._cache_size() == 1
    assert int(state.count) == STEPS
    chex.assert_trees_all_equal(params, make_params())  # Not given up by the donation.


@EVERY
def test_steps_in_one_scan_equal_steps(name):
    replica, _ = made(name)
    batches = jax.tree.map(lambda *x: np.stack(x), *make_batches())

    def run(state, batches):
        return lax.scan(lambda s, batch: replica.step(s, batch, KEY), state, batches)

    state, metrics = jax.jit(run)(replica.init(make_params()), batches)
    params, each = trained(name)
    assert_close(jax.device_get(replica.params(state)), params)
    assert_close(jax.device_get(metrics), jax.tree.map(lambda *x: np.stack(x), *each))


@EVERY
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_bytes_by_tier_equal_theory(name, devices):
    replica, mesh = made(name, devices)
    found = collectives(compiled(name, devices), mesh)
    theory = replica.nbytes(trees.abstract(make_params()), trees.abstract(make_batches()[0]))
    assert found.unknown_loops == 0
    assert found.by_tier == pytest.approx(theory, abs=1e-9)
    assert (sum(theory.values()) > 0) == (devices > 1)


@EVERY
def test_errors_name_the_field(name):
    make, mesh = METHODS[name].make, make_mesh((2, 2, 2), ("cloud", "edges", "end"))
    with pytest.raises(ValueError, match=r"axes: 'edge' is none of .*did you mean 'edges'"):
        make(mesh)
    replica, _ = made(name)
    batch = make_batches()[0]
    with pytest.raises(ValueError, match="batch: 7 nodes do not divide over 8 devices"):
        replica.step(replica.init(make_params()), jax.tree.map(lambda x: x[:7], batch), KEY)
    wrong = Batch(batch.data, batch.weights[:, :1])
    with pytest.raises(ValueError, match=r"must begin with the same \[nodes, micro, batch\]"):
        replica.step(replica.init(make_params()), wrong, KEY)
