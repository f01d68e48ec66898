"""End, edge and cloud with stages of their own: equal to one device, and only theirs is held.

The error of a gradient is relative to its norm, ``||g - g'|| / ||g'||`` of a leaf. In float32 a
convolutional net on one device is itself farther than 1e-6 from the true gradient, which float64
shows; in float64 the pipeline equals one device to 1e-12, so the rest is rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.core import Exit, Stage, StagedModel
from eejax.cotrain.pipeline import (
    cut_model,
    fused,
    interleaved,
    microbatches,
    one_f_one_b,
    unequal,
    value_and_grad,
)
from eejax.cotrain.pipeline.unequal import cross_entropy
from eejax.models import all_logits, branchy_cnn, init, staged_mlp
from eejax.models.flax_stage import to_float
from eejax.tiers import make_mesh

M, BATCH = 3, 4


def errors(tree, expected):
    """Of every leaf; a leaf that must be zero has an error unless it is."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    found = []
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        found.append(np.linalg.norm(a - b) / np.linalg.norm(b) if b.any() else float(a.any()))
    return found


def assert_equal(tree, expected, tolerance=1e-6):
    assert max(errors(tree, expected)) <= tolerance


def in_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def pipelined(model, params, batch, assignment, make, weights=None):
    """Loss and gradients by a pipeline of two copies, batches split over them."""
    cut = cut_model(model, assignment, weights=weights)
    x, y = microbatches(batch, M)
    made = unequal(cut.functions, cut.split(params), trees.abstract(x[0]), trees.abstract(y[0]))
    schedule = make(len(cut.functions), M)
    mesh = make_mesh((2, schedule.stages), ("dp", "stage"))
    step = jax.jit(value_and_grad(made.stages, schedule, mesh, grad_axes=("dp",)))
    packed = made.pack(cut.split(params), schedule)
    loss, grads = step(packed, x, y)
    assert_equal(cut.join(made.unpack(packed)), params, 0)
    # Each device has one stage, padded to the widest.
    widest = max(trees.size(tree) for tree in cut.split(params))
    shard = grads.sharding.shard_shape(grads.shape)
    assert (shard, grads.shape) == ((1, 1, widest), (1, schedule.stages, widest))
    return loss, cut.join(made.unpack(grads)), made.widths


def one_device(model, params, batch, weights):
    def loss(params):
        answers = all_logits(model, params, batch[0], train=True)
        return sum(w * cross_entropy(logits, batch[1]) for w, logits in zip(weights, answers))

    return jax.jit(jax.value_and_grad(loss))(params)


CNN, THIRDS = branchy_cnn(classes=3, widths=(4, 8, 4), hidden=8), (1 / 3,) * 3


