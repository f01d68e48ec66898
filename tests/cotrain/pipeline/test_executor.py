"""Pipelines equal one device, send what theory says, and hold what the schedule promises.

The error of a gradient is relative to its norm, ``||g - g'|| / ||g'||`` of a leaf: at most 1e-6.
"""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from eejax import trees
from eejax.cotrain.pipeline import (
    device_value_and_grad,
    equal,
    fused,
    gpipe,
    interleaved,
    microbatches,
    one_f_one_b,
    stack,
    unstack,
    value_and_grad,
)
from eejax.tiers import make_mesh
from eejax.tiers.collectives import collectives

H, S, M, BATCH = 8, 4, 8, 8
MESH = {"dp": 2, "stage": S}
ACT = BATCH // 2 * H * 4  # Bytes of the activation of a micro-batch on a device.


def stage_fn(p, x):
    return x + jnp.tanh(x @ p["w1"] + p["b"][None]) @ p["w2"]


def loss_fn(y, t):
    return jnp.mean((y - t) ** 2)


def init(key, width=16):
    a, b, c = jax.random.split(key, 3)
    return {
        "w1": jax.random.normal(a, (H, width)) / 3,
        "w2": jax.random.normal(b, (width, H)) / 4,
        "b": jax.random.normal(c, (width,)) / 5,
    }


def data(count=M):
    x = jax.random.normal(jax.random.key(1), (count, BATCH, H))
    return x, jnp.roll(x, 1, -1)


def layers(depth):
    return [init(key) for key in jax.random.split(jax.random.key(0), depth)]


@functools.cache
def one_device(depth):
    """Loss, and gradients of parameters and inputs."""

    def loss(params, x, t):
        for p in params:
            x = stage_fn(p, x.reshape(-1, H))
        return loss_fn(x, t.reshape(-1, H))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def mesh():
    return make_mesh(tuple(MESH.values()), tuple(MESH))


def last_in_first_out(stages, count):
    """GPipe whose backwards run in the other order: no schedule of ours, but a valid table."""
    schedule = gpipe(stages, count)
    backward = np.where(schedule.backward >= 0, count - 1 - schedule.backward, -1)
    return schedule._replace(name="lifo", backward=backward)


CASES = {
    "gpipe": (gpipe(S, M), {}),
    "one_f_one_b": (one_f_one_b(S, M), {}),
    "fused": (fused(S, M), {}),
    "interleaved": (interleaved(S, M, chunks=2), {}),
    "lifo": (last_in_first_out(S, M), {}),
    "fused_no_remat": (fused(S, M), {"remat": False}),
    "interleaved_no_remat": (interleaved(S, M, chunks=2), {"remat": False}),
    "one_f_one_b_policy": (one_f_one_b(S, M), {"remat": jax.checkpoint_policies.dots_saveable}),
}


@functools.cache
def compiled(name):
    schedule, options = CASES[name]
    step = value_and_grad(
        equal(stage_fn, loss_fn), schedule, mesh(), grad_axes=("dp",), input_grads=True, **options
    )
    return jax.jit(step).lower(stack(layers(S * schedule.chunks), schedule), *data()).compile()


