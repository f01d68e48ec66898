"""Layers of published networks, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models.densenet import DenseLayer
from eejax.models.encoder_layer import EncoderLayer
from eejax.models.googlenet import Inception
from eejax.models.mobilenet_v2 import InvertedResidual
from eejax.models.native import ConvLayer, GlobalMean, MaxPool
from eejax.models.resnet import ResidualBlock

IMAGE = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)


def like(tree, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), tree)


def shapes_of(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)


def drawn(module, x, seed=0):
    """Variables with random parameters, and averages of 0 and 1."""
    shapes, rng = shapes_of(module, x), np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(np.float32)), shapes["params"]
    )
    variables = {"params": params}
    if "batch_stats" in shapes:
        variables["batch_stats"] = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "var")),
            shapes["batch_stats"],
        )
    return variables


def test_a_convolution_then_normalisation_then_relu():
    """The middle sums 1 to 9; (45 - 5) / sqrt(4) * 3 - 2 = 58, and -18.5 is cut off."""
    layer = ConvLayer(1)
    variables = like(shapes_of(layer, IMAGE), 1.0)
    variables["params"]["norm"] = {"scale": jnp.array([3.0]), "bias": jnp.array([-2.0])}
    variables["batch_stats"]["norm"] = {"mean": jnp.array([5.0]), "var": jnp.array([4.0])}
    y = layer.apply(variables, IMAGE)[0, :, :, 0]
    assert y[1, 1] == pytest.approx(58, rel=1e-4)
    assert y[0, 0] == pytest.approx((1 + 2 + 4 + 5 - 5) / 2 * 3 - 2, rel=1e-4)
    variables["params"]["norm"]["scale"] = jnp.array([-3.0])
    np.testing.assert_array_equal(layer.apply(variables, IMAGE)[0, 1, 1], 0)


def test_a_bias_takes_the_place_of_normalisation():
    layer = ConvLayer(1, 1, norm=None, activation=None)
    variables = like(shapes_of(layer, IMAGE), -2.0)
    assert sorted(variables) == ["params"]
    np.testing.assert_array_equal(layer.apply(variables, IMAGE), -2 * IMAGE - 2)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (ConvLayer(4, 11, 4, 2), 55),
        (ConvLayer(4, 7, 2), 112),
        (ConvLayer(4, 3, 2, 0), 111),
        (ConvLayer(4, 5), 224),
        (ConvLayer(4, 1, 2), 112),
    ],
)
def test_padding_is_symmetric(layer, size):
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert y.shape == (1, size, size, 4)


def test_kernels_are_drawn_for_relu():
    kernel = ConvLayer(16, norm=None).init(jax.random.key(0), jnp.zeros((1, 1, 1, 64)))
    assert float(kernel["params"]["conv"]["kernel"].var()) == pytest.approx(2 / (9 * 64), rel=0.1)


def test_groups_convolve_apart():
    x = jnp.concatenate([IMAGE, -IMAGE], axis=-1)
    layer = ConvLayer(2, 1, groups=2, norm=None, activation=None)
    params = {"conv": {"kernel": jnp.array([2.0, 3.0]).reshape(1, 1, 1, 2), "bias": jnp.zeros(2)}}
    y = layer.apply({"params": params}, x)
    np.testing.assert_array_equal(y, jnp.concatenate([2 * IMAGE, -3 * IMAGE], axis=-1))


def test_poolings():
    def pooled(*args):
        return MaxPool(*args).apply({}, IMAGE)[0, :, :, 0].tolist()

    assert pooled(2, 2) == [[5]]
    assert pooled(2, 2, "SAME") == [[5, 6], [8, 9]]
    assert pooled(2, 1, "SAME") == [[5, 6, 6], [8, 9, 9], [8, 9, 9]]
    assert pooled(3, 2, 1) == [[5, 6], [8, 9]]
    np.testing.assert_array_equal(MaxPool(3, 2, 1).apply({}, -IMAGE)[0, 0, 0], -1)
    assert GlobalMean().apply({}, IMAGE).tolist() == [[5]]


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_block_whose_last_scale_is_zero_is_relu_of_its_input(bottleneck):
    block, width = ResidualBlock(2, 1, bottleneck), 8 if bottleneck else 2
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, width)).astype(np.float32))
    variables = drawn(block, x)
    last = "conv3" if bottleneck else "conv2"
    assert sorted(variables["params"]) == ["conv1", "conv2", "conv3"][: 2 + bottleneck]
    variables["params"][last]["norm"] = like(variables["params"][last]["norm"], 0.0)
    np.testing.assert_array_equal(block.apply(variables, x), jax.nn.relu(x))


def test_an_inverted_residual_adds_its_input_where_shapes_agree():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32))
    for features, strides, expected in ((3, 1, x), (3, 2, 0), (5, 1, 0)):
        block = InvertedResidual(features, strides, 2)
        variables = drawn(block, x)
        variables["params"]["project"] = like(variables["params"]["project"], 0.0)
        y = jax.jit(block.apply)(variables, x)
        np.testing.assert_array_equal(y, jnp.broadcast_to(expected, y.shape))
    assert sorted(variables["params"]) == ["depthwise", "expand", "project"]
    assert variables["params"]["depthwise"]["conv"]["kernel"].shape == (3, 3, 1, 6)
    assert "expand" not in drawn(InvertedResidual(3, 1, 1), x)["params"]


def test_a_dense_layer_keeps_its_input():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32))
    layer = DenseLayer(2)
    y = layer.apply(drawn(layer, x), x)
    assert y.shape == (1, 4, 4, 5)
    np.testing.assert_array_equal(y[..., :3], x)
    assert (y[..., 3:] != 0).all()


def test_branches_of_inception_are_in_order():
    """With kernels of one branch at zero and no bias, its channels alone are zero."""
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, size=(1, 4, 4, 3)).astype(np.float32))
    module = Inception((1, 2, 2, 2, 3, 4))
    variables = drawn(module, x)
    variables |= {"params": like(variables["params"], 1.0)}
    apply = jax.jit(module.apply)
    for name, channels in (
        ("conv1x1", range(1)),
        ("conv3x3", range(1, 3)),
        ("conv5x5", range(3, 6)),
        ("project", range(6, 10)),
    ):
        off = dict(variables["params"])
        off[name] = like(off[name], 0.0)
        y = apply(variables | {"params": off}, x)
        assert np.flatnonzero((y == 0).all((0, 1, 2))).tolist() == list(channels)


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer_without_weights(norm_first):
    """Attention and dense layers give nothing; what remains is the input, or its normalisation."""
    x = jnp.array([[[1.0, 3.0], [10.0, 30.0]]])
    layer = EncoderLayer(1, 4, norm_first)
    params = {
        name: like(subtree, 0.0) | ({"scale": jnp.ones(2)} if "norm" in name else {})
        for name, subtree in shapes_of(layer, x)["params"].items()
    }
    y = jax.jit(layer.apply)({"params": params}, x)
    np.testing.assert_allclose(y, x if norm_first else [[[-1, 1], [-1, 1]]], rtol=1e-5)


def test_attention_mixes_positions_and_dense_layers_do_not():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32))
    layer = EncoderLayer(2, 8, True)
    params = dict(drawn(layer, x)["params"])
    moved, apply = x.at[:, 2, 0].add(1.0), jax.jit(layer.apply)

    def first_moves(params):
        outputs = [apply({"params": params}, value)[:, 0] for value in (x, moved)]
        return bool((outputs[0] != outputs[1]).any())

    assert first_moves(params)
    assert not first_moves(params | {"attention": like(params["attention"], 0.0)})