@functools.cache
def images():
    """Parameters, raw bytes and labels; the same as floats; and the true gradient."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (M * BATCH, 12, 12, 1)).astype(np.uint8)
    y = rng.integers(0, 3, M * BATCH)
    params = init(CNN, jax.random.key(0), x)
    doubles = in_float64(params), (in_float64(to_float(x)), y)
    with jax.enable_x64(True):
        return params, (x, y), doubles, one_device(CNN, *doubles, THIRDS)[1]


def test_branchy_cnn_on_three_tiers_trains_all_exits():
    """Raw bytes enter the end; 6 x 6 x 4 features go to the edge, 3 x 3 x 8 to the cloud."""
    params, batch, _, exact = images()
    loss, grads, widths = pipelined(CNN, params, batch, (0, 1, 2), fused)
    expected, own = one_device(CNN, params, batch, THIRDS)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    # As near to the true gradient as one device, to 1e-6.
    assert max(errors(grads, exact)) <= max(errors(own, exact)) + 1e-6
    assert widths == (6 * 6 * 4, 3 * 3 * 8)


@pytest.mark.slow
def test_what_is_left_in_float32_is_rounding():
    _, _, doubles, exact = images()
    with jax.enable_x64(True):
        assert_equal(pipelined(CNN, *doubles, (0, 1, 2), fused)[1], exact, 1e-12)


@pytest.mark.parametrize(
    ("assignment", "weights", "make"),
    [((0, 0, 2, 2), (0, 0, 0, 1), fused), ((0, 1, 1, 2), (0.1, 0.2, 0.3, 0.4), one_f_one_b)],
)
def test_tiers_of_several_stages_and_exits_of_any_weight(assignment, weights, make):
    model = staged_mlp(classes=3, widths=(6, 10, 4, 7))
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(M * BATCH, 5)).astype(np.float32), rng.integers(0, 3, M * BATCH)
    params = init(model, jax.random.key(0), x)
    loss, grads, widths = pipelined(model, params, (x, y), assignment, make, weights)
    expected, own = one_device(model, params, (x, y), weights)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert_equal(grads, own)
    with jax.enable_x64(True):
        assert_equal(grads, one_device(model, in_float64(params), (x, y), weights)[1])
    assert widths == ((10,) if assignment == (0, 0, 2, 2) else (6, 4))


def test_chunks_of_a_language_model_with_embedding_and_head():
    """Integers enter, stages have parameters of different structure, two on each device."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 11, (4, BATCH, 6))
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32) / 2  # noqa: E731
    params = [draw(11, 4), {"w": draw(4, 4), "b": draw(4)}, (draw(4, 3),), draw(3, 11)]

    def head(p, x, t):
        return x, cross_entropy((x @ p).reshape(-1, 11), t.reshape(-1))

    functions = (
        lambda p, x, t: (p[x], 0.0),
        lambda p, x, t: (jnp.tanh(x @ p["w"] + p["b"][None, None]), 0.0),
        lambda p, x, t: (x @ p[0], 0.01 * (p[0] ** 2).sum()),
        head,
    )

    def loss(params, x, t):
        total = 0.0
        for function, p in zip(functions, params):
            x, own = function(p, x, t)
            total += own
        return total

    schedule = interleaved(2, 4, chunks=2)
    made = unequal(functions, params, tokens[0], tokens[0])
    step = value_and_grad(made.stages, schedule, make_mesh((2,), ("stage",)))
    packed = made.pack(params, schedule)
    assert packed.shape == (2, 2, 44)
    value, grads = jax.jit(step)(packed, tokens, tokens)
    everything = tokens.reshape(-1, 6)
    expected, own = jax.jit(jax.value_and_grad(loss))(params, everything, everything)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert_equal(made.unpack(grads), own)
    assert made.widths == (24, 24, 18)


def test_dtypes_of_parameters_come_back():
    params = [jnp.ones((2, 3), jnp.bfloat16), {"a": jnp.ones(2), "b": jnp.zeros((), jnp.bfloat16)}]
    functions = (lambda p, x, t: (x, 0.0), lambda p, x, t: (x, x.sum()))
    made = unequal(functions, params, jnp.ones((1, 2)), None)
    packed = made.pack(params, fused(2, 1))
    assert packed.dtype == jnp.float32
    assert trees.abstract(made.unpack(packed)) == trees.abstract(params)


MODEL = StagedModel(
    (Stage("a", None, None), Stage("b", None, None)), (Exit("b", Stage("answer", None, None)),)
)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: cut_model(MODEL, (0,)), r"assignment must be 2 tiers.*got \(0,\)"),
        (lambda: cut_model(MODEL, (1, 0)), r"that never fall; got \(1, 0\)"),
        (lambda: cut_model(MODEL, (0, 1), weights=(1, 1)), "weights must be 1, one for each exit"),
        (
            lambda: unequal((None, None), (1,), None, None),
            "params must be 2, one a function; got 1",
        ),
        (
            lambda: unequal(
                (lambda p, x, t: (x.astype(int), 0.0),) * 2, ({}, {}), jnp.ones((1, 2)), None
            ),
            "stage 0 must give one array of floats, got ShapeDtypeStruct",
        ),
    ],
)
def test_errors(run, message):
    with pytest.raises(ValueError, match=message):
        run()
