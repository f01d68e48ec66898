"""ZeRO-3 of a stack: the numbers of one device, bytes of theory, and one layer whole at a time."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.cotrain.replica import (
    Layered,
    data_parallel,
    layered_loss,
    mean_grad,
    split,
    zero,
    zero3,
)
from eejax.tiers import collectives, make_mesh

KEY = jax.random.key(0)
AXES = ("edge", "end")
H, WIDTH, L, MICRO, N = 8, 24, 3, 2, 8
SIZES = (4, 1, 3, 2, 4, 0, 2, 3)  # Unequal, odd, and one node with nothing.


def mesh():
    return make_mesh((2, 4), AXES)


def layer(p, x, key):
    """Noise shows whether every layer of every micro-batch has its own key."""
    x = x + 0.1 * jax.random.normal(key, (H,))[None]
    return x + jnp.tanh(x @ p["in"] + p["bias"][None]) @ p["out"] * p["scale"]


def after(ends, x, data, key):
    logits = x @ ends["embed"].T + 0.1 * jax.random.normal(key, (5,))[None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, data)
    return loss, {"right": (logits.argmax(-1) == data).astype(jnp.float32)}


# Tied embedding, which both ends use.
MODEL = Layered(lambda ends, data, key: ends["embed"][data] + ends["shift"][None], layer, after)


def make_params(layers=L, h=H, width=WIDTH):
    rng = np.random.default_rng(1)
    shapes = {"in": (h, width), "bias": (width,), "out": (width, h), "scale": ()}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)  # noqa: E731
    return {
        "layers": {k: draw((layers, *s)) for k, s in shapes.items()},
        "embed": draw((5, h)),
        "shift": draw((h,)),
    }


@functools.cache
def make_batches():
    rng = np.random.default_rng(0)
    n = sum(SIZES)
    return [split(rng.integers(0, 5, n).astype(np.int32), SIZES, MICRO) for _ in range(3)]


@functools.cache
def run(remat, tx=optax.adamw):
    """After three steps: the method, its state, metrics of each step, its compiled step."""
    method = (
        zero3(MODEL, tx(0.1), mesh(), AXES, remat=remat)
        if remat
        else data_parallel(mean_grad(layered_loss(MODEL)), tx(0.1), mesh(), AXES)
    )
    compiled = method.step.lower(method.init(make_params()), make_batches()[0], KEY).compile()
    state, metrics = method.init(make_params()), []
    for batch in make_batches():
        state, m = compiled(state, batch, KEY)
        metrics.append(jax.device_get(m))
    return method, state, metrics, compiled


@pytest.mark.parametrize(
    ("remat", "tx"),
    [("gathers", optax.adamw), ("full", optax.adamw), ("full", partial(optax.sgd, momentum=0.9))],
)
def test_equals_plain_data_parallelism(remat, tx):
    (_, plain, expected, _), (_, sharded, metrics, _) = run(None, tx), run(remat, tx)
    chex.assert_trees_all_close(
        jax.device_get(sharded), jax.device_get(plain), rtol=2e-6, atol=1e-6
    )
    chex.assert_trees_all_close(metrics, expected, rtol=1e-6)


@pytest.mark.parametrize("remat", ["gathers", "full"])
def test_bytes_are_three_times_the_layers_for_each_micro_batch(remat):
    method, _, _, compiled = run(remat)
    matrices, biases, ends, whole = (4 * x for x in (L * 2 * H * WIDTH, L * WIDTH, 6 * H, L))
    ring, scalars = (N - 1) / N, 4 * 3
    # The backward needs a bias only to run the layer again.
    layers, once = 3 * matrices + 3 * biases, biases * (remat == "gathers")
    expected = ring * (MICRO * (layers - once) + (MICRO + 1) * ends + 2 * (whole + scalars))
    theory = method.nbytes(trees.abstract(make_params()), trees.abstract(make_batches()[0]))
    assert theory == {"edge": expected}
    found = collectives(compiled, mesh())
    assert found.unknown_loops == 0
    assert found.by_tier == pytest.approx(theory, abs=1e-9)
    assert found.by_kind["all-gather"] == ring * (MICRO * (2 * (matrices + biases) - once) + ends)
    assert found.by_kind["reduce-scatter"] == ring * MICRO * (matrices + biases + ends)


def device_bytes(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_state_of_a_device_is_a_share():
    _, state, _, _ = run("full")
    params = make_params()
    shard = (trees.nbytes(params) - 4 * L) // N + 4 * L
    assert device_bytes(state.params) == shard
    assert device_bytes(state.opt_state) == 2 * shard + 4
    # Eight layers over eight devices: cut across, not apart.
    eight = zero3(MODEL, optax.adam(0.1), mesh(), AXES).init(make_params(layers=16))
    for tree in (eight.params, eight.opt_state[0].mu):
        assert {x.sharding.spec[0] for x in jax.tree.leaves(tree["layers"]) if x.ndim > 1} == {None}


WIDE = {"h": 64, "width": 256}


def wide_layer(p, x, key):
    return x + jnp.tanh(x @ p["in"]) @ p["out"]


@functools.cache
def compiled_step(layers, remat, batch=16):
    """Of a step on ``batch`` samples for each device, in one micro-batch."""
    model, args = MODEL._replace(layer=wide_layer), (optax.sgd(0.1), mesh(), AXES)
    method = (
        zero3(model, *args, remat=remat)
        if remat
        else zero(mean_grad(layered_loss(model)), *args, stage=3)
    )
    params = make_params(layers, **WIDE)
    del params["layers"]["bias"], params["layers"]["scale"]
    data = split(np.zeros(N * batch, np.int32), (batch,) * N)
    compiled = method.step.lower(method.init(params), data, KEY).compile()
    return compiled, method.nbytes(params, data)


def slope(remat):
    """Temporary bytes for each further layer."""
    few, many = (compiled_step(n, remat)[0].memory_analysis().temp_size_in_bytes for n in (4, 8))
    return (many - few) / 4


def test_memory_grows_by_shards_and_activations_not_by_whole_layers():
    """A layer has 131 kB, the shard of its gradient 16 kB."""
    whole, x, hidden = 4 * 2 * 64 * 256, 4 * 16 * 64, 4 * 16 * 256
    assert slope("full") == whole // N + x
    assert slope("gathers") == whole // N + x + 2 * hidden  # Before and after tanh.
    assert slope(None) > 2 * whole


@pytest.mark.parametrize("remat", ["gathers", "full"])
def test_bytes_of_a_micro_batch_are_two_gathers_and_a_scatter(remat):
    compiled, theory = compiled_step(4, remat)
    layers, ends, scalars = 4 * 4 * 2 * 64 * 256, 4 * 6 * 64, 4 * 3
    expected = (N - 1) / N * (3 * layers + 2 * ends + 2 * scalars)
    assert theory == {"edge": expected}
    assert collectives(compiled, mesh()).by_tier == pytest.approx(theory, abs=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"w": jnp.ones(3)}, r"must have 'layers' whose leaves are \[layers, ...\], got \['w'\]"),
        ({"layers": {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}}, r"leading axes \[\(2,\), \(3,\)\]"),
    ],
)
def test_errors(params, message):
    method = zero3(MODEL, optax.sgd(0.1), mesh(), AXES)
    with pytest.raises(ValueError, match=message):
        method.init(params)


def test_the_policy_must_exist():
    with pytest.raises(ValueError, match=r"remat must be one of \('gathers', 'full'\), got 'none'"):
        zero3(MODEL, optax.sgd(0.1), mesh(), AXES, remat="none")


def test_optimisers_that_look_at_whole_gradients_are_refused():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    with pytest.raises(ValueError, match="tx is not elementwise"):
        zero3(MODEL, tx, mesh(), AXES).init(make_params())
