"""ZeRO: the numbers of plain data parallelism, with an eighth of the memory."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.cotrain.replica import data_parallel, mean_grad, split, zero
from eejax.tiers import collectives, make_mesh

KEY = jax.random.key(0)
AXES = ("edge", "end")
MICRO = 4
STAGES = pytest.mark.parametrize("stage", [1, 2, 3])


def loss(p, x, key):
    del key
    return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["head"] + jnp.sin(
        p["scalar"] + x[:, :7] @ p["odd"]
    ).sum(-1), {}


GRAD_FN = mean_grad(loss)
momentum = functools.partial(optax.sgd, momentum=0.9)


def make_params():
    """Sizes that 8 divides along the first, the last and no dimension, and none at all."""
    rng = np.random.default_rng(0)
    shapes = {"w": (13, 64), "b": (64,), "head": (64,), "odd": (7, 9), "scalar": ()}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def make_batch():
    rng = np.random.default_rng(1)
    return split(rng.normal(size=(67, 13)).astype(np.float32), [8, 9, 8, 8, 10, 8, 8, 8], MICRO)


@functools.cache
def run(stage, tx=optax.adamw):
    """After three steps: the method, its state, and its compiled step."""
    mesh = make_mesh((2, 4), AXES)
    make = functools.partial(zero, stage=stage) if stage else data_parallel
    method = make(GRAD_FN, tx(0.1), mesh, AXES)
    compiled = method.step.lower(method.init(make_params()), make_batch(), KEY).compile()
    state = method.init(make_params())
    for _ in range(3):
        state, _ = compiled(state, make_batch(), KEY)
    return method, state, compiled


@STAGES
@pytest.mark.parametrize("tx", [optax.adamw, momentum])
def test_equals_plain_data_parallelism(stage, tx):
    plain, sharded = (run(s, tx)[1] for s in (0, stage))
    chex.assert_trees_all_close(
        jax.device_get(sharded), jax.device_get(plain), rtol=1e-6, atol=1e-6
    )


def device_bytes(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


@STAGES
def test_memory_of_a_device(stage):
    _, state, compiled = run(stage)
    whole, cut = trees.nbytes(make_params()), 4 * (13 * 64 + 64 + 64)
    shard = cut // 8 + 4 * 64
    assert whole == cut + 4 * 64
    # Adam keeps two moments and a counter.
    assert device_bytes(state.opt_state) == 2 * shard + 4
    assert device_bytes(state.params) == (shard if stage == 3 else whole)
    batch = device_bytes(jax.tree.map(jnp.asarray, make_batch())) // 8
    expected = 2 * shard + 4 + (shard if stage == 3 else whole) + batch + 4
    memory = compiled.memory_analysis()
    assert expected <= memory.argument_size_in_bytes <= expected + 64  # Keys are a few bytes.
    assert memory.alias_size_in_bytes >= 3 * shard  # The state is updated in place.


def test_sums_of_gradients_are_sharded_from_stage_2_on():
    first, second = (run(stage)[2].memory_analysis().temp_size_in_bytes for stage in (1, 2))
    assert second < first


@STAGES
def test_bytes(stage):
    method, _, compiled = run(stage)
    mesh = make_mesh((2, 4), AXES)
    cut, whole = 4 * (13 * 64 + 64 + 64) * 7 / 8, 4 * 64 * 2 * 7 / 8
    scatters = 1 if stage == 1 else MICRO
    scalars = 4 * 2 * 2 * 7 / 8
    expected = {"edge": (scatters + 1) * cut + whole + scalars}
    assert method.nbytes(make_params(), make_batch()) == expected
    found = collectives(compiled, mesh)
    assert found.by_tier == expected
    assert found.by_kind["all-gather"] == cut
    assert found.by_kind["reduce-scatter"] == scatters * cut


def test_stage_1_sends_no_more_than_plain_data_parallelism():
    plain, sharded = (run(stage)[0].nbytes(make_params(), make_batch()) for stage in (0, 1))
    assert plain == sharded


def test_leaves_keep_their_shape_so_a_checkpoint_fits_any_number_of_devices():
    method, state, _ = run(3)
    two = zero(GRAD_FN, optax.adamw(0.1), make_mesh((2,), ("end",)), ("end",), stage=3)
    other = two.init(make_params())
    assert trees.abstract(jax.device_get(state)) == trees.abstract(jax.device_get(other))
    moved = jax.tree.map(lambda x, y: jax.device_put(np.asarray(x), y.sharding), state, other)
    expected, _ = method.step(jax.tree.map(jnp.copy, state), make_batch(), KEY)
    got, _ = two.step(moved, make_batch(), KEY)
    chex.assert_trees_all_close(*jax.device_get((got, expected)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        optax.lamb(0.1),
        optax.adafactor(0.1, min_dim_size_to_factor=2),
    ],
)
def test_optimisers_that_look_at_whole_gradients_are_refused(tx):
    method = zero(GRAD_FN, tx, make_mesh((8,), ("end",)), ("end",))
    with pytest.raises(ValueError, match="tx is not elementwise"):
        method.init(make_params())


def test_stage_must_exist():
    with pytest.raises(ValueError, match="stage must be 1, 2 or 3, got 4"):
        zero(GRAD_FN, optax.sgd(0.1), make_mesh((8,), ("end",)), ("end",), stage=4)
