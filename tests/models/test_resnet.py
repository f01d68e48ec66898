"""Residual networks: parameters by hand, depth, shapes, and the identity of a dead block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.models import all_logits, resnet
from eejax.models.resnet import BasicBlock

CIFAR = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)


def abstract_params(model, x=CIFAR):
    from eejax.models import init

    return jax.eval_shape(lambda key: init(model, key, x), jax.random.key(0))


def conv3(a, b):
    """A 3 x 3 convolution without bias, and its normalisation."""
    return 9 * a * b + 2 * b


@pytest.mark.parametrize("blocks", [1, 3])
def test_parameters_by_hand(blocks):
    params = abstract_params(resnet(blocks=blocks))
    more = 2 * (blocks - 1)
    assert {name: trees.size(subtree) for name, subtree in params.items()} == {
        "stage1": conv3(3, 16) + 2 * blocks * conv3(16, 16),
        "exit1": 17 * 10,
        "stage2": conv3(16, 32) + (1 + more) * conv3(32, 32) + 16 * 32 + 2 * 32,
        "exit2": 33 * 10,
        "stage3": conv3(32, 64) + (1 + more) * conv3(64, 64) + 32 * 64 + 2 * 64,
        "exit3": 65 * 10,
    }


@pytest.mark.parametrize(("blocks", "depth"), [(1, 8), (3, 20)])
def test_depth(blocks, depth):
    """Layers with weights on the way to the last exit; projections are not counted."""
    paths = [
        trees.path_name(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(abstract_params(resnet(blocks=blocks)))
    ]
    early = ("exit1", "exit2")
    assert (
        sum(p.endswith("kernel") and "project" not in p and p[:5] not in early for p in paths)
        == depth
    )


def test_stages_halve_the_image():
    model, x = resnet(classes=7, widths=(4, 8, 8, 12)), jax.ShapeDtypeStruct((2, 9, 8, 1), "uint8")
    params = abstract_params(model, x)
    shapes = []
    for stage in model.stages:
        x = jax.eval_shape(stage.apply, params[stage.name], x)
        shapes.append(x.shape)
    assert shapes == [(2, 9, 8, 4), (2, 5, 4, 8), (2, 3, 2, 8), (2, 2, 1, 12)]
    # Equal widths, but half the size: the shortcut is projected.
    assert "project" in params["stage3"]["block1"]
    x = jax.ShapeDtypeStruct((2, 9, 8, 1), jnp.float32)
    logits = jax.eval_shape(lambda params, x: all_logits(model, params, x), params, x)
    assert logits.shape == (4, 2, 7)


def test_a_block_whose_last_scale_is_zero_is_relu_of_its_input():
    block = BasicBlock(4, strides=1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32))
    params = block.init(jax.random.key(0), x)["params"]
    assert sorted(params) == ["conv1", "conv2", "norm1", "norm2"]
    params["norm2"]["scale"] = jnp.zeros(4)
    np.testing.assert_array_equal(block.apply({"params": params}, x), jax.nn.relu(x))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"blocks": 0}, "blocks must be >= 1, got 0"),
        ({"widths": ()}, "widths must be multiples of 4, got"),
        ({"widths": (16, 30)}, "widths must be multiples of 4, got"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    with pytest.raises(ValueError, match=message):
        resnet(**kwargs)
