"""The contract of `StagedModel`, for every model: a new one joins by adding a row to MODELS."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.core import StagedModel
from eejax.models import (
    all_logits,
    branchy_cnn,
    init,
    lenet,
    owned,
    resnet,
    run_stage,
    staged_mlp,
    to_float,
)

CLASSES = 3
BATCH = 4


class Row(NamedTuple):
    model: StagedModel
    shape: tuple[int, ...]  # of one sample
    random: tuple[bool, ...] = ()  # exits whose answers depend on the key in training


MODELS = {
    "staged_mlp": Row(staged_mlp(CLASSES, (4, 5)), (3, 2)),
    "staged_mlp_dropout": Row(staged_mlp(CLASSES, (6,), dropout=0.5), (5,), (True,)),
    "branchy_cnn": Row(
        branchy_cnn(CLASSES, (4, 8), hidden=6, dropout=0.5), (7, 6, 1), (False, True)
    ),
    "lenet": Row(lenet(CLASSES, (2, 3), (4, 5)), (17, 16, 1)),
    "resnet": Row(resnet(CLASSES, 1, (4, 8)), (6, 5, 3)),
}
EVERY = pytest.mark.parametrize("name", MODELS)


def inputs(name, seed=0, batch=BATCH):
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, *MODELS[name].shape))
    return jnp.asarray(pixels.astype(np.uint8))


@functools.cache
def shapes(name):
    model, shape, _ = MODELS[name]
    x = jax.ShapeDtypeStruct((BATCH, *shape), jnp.uint8)
    return jax.eval_shape(lambda key: init(model, key, x), jax.random.key(0))


def make_params(name, seed=0, lead=()):
    """Random parameters, biases included; drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(0, 0.5, lead + s.shape).astype(np.float32)), shapes(name)
    )


@functools.cache
def compiled(name):
    """``(all logits, traces)`` with one trace recorded for every compilation."""
    traces = []

    def logits(params, x):
        traces.append(name)
        return all_logits(MODELS[name].model, params, x)

    return jax.jit(logits), traces


def assert_near(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * float(jnp.abs(b).max()))


@EVERY
def test_parameters_are_named_after_stages_and_heads(name):
    model, _, _ = MODELS[name]
    names = {s.name for s in model.stages} | {e.head.name for e in model.exits}
    assert set(shapes(name)) == names
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes(name)))


@EVERY
def test_init_depends_on_the_key_alone(name):
    model, _, _ = MODELS[name]
    first = init(model, jax.random.key(1), inputs(name))
    assert trees.abstract(first) == shapes(name)
    again = init(model, jax.random.key(1), trees.abstract(inputs(name, seed=1)))
    assert trees.sha256(again) == trees.sha256(first)
    other = init(model, jax.random.key(2), inputs(name))
    kernels = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    assert all((a != b).all() for a, b in kernels if a.ndim > 1)


@EVERY
def test_apply_is_pure_and_compiles_once(name):
    logits, traces = compiled(name)
    params, x = make_params(name), inputs(name)
    before = trees.sha256((params, x))
    first = logits(params, x)
    np.testing.assert_array_equal(logits(params, x), first)
    assert (logits(make_params(name, 1), inputs(name, 1)) != first).any()
    assert trees.sha256((params, x)) == before
    assert first.shape == (len(MODELS[name].model.exits), BATCH, CLASSES)
    assert first.dtype == jnp.float32
    assert len(traces) == 1


@EVERY
def test_every_cut_gives_the_same_answers_with_owned_subtrees_only(name):
    """Each stage is a program of its own on a node that has no other parameters."""
    model, _, _ = MODELS[name]
    params = make_params(name)
    x, answers = inputs(name), []
    for i in range(len(model.stages)):
        on_node = {key: params[key] for key in owned(model, i)}
        stage = jax.jit(lambda params, x, i=i: run_stage(model, i, params, x))
        x, logits = stage(on_node, x)
        assert x.dtype == jnp.float32
        answers += [] if logits is None else [logits]
    assert_near(jnp.stack(answers), compiled(name)[0](params, inputs(name)))


@EVERY
def test_vmap_over_clients_equals_a_loop(name):
    model, _, _ = MODELS[name]
    stacked = make_params(name, lead=(3,))
    x = jnp.stack([inputs(name, seed) for seed in range(3)])
    together = jax.jit(jax.vmap(lambda params, x: all_logits(model, params, x)))(stacked, x)
    for i in range(3):
        alone = compiled(name)[0](jax.tree.map(lambda leaf, i=i: leaf[i], stacked), x[i])
        assert_near(together[i], alone)


@EVERY
def test_a_scaled_float_image_alone_equals_its_raw_bytes_in_a_batch(name):
    model, _, _ = MODELS[name]
    params, x = make_params(name), inputs(name)
    logits = compiled(name)[0](params, x)
    single = jax.jit(lambda params, x: all_logits(model, params, x))
    for i in range(2):
        assert_near(single(params, to_float(x[i : i + 1]))[:, 0], logits[:, i])


@EVERY
def test_names_of_stages_and_heads_reach_the_compiler(name):
    logits, _ = compiled(name)
    text = jax.jit(logits.__wrapped__).lower(shapes(name), inputs(name)).as_text(debug_info=True)
    for part in shapes(name):
        assert f"/{part}/" in text


@EVERY
def test_gradients_reach_what_an_exit_has_read_and_nothing_else(name):
    model, _, _ = MODELS[name]

    @jax.jit
    def of_each_exit(params, x, key):
        def loss(params):
            logits = all_logits(model, params, x, train=True, key=key)
            return jax.nn.logsumexp(logits, -1).mean(-1) - logits[..., 0].mean(-1)

        return jax.jacrev(loss)(params)

    grads = of_each_exit(make_params(name), inputs(name), jax.random.key(0))
    for i, exit in enumerate(model.exits):
        order = [stage.name for stage in model.stages]
        read = {exit.head.name, *order[: order.index(exit.after) + 1]}
        for part, subtree in grads.items():
            leaves = [leaf[i] for leaf in jax.tree.leaves(subtree)]
            assert all(np.isfinite(leaf).all() for leaf in leaves)
            assert all((part in read) == bool(leaf.any()) for leaf in leaves), (exit.after, part)


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if any(row.random)])
def test_the_key_moves_the_answers_behind_dropout_only(name):
    model, _, random = MODELS[name]
    train = jax.jit(lambda params, x, key: all_logits(model, params, x, train=True, key=key))
    params, x = make_params(name), inputs(name)
    first = train(params, x, jax.random.key(0))
    np.testing.assert_array_equal(train(params, x, jax.random.key(0)), first)
    other = train(params, x, jax.random.key(1))
    assert tuple((other != first).any((1, 2)).tolist()) == random
