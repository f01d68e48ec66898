"""Whole models: bytes, memory, training curves, and checkpoints that move between layouts."""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from eejax import trees
from eejax.cotrain import tensor
from eejax.cotrain.tensor import theory
from eejax.data import load
from eejax.tiers import collectives, make_mesh

SMALL = tensor.Shape(32, 64, heads=8, kv_heads=4, seq=16, layers=2, causal=True)
QUICK = {"xla_backend_optimization_level": 0}


def on_mesh(scheme, grid, batch=()):
    """A layout with its mesh."""
    names = ("pod", "data")[: len(batch)]
    lo = tensor.layout(scheme, batch=names)
    return lo, make_mesh((*batch, *grid), names + lo.axes)


@pytest.mark.parametrize(
    ("scheme", "grid"), [("1d", (4,)), ("1d_sp", (4,)), ("2d_opt", (4, 2)), ("3d", (2, 2, 2))]
)
def test_a_rematerialised_layer_keeps_its_input_only(scheme, grid):
    lo, mesh = on_mesh(scheme, grid)
    lies = (tensor.stack_specs(lo), lo.act)
    x = jax.ShapeDtypeStruct((512, 64), "float32")

    def temp(layers):
        shape = tensor.Shape(64, 256, 8, 4, seq=32, layers=layers, causal=True)
        body = functools.partial(tensor.stack, shape=shape, remat="full")
        fn = tensor.spread(body, lo, mesh, lies, lo.act, "shard_map")
        params = jax.eval_shape(lambda: tensor.stack_init(jax.random.key(0), shape))
        step = jax.jit(
            lambda params, x, dy: jax.vjp(fn, params, x)[1](dy),
            in_shardings=tensor.shardings(mesh, (*lies, lo.act)),
        )
        program = step.lower(params, x, x).compile(QUICK)
        return program.memory_analysis().temp_size_in_bytes

    assert (temp(8) - temp(4)) / 4 == 4 * theory.layer_input(lo, mesh.shape, 512, 64)


def text(steps, sequences, seq):
    """Bytes of a module of Python, ``[steps, tokens + 1]`` of it used as inputs and labels."""
    raw = np.frombuffer(pathlib.Path(os.__file__).read_bytes(), np.uint8)
    windows = raw[: steps * sequences * (seq + 1)].reshape(steps, sequences, seq + 1)
    return windows.astype(np.int32)


def next_byte():
    windows = text(20, 8, SMALL.seq)
    return [{"inputs": w[:, :-1].reshape(-1), "labels": w[:, 1:].reshape(-1)} for w in windows]


def masked_byte():
    rng = np.random.default_rng(0)
    batches = []
    for w in text(20, 8, SMALL.seq)[:, :, 1:]:
        masked = rng.random(w.shape) < 0.15
        batches.append(
            {
                "inputs": np.where(masked, 255, w).reshape(-1),
                "labels": np.where(masked, w, -1).reshape(-1),
            }
        )
    return batches


def digits():
    source = load("digits", "train")
    patches = tensor.patchify(source.images[: 20 * 16] / np.float32(255), 2)
    return [
        {"inputs": x, "labels": y}
        for x, y in zip(patches.reshape(20, -1, 4), source.labels[: 20 * 16].reshape(20, -1))
    ]


ENCODER = tensor.Shape(32, 64, heads=8, kv_heads=8, seq=16, layers=2, causal=False)
TOKENS = 8 * 16

# name: (model, its batches, what theory says a step sends)
MODELS = {
    "decoder": (
        tensor.transformer(256, SMALL),
        next_byte,
        lambda lo, sizes: theory.transformer(lo, sizes, TOKENS, 256, SMALL),
    ),
    "encoder": (
        tensor.transformer(256, ENCODER, "full"),
        masked_byte,
        lambda lo, sizes: theory.transformer(lo, sizes, TOKENS, 256, ENCODER, "full"),
    ),
    "vit": (
        tensor.vit(4, 16, ENCODER, "none"),
        digits,
        lambda lo, sizes: theory.vit(lo, sizes, 16, 4, 16, ENCODER, "none"),
    ),
}


@functools.cache
def start(name):
    """The same parameters for every layout."""
    return jax.device_get(jax.jit(MODELS[name][0].init)(jax.random.key(0)))