def assert_equal(tree, expected, tolerance=1e-6):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.mark.parametrize("name", CASES)
def test_equals_one_device(name):
    schedule, _ = CASES[name]
    params, batch = layers(S * schedule.chunks), data()
    loss, (grads, of_inputs) = compiled(name)(stack(params, schedule), *batch)
    expected, (own, inputs) = one_device(len(params))(params, *batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert_equal(unstack(grads), own)
    assert_equal(of_inputs, inputs)


@pytest.mark.parametrize("name", ["gpipe", "one_f_one_b", "fused", "lifo", "fused_no_remat"])
def test_permutes_send_little_more_than_theory(name):
    schedule, _ = CASES[name]
    sent = collectives(compiled(name), mesh()).by_kind["collective-permute"]
    ideal = 2 * M * (S - 1) / S * ACT
    # Only the fill and the drain carry empty messages.
    ticks = schedule.ticks if "fused" in name else M + S - 1
    assert sent == ticks / M * ideal
    assert sent <= (M + 2 * S - 2) / M * ideal


def test_permutes_of_chunks():
    """At best M cross each of 2 S - 1 cuts both ways; the wrap of the ring is left out if idle."""
    found = collectives(compiled("interleaved"), mesh())
    ideal = 2 * M * (2 * S - 1) / S * ACT
    ratio = 1 + S / M + (S - 2) ** 2 / (2 * M * (2 * S - 1))
    assert found.by_kind["collective-permute"] == pytest.approx(ratio * ideal, rel=1e-12)
    assert ratio < (M + 2 * S - 2) / M


def test_permutes_of_chunks_at_32_microbatches():
    """Issue: within (M + 2 S - 2) / M = 1.19 of ideal; 508 messages of 448, so 1.134."""
    schedule = interleaved(S, 32, chunks=2)
    step = value_and_grad(equal(stage_fn, loss_fn), schedule, mesh(), grad_axes=("dp",))
    args = trees.abstract((stack(layers(2 * S), schedule), *data(32)))
    found = collectives(jax.jit(step).lower(*args).compile(), mesh())
    assert found.by_kind["collective-permute"] == 508 / S * ACT


@pytest.mark.parametrize("name", CASES)
def test_one_gradient_all_reduce_a_leaf_a_step(name):
    """Pitfall: weights that are not cast to varying are reduced in every tick."""
    found = collectives(compiled(name), mesh())
    chunks = CASES[name][0].chunks
    leaves = jax.tree.leaves(init(jax.random.key(0)))
    assert found.count["all-reduce"] <= len(leaves) + 2
    # Gradients and the loss, in a ring of two.
    assert found.by_axes["dp",] == chunks * sum(leaf.nbytes for leaf in leaves) + 4
    assert found.unknown_loops == 0


def temp_bytes(make, count, width=16, **options):
    schedule = make(S, count)
    step = value_and_grad(equal(stage_fn, loss_fn), schedule, mesh(), grad_axes=("dp",), **options)
    params = trees.abstract(stack([init(jax.random.key(0), width)] * S, schedule))
    x = jax.ShapeDtypeStruct((count, BATCH, H), jnp.float32)
    return jax.jit(step).lower(params, x, x).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("make", [one_f_one_b, fused])
def test_memory_does_not_depend_on_the_number_of_microbatches(make):
    assert temp_bytes(make, 8) == temp_bytes(make, 32)


def test_memory_of_gpipe_grows_by_one_activation_a_microbatch():
    assert temp_bytes(gpipe, 32) - temp_bytes(gpipe, 8) == 24 * ACT


def test_residuals_do_not_hold_the_weights():
    """Seven sets of residuals are stashed; with weights they would be seven times the weights."""
    width = 4096
    weights = trees.nbytes(init(jax.random.key(0), width))
    activations = 2 * BATCH // 2 * width * 4  # Of the hidden layer, before and after tanh.
    assert temp_bytes(fused, 8, width, remat=False) < 4 * weights + 8 * activations


def test_training_curves_are_those_of_one_device():
    schedule, tx = CASES["one_f_one_b"][0], optax.adam(0.01)

    def curve(step, params, grads_of):
        state, losses = tx.init(params), []
        update = jax.jit(tx.update)
        for _ in range(20):
            loss, grads = step(params, *data())
            updates, state = update(jax.device_get(grads_of(grads)), state)
            params = jax.tree.map(np.add, params, jax.device_get(updates))
            losses.append(float(loss))
        return losses

    piped = curve(
        compiled("one_f_one_b"),
        jax.device_get(stack(layers(S), schedule)),
        lambda grads: grads[0],
    )
    single = curve(one_device(S), jax.device_get(layers(S)), lambda grads: grads[0])
    np.testing.assert_allclose(piped, single, rtol=1e-5)
    assert piped[-1] < 0.7 * piped[0]


def test_a_checkpoint_moves_between_schedules():
    params = layers(8)
    two, one = interleaved(4, 8, chunks=2), interleaved(2, 8, chunks=4)
    moved = stack(unstack(stack(params, two)), one)
    assert_equal(unstack(moved), params, 0)
    np.testing.assert_array_equal(moved["b"][3, 1], params[7]["b"])


def test_one_stage_is_gradient_accumulation():
    schedule = one_f_one_b(1, 3)
    x, t = data(3)
    step = value_and_grad(equal(stage_fn, loss_fn), schedule, make_mesh((1,), ("stage",)))
    loss, grads = jax.jit(step)(stack(layers(1), schedule), x, t)
    expected, (own, _) = one_device(1)(layers(1), x, t)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert_equal(unstack(grads), own)


@pytest.mark.parametrize("skip", [True, False])
def test_tensor_parallel_stages_on_three_axes(skip):
    """DP x PP x TP: the stage splits its hidden layer over a third axis, and sums over it."""
    schedule = fused(2, 4)
    x, t = data(4)
    params = layers(2)

    def split_stage(p, x):
        y = jnp.tanh(x @ p["w1"] + p["b"][None]) @ p["w2"]
        return x + jax.lax.psum(y, "tp")

    specs = {
        "w1": PartitionSpec(None, "stage", None, "tp"),
        "w2": PartitionSpec(None, "stage", "tp"),
        "b": PartitionSpec(None, "stage", "tp"),
    }
    stages = equal(split_stage, loss_fn, skip=skip)
    local = device_value_and_grad(stages, schedule, grad_axes=["dp"])

    def step(params, x, t):
        loss, grads = local(params, x, t)
        return jax.lax.pmean(loss, "dp"), jax.tree.map(lambda g: g / 2, grads)

    split = PartitionSpec(None, "dp")
    run = jax.shard_map(
        step,
        mesh=make_mesh((2, 2, 2), ("dp", "stage", "tp")),
        in_specs=(specs, split, split),
        out_specs=(PartitionSpec(), specs),
    )
    loss, grads = jax.jit(run)(stack(params, schedule), x, t)
    expected, (own, _) = one_device(2)(params, x, t)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert_equal(unstack(grads), own)


def call(params=None, x=None, **options):
    schedule = fused(S, M)
    stages = equal(options.pop("stage_fn", stage_fn), loss_fn)
    step = value_and_grad(stages, options.pop("schedule", schedule), mesh(), **options)
    params = stack(layers(S), schedule) if params is None else params
    return jax.eval_shape(step, params, data()[0] if x is None else x, data()[1])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: call(axis="stages"), "axis 'stages' is none of dp, stage; did you mean 'stage'"),
        (lambda: call(grad_axes=["pd"]), "axis 'pd' is none of dp, stage; did you mean 'dp'"),
        (lambda: call(grad_axes=["stage"]), "grad_axes must not hold 'stage'"),
        (
            lambda: call(schedule=fused(3, M)),
            "schedule 'fused' has 3 stages, but mesh axis 'stage' 4 devices",
        ),
        (lambda: call(params={"w": jnp.ones((4, 8))}), r"\(1, 4\) as from stack, got \(4, 8\)"),
        (lambda: call(x=jnp.ones((4, 8, H))), "8 micro-batches and a batch that 1 copies divide"),
        (
            lambda: call(x=jnp.ones((8, 7, H)), grad_axes=["dp"]),
            r"a batch that 2 copies divide, got \(8, 7, 8\)",
        ),
        (
            lambda: call(stage_fn=lambda p, x: x @ p["w1"]),
            r"must keep the form.*\(8, 8\).*returns .*\(8, 16\).*; see unequal",
        ),
        (lambda: stack(layers(3), fused(4, 8)), "1 chunks on 4 devices, 4 in all; got 3"),
        (lambda: microbatches(jnp.ones(12), 5), "batch of 12, got 5; the nearest is 4"),
    ],
)
def test_errors_come_early_and_name_the_choice(run, message):
    with pytest.raises(ValueError, match=message):
        run()


