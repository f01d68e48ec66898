"""Branchy CNN: parameters and FLOPs by hand, shapes, and what the docstring promises."""

import jax
import jax.numpy as jnp
import pytest

from eejax import trees
from eejax.models import all_logits, branchy_cnn, init, owned, run_stage
from eejax.tiers import work_of

MNIST = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)


def abstract_params(model, x):
    return jax.eval_shape(lambda key: init(model, key, x), jax.random.key(0))


def test_parameters_of_the_default_by_hand():
    params = abstract_params(branchy_cnn(), MNIST)
    assert {name: trees.size(subtree) for name, subtree in params.items()} == {
        "stage1": 9 * 1 * 8 + 2 * 8,
        "exit1": 9 * 8 * 8 + 2 * 8 + (7 * 7 * 8 + 1) * 10,
        "stage2": 9 * 8 * 16 + 9 * 16 * 16 + 4 * 16,
        "exit2": 9 * 16 * 16 + 2 * 16 + (4 * 4 * 16 + 1) * 10,
        "stage3": 9 * 16 * 32 + 9 * 32 * 32 + 4 * 32,
        "exit3": (3 * 3 * 32 + 1) * 128 + 129 * 10,
    }


def test_the_table_of_the_docstring():
    model = branchy_cnn()
    params, x = abstract_params(model, MNIST), MNIST
    rows = []
    for i in range(3):
        own = {name: params[name] for name in owned(model, i)}
        run = lambda params, x, i=i: run_stage(model, i, params, x)  # noqa: E731
        flops = work_of(run, own, x).flops
        x, logits = jax.eval_shape(run, own, x)
        assert logits.shape == (1, 10)
        rows.append((round(flops / 1e6, 2), trees.size(own), x.shape[1:], trees.nbytes(x)))
    assert rows == [
        (0.20, 4_610, (14, 14, 8), 6_272),
        (0.77, 8_426, (7, 7, 16), 3_136),
        (1.45, 52_234, (7, 7, 32), 6_272),
    ]


@pytest.mark.parametrize(
    ("kwargs", "image"),
    [
        ({}, (32, 32, 3)),
        ({"widths": (4,)}, (8, 8, 1)),
        ({"widths": (4, 4, 8, 8), "classes": 3, "hidden": 7}, (17, 19, 2)),
    ],
)
def test_as_many_exits_as_widths(kwargs, image):
    model = branchy_cnn(**kwargs)
    exits, classes = len(kwargs.get("widths", (8, 16, 32))), kwargs.get("classes", 10)
    assert [s.name for s in model.stages] == [f"stage{i + 1}" for i in range(exits)]
    assert [e.head.name for e in model.exits] == [f"exit{i + 1}" for i in range(exits)]
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    logits = jax.eval_shape(lambda p, x: all_logits(model, p, x), abstract_params(model, x), x)
    assert logits.shape == (exits, 2, classes)


@pytest.mark.parametrize("widths", [(), (8, 6), (0,), (-4,)])
def test_widths_are_checked(widths):
    with pytest.raises(ValueError, match="widths must be multiples of 4, got"):
        branchy_cnn(widths=widths)


def test_images_too_small_to_pool_are_an_error():
    with pytest.raises(ValueError, match="window 2 does not fit into images of 1 x 1"):
        abstract_params(branchy_cnn(), jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32))