@functools.cache
def train(name, scheme, grid, batch=(), face="shard_map"):
    """Losses of 20 steps, the parameters after them, and what a step sends."""
    model, batches, _ = MODELS[name]
    lo, mesh = on_mesh(scheme, grid, batch)
    optimiser = optax.sgd(0.1, momentum=0.9)
    params = tensor.place(start(name), mesh, model.specs(lo))
    state = (params, optimiser.init(params))
    specs = {"inputs": model.input_spec(lo), "labels": tensor.label_spec(lo)}
    batches = [tensor.place(batch, mesh, specs) for batch in batches()]
    step = tensor.train_step(model, lo, mesh, optimiser, face)
    step = step.lower(state, batches[0]).compile(QUICK)
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state[0]), collectives(step, mesh)


@pytest.mark.parametrize(
    ("name", "scheme", "grid", "batch", "face"),
    [
        ("decoder", "2d_opt", (4, 2), (), "shard_map"),
        ("decoder", "3d", (2, 2, 2), (), "shard_map"),
        ("decoder", "2d", (2, 2), (), "jit"),
        ("encoder", "1d", (4,), (), "shard_map"),
        ("encoder", "2.5d", (2, 2, 2), (), "shard_map"),
        ("vit", "1d_sp", (2,), (2, 2), "shard_map"),
        ("vit", "2d", (2, 4), (), "shard_map"),
    ],
)
def test_training_equals_one_device_and_sends_what_theory_says(name, scheme, grid, batch, face):
    losses, params, found = train(name, scheme, grid, batch, face)
    expected, expected_params, _ = train(name, "serial", ())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(expected_params)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    assert expected[-1] < 0.9 * expected[0]
    if face == "shard_map":
        lo, mesh = on_mesh(scheme, grid, batch)
        sent = 4 * MODELS[name][2](lo, mesh.shape).total
        assert found.total == pytest.approx(sent, rel=1e-12)
        assert found.unknown_loops == 0


def test_a_checkpoint_moves_between_layouts():
    model = MODELS["decoder"][0]
    lo, mesh = on_mesh("3d", (2, 2, 2))
    params = tensor.init(model, jax.random.key(0), lo, mesh)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, start("decoder"))
    digest = trees.sha256(params)
    ids = text(1, 8, SMALL.seq)[0, :, 1:].reshape(-1)
    logits = {}
    for scheme, grid in (("3d", (2, 2, 2)), ("1d", (4,)), ("2d_opt", (2, 2))):
        lo, mesh = on_mesh(scheme, grid)
        params = tensor.place(params, mesh, model.specs(lo))
        assert trees.sha256(params) == digest
        assert params["layers"]["mlp"]["w1"].sharding.spec == P(None, *lo.w_up)
        logits[scheme] = jax.jit(tensor.forward(model, lo, mesh))(params, ids)
    for value in logits.values():
        np.testing.assert_allclose(value, logits["3d"], atol=1e-5)


def test_wrong_sizes_are_refused_before_anything_compiles():
    model, (lo, mesh) = MODELS["decoder"][0], on_mesh("1d", (8,))
    with pytest.raises(ValueError, match="kv_heads=4 cannot be split over t=8"):
        tensor.loss_and_grad(model, lo, mesh)
    lo, mesh = on_mesh("2d", (4, 2))
    step = tensor.loss_and_grad(model, lo, mesh)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def batch(tokens):
        ids = jax.ShapeDtypeStruct((tokens,), jnp.int32)
        return {"inputs": ids, "labels": ids}

    with pytest.raises(ValueError, match="40 rows, not a multiple of seq=16"):
        jax.eval_shape(step, params, batch(40))
    with pytest.raises(ValueError, match=r"sequences=6 cannot be split over r=4; .* 4 or 8"):
        jax.eval_shape(step, params, batch(96))
    with pytest.raises(ValueError, match=r"kv_heads must divide heads=8: one of \[1, 2, 4, 8\]"):
        tensor.Shape(32, 64, 8, 3, 16, 1, True)
    with pytest.raises(ValueError, match="remat must be one of"):
        tensor.stack(lo, {}, jnp.zeros((4, 4)), SMALL, "some")
    with pytest.raises(ValueError, match="patch must divide 8 and 6, got 4"):
        tensor.patchify(np.zeros((1, 8, 6, 1)), 4)
