"""Meshes on eight fake devices: grids, hierarchical means, and the gradient trap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from eejax.tiers import EDGE, END, cast_varying, make_mesh, tier_mean, tier_mesh

ROWS = PartitionSpec(EDGE, END)
ALL = PartitionSpec()


@pytest.mark.parametrize(
    ("devices", "edges", "ends", "grid"),
    [
        (1, 2, 4, (1, 1)),
        (2, 2, 4, (2, 1)),
        (3, 2, 4, (2, 1)),  # Three devices: no grid of three divides eight rows.
        (3, 2, 3, (1, 3)),
        (3, 6, 1, (3, 1)),
        (4, 2, 4, (2, 2)),
        (8, 2, 4, (2, 4)),
        (8, 2, 8, (2, 4)),
        (8, 1, 8, (1, 8)),
        (8, 8, 1, (8, 1)),
        (8, 3, 5, (1, 5)),
        (8, 7, 11, (7, 1)),
    ],
)
def test_tier_mesh_takes_the_largest_grid_that_divides_the_rows(devices, edges, ends, grid):
    mesh = tier_mesh(edges, ends, jax.devices()[:devices])
    assert dict(mesh.shape) == {EDGE: grid[0], END: grid[1]}
    assert edges % grid[0] == 0
    assert ends % grid[1] == 0


def test_tier_mesh_uses_all_devices_by_default():
    assert tier_mesh(2, 4).devices.tolist() == np.reshape(jax.devices(), (2, 4)).tolist()


def test_axes_are_automatic_whatever_the_default_of_jax():
    mesh = make_mesh((2, 2), ("stage", "end"))
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert mesh.devices.ravel().tolist() == jax.devices()[:4]


def test_make_mesh_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"mesh shape \(2, 2\) and axes \('end',\) differ"):
        make_mesh((2, 2), ("end",))
    with pytest.raises(ValueError, match="needs 9 devices, has 8"):
        make_mesh((3, 3), ("edge", "end"))


def mean_of_tiers(mesh, x, weights):
    """Averages rows ``[edges, ends, ...]`` over ends, then over edges by the edges' weights."""

    def local(x, weights):
        means, totals = [], []
        for row, weight in zip(x, weights):
            means.append(tier_mean(row, weight, END))
            totals.append(jax.lax.psum(weight.sum(), END))
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *means)
        return tier_mean(stacked, jnp.stack(totals), EDGE)

    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(ROWS, ROWS), out_specs=ALL))(
        x, weights
    )


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_tier_mean_of_tiers_is_the_flat_mean_on_any_mesh(devices):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    weights = rng.integers(1, 9, (2, 4)).astype(np.float32)
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    expected = np.einsum("en,enk->k", weights, x) / weights.sum()
    np.testing.assert_allclose(mean_of_tiers(mesh, x, weights), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_dropped_row_changes_nothing_even_when_it_is_nan(devices):
    x = np.arange(8, dtype=np.float32).reshape(2, 4, 1) + np.zeros(2, np.float32)
    x[0, 1], x[1, 2] = np.nan, np.inf
    weights = np.ones((2, 4), np.float32)
    weights[0, 1] = weights[1, 2] = 0
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    mean = mean_of_tiers(mesh, x, weights)
    np.testing.assert_allclose(mean, np.full(2, (0 + 2 + 3 + 4 + 5 + 7) / 6), rtol=1e-6)


def test_a_whole_edge_may_drop_out():
    x = np.full((2, 4, 1), np.nan, np.float32)
    x[1] = 5
    weights = np.zeros((2, 4), np.float32)
    weights[1] = 2
    np.testing.assert_allclose(mean_of_tiers(tier_mesh(2, 4), x, weights), [5], rtol=1e-6)
    np.testing.assert_allclose(mean_of_tiers(tier_mesh(2, 4), x, 0 * weights), [0])


def test_tier_mean_of_a_tree_keeps_dtypes():
    tree = {"a": jnp.ones((8, 2), jnp.bfloat16), "b": jnp.arange(8.0)}
    mean = jax.shard_map(
        lambda tree, weights: tier_mean(tree, weights, END),
        mesh=make_mesh((8,), (END,)),
        in_specs=PartitionSpec(END),
        out_specs=ALL,
    )(tree, jnp.ones(8))
    assert mean["a"].dtype == jnp.bfloat16
    assert mean["a"].tolist() == [1, 1]
    assert mean["b"] == 3.5


def gradients(cast):
    """Gradient of ``w * x`` for eight clients, a device each; the truth is x."""

    def client(w, x):
        w = cast(w)
        return jax.grad(lambda w: (w * x).sum())(w)[None]

    sharded = jax.shard_map(
        client,
        mesh=make_mesh((2, 4), (EDGE, END)),
        in_specs=(ALL, PartitionSpec((EDGE, END))),
        out_specs=PartitionSpec((EDGE, END)),
    )
    return sharded(jnp.ones(()), jnp.arange(1.0, 9.0))


def test_gradients_of_replicated_values_are_summed_unless_cast():
    """If the first half fails, JAX has changed, and `cast_varying` may go."""
    assert gradients(lambda w: w).tolist() == [36.0] * 8
    assert gradients(lambda w: cast_varying(w, (EDGE, END))).tolist() == list(range(1, 9))


def test_cast_varying_casts_only_what_is_missing():
    def local(w, x):
        tree = cast_varying({"w": w, "x": x}, (EDGE, END))
        again = cast_varying(tree, (EDGE, END))
        assert all(
            jax.typeof(leaf).manual_axis_type.varying == {EDGE, END}
            for leaf in jax.tree.leaves(again)
        )
        return again["x"] + again["w"]

    summed = jax.shard_map(
        local,
        mesh=make_mesh((2, 4), (EDGE, END)),
        in_specs=(ALL, PartitionSpec(EDGE)),
        out_specs=PartitionSpec(EDGE, END),
    )(jnp.float32(1), jnp.zeros((2, 1)))
    assert summed.tolist() == [[1.0] * 4] * 2
