"""Channel-parallel convolution against XLA's own on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.cotrain import tensor
from eejax.tiers import collectives, make_mesh

KEYS = jax.random.split(jax.random.key(0), 5)
PARAMS = {
    "up": 0.3 * jax.random.normal(KEYS[0], (3, 3, 8, 16)),
    "b": jax.random.normal(KEYS[1], (16,)),
    "down": 0.3 * jax.random.normal(KEYS[2], (3, 3, 16, 8)),
}
X, DY = jax.random.normal(KEYS[3], (8, 6, 6, 8)), jax.random.normal(KEYS[4], (8, 3, 3, 8))


def native(x, kernel, strides=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def plain(params, x):
    return native(
        jax.nn.relu(native(x, params["up"]) + params["b"][None, None, None]), params["down"], 2
    )


def body(lo, params, x):
    y = jax.nn.relu(tensor.conv(lo.up, x, params["up"], params["b"]))
    return tensor.conv(lo.down, y, params["down"], strides=2)


@pytest.mark.parametrize(
    ("scheme", "grid", "face"),
    [
        ("1d", (8,), "shard_map"),
        ("1d_sp", (8,), "shard_map"),
        ("2d", (2, 4), "shard_map"),
        ("2d_opt", (4, 2), "shard_map"),
        ("2.5d", (2, 2, 2), "shard_map"),
        ("3d", (2, 2, 2), "shard_map"),
        ("2d_opt", (4, 2), "jit"),
    ],
)
def test_two_convolutions(scheme, grid, face):
    lo = tensor.layout(scheme)
    mesh = make_mesh(grid, lo.axes)
    up, down = tensor.conv_specs(lo.up), tensor.conv_specs(lo.down)
    lies = ({"up": up["kernel"], "b": up["b"], "down": down["kernel"]}, up["x"])
    fn = tensor.spread(body, lo, mesh, lies, down["y"], face)

    def both(fn, params, x, dy):
        y, vjp = jax.vjp(fn, params, x)
        return y, vjp(dy)

    args = tensor.place((PARAMS, X, DY), mesh, (*lies, down["y"]))
    program = jax.jit(lambda *args: both(fn, *args)).lower(*args).compile()
    expected = jax.jit(lambda *args: both(plain, *args))(PARAMS, X, DY)
    for ours, theirs in zip(jax.tree.leaves(program(*args)), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * float(jnp.abs(theirs).max()))
    # By hand: kernels are 9 matrices; images of 36 pixels go in and 9 come out of the second.
    sent = {
        "1d": 2 * 7 / 8 * 8 * 8 * (36 + 9),
        "2d": 2 * (3 / 8 * 8 * 36 * (8 + 16) + 1 / 8 * 9 * 2 * 8 * 16) + 2 * 1 / 2 * 16 / 4,
    }
    if scheme in sent:
        assert collectives(program, mesh).total == pytest.approx(4 * sent[scheme])


def test_channels_that_differ_are_refused():
    with pytest.raises(ValueError, match="reads 16 channels"):
        tensor.conv(tensor.layout("serial").up, X, PARAMS["down"])
