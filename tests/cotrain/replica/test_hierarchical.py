"""Sums over tiers: equal to a flat sum, and bytes on each tier equal to theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from eejax.cotrain.replica import (
    hier_bytes,
    hier_psum,
    nested_bytes,
    nested_psum,
    ring_bytes,
    ring_psum,
)
from eejax.cotrain.replica.price import all_reduce_bytes
from eejax.tiers import collectives, make_mesh

AXES = ("cloud", "edge", "end")
UP = ("end", "edge", "cloud")
SUMS = {
    "flat": lambda tree: lax.psum(tree, AXES),
    "hierarchical": lambda tree: hier_psum(tree, UP),
    "nested": lambda tree: nested_psum(tree, UP),
    "ring": lambda tree: ring_psum(tree, AXES),
}


def make_tree(n=8):
    rng = np.random.default_rng(0)
    shapes = {"odd": (n, 1003), "small": (n, 3), "scalar": (n,), "matrix": (n, 5, 7)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@functools.cache
def program(name, shape=(2, 2, 2), single=False):
    mesh = make_mesh(shape, AXES)

    def body(tree):
        return jax.tree.map(lambda x: x[None], SUMS[name](jax.tree.map(lambda x: x[0], tree)))

    tree = make_tree()
    tree = {"odd": tree["odd"]} if single else tree
    spec = PartitionSpec(AXES)
    # Every device shows its own sum.
    out = spec if name == "ring" else PartitionSpec()
    fn = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=out))
    return fn.lower(tree).compile(), tree, mesh


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 1, 2), (1, 8, 1)])
@pytest.mark.parametrize("name", SUMS)
def test_all_sums_are_the_sum_on_every_device_for_uneven_leaves(name, shape):
    compiled, tree, _ = program(name, shape)
    for key, total in compiled(tree).items():
        for shard in total.addressable_shards:
            np.testing.assert_allclose(shard.data[0], tree[key].sum(0), rtol=1e-5, atol=1e-5)


def test_bytes_of_each_tier_worked_out_by_hand():
    """1003 floats are padded to 1004, 4016 bytes: halved twice before they reach the cloud."""
    expected = {
        "flat": {"cloud": 2 * 7 / 8 * 4012},
        "hierarchical": {"cloud": 1004, "edge": 2008, "end": 4016},
        "nested": {"cloud": 4012, "edge": 4012, "end": 4012},
        # Chunks of 126 floats, 14 times: 2 of 8 links cross the cloud, 2 edges, 4 end devices.
        "ring": {"cloud": 1764, "edge": 1764, "end": 3528},
    }
    for name, by_tier in expected.items():
        compiled, _, mesh = program(name, single=True)
        assert collectives(compiled, mesh).by_tier == by_tier


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 1, 2), (1, 8, 1)])
def test_bytes_equal_theory(shape):
    one = jax.tree.map(lambda x: x[0], make_tree())
    mesh = make_mesh(shape, AXES)
    theory = {
        "flat": all_reduce_bytes(4 * (1003 + 3 + 1 + 35), mesh, AXES),
        "hierarchical": hier_bytes(one, mesh, UP),
        "nested": nested_bytes(one, mesh, UP),
        "ring": ring_bytes(one, mesh, AXES),
    }
    for name, by_tier in theory.items():
        assert collectives(program(name, shape)[0], mesh).by_tier == pytest.approx(by_tier)


def test_slow_tier_carries_what_theory_says_and_a_fraction_of_the_others():
    """2 R_cloud N / (n_end n_edge), with R = (n - 1) / n."""
    leaf = jax.ShapeDtypeStruct((4, 1000), jnp.float32)
    mesh = make_mesh((2, 2, 2), AXES)
    slow = 2 * (1 / 2) * 16000 / (2 * 2)
    assert hier_bytes(leaf, mesh, UP)["cloud"] == slow
    assert nested_bytes(leaf, mesh, UP)["cloud"] == 4 * slow
    assert all_reduce_bytes(16000, mesh, AXES)["cloud"] == 7 * slow