ON_SIXTEEN = """
import jax, jax.numpy as jnp
from eejax.cotrain.pipeline import equal, fused, interleaved, stack, unstack, value_and_grad
from eejax.tiers import make_mesh

stage = lambda w, x: x + jnp.tanh(x @ w)
x = jax.random.normal(jax.random.key(0), (16, 4, 8))
params = [jax.random.normal(jax.random.key(i), (8, 8)) / 3 for i in range(16)]


def loss(params, x):
    for w in params:
        x = stage(w, x)
    return (x**2).mean()


expected, own = jax.jit(jax.value_and_grad(loss))(params, x.reshape(-1, 8))
for schedule, copies in ((interleaved(8, 16, chunks=2), 2), (fused(16, 16), 1)):
    mesh = make_mesh((copies, schedule.stages), ("dp", "stage"))
    stages = equal(stage, lambda y, t: (y**2).mean())
    step = jax.jit(value_and_grad(stages, schedule, mesh, grad_axes=["dp"]))
    value, grads = step(stack(params, schedule), x, x)
    assert abs(value - expected) < 1e-6 * expected
    for a, b in zip(unstack(grads), own):
        assert jnp.linalg.norm(a - b) < 1e-6 * jnp.linalg.norm(b)
print(jax.device_count(), "devices")
"""


@pytest.mark.slow
def test_sixteen_devices_equal_one():
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "16", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_SIXTEEN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "16 devices\n"), done.stderr
