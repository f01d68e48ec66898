"""Batches: every epoch sees every sample, however the steps are cut or the clients are mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from eejax.data import batch_indices, client_batches

KEY = jax.random.key(5)
N_MAX = 13
ROW = jnp.arange(100, 100 + N_MAX)


@jax.jit
def one(count, step):
    return batch_indices(KEY, count, step, 4, N_MAX)


jit_batches = jax.jit(client_batches, static_argnums=(4, 5))


def run(count, start, steps, batch=4, key=KEY):
    return np.asarray(jit_batches(key, ROW, count, start, steps, batch))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 12, 13])
def test_every_epoch_visits_every_sample(count):
    """And the few that fill the last batch up are the first of the epoch."""
    per_epoch = -(-count // 4)
    orders = []
    for epoch in range(3):
        batches = [one(count, epoch * per_epoch + j) for j in range(per_epoch)]
        entries = np.concatenate(batches)
        assert entries.dtype == np.int32
        assert sorted(entries[:count]) == list(range(count))
        np.testing.assert_array_equal(entries, np.resize(entries[:count], per_epoch * 4))
        orders.append(tuple(entries[:count]))
    if count >= 5:
        assert len(set(orders)) == 3


@pytest.mark.parametrize("count", [0, 1, 5, 13])
def test_client_batches_are_those_of_single_steps(count):
    row = jnp.where(jnp.arange(N_MAX) < count, ROW, ROW[0] if count else 0)
    start, steps = 3, 11
    batches = jit_batches(KEY, row, count, start, steps, 4)
    assert (batches.shape, batches.dtype) == ((steps, 4), jnp.int32)
    singly = [row[one(count, start + i)] for i in range(steps)]
    np.testing.assert_array_equal(batches, singly)


@pytest.mark.parametrize("cuts", [[1, 19], [7, 13], [5, 5, 5, 5], [1] * 20])
def test_a_run_may_be_cut_anywhere(cuts):
    starts = np.cumsum([0, *cuts[:-1]])
    pieces = [run(9, int(start), steps) for start, steps in zip(starts, cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), run(9, 0, 20))


def test_an_empty_client_gets_zeros():
    assert one(0, 7).tolist() == [0] * 4
    row = jnp.zeros(N_MAX, jnp.int32)
    assert jit_batches(KEY, row, 0, 7, 3, 4).tolist() == [[0] * 4] * 3


def test_a_client_smaller_than_a_batch_repeats_itself():
    batches = run(3, 0, 5, batch=7)
    for batch in batches:
        assert sorted(np.bincount(batch - 100, minlength=3)) == [2, 2, 3]


def test_keys_and_epochs_differ():
    batches = run(13, 0, 40)
    assert len(np.unique(batches[::4], axis=0)) == 10
    assert (run(13, 0, 4, key=jax.random.key(6)) != batches[:4]).any()


def test_shuffling_is_fair():
    """Each sample comes first equally often: chi-square of 6 cells over 1200 epochs."""
    first = run(6, 0, 1200, batch=6)[:, 0] - 100
    observed = np.bincount(first, minlength=6)
    assert ((observed - 200) ** 2 / 200).sum() < 20.5  # 0.001 level, 5 degrees of freedom


def test_vmap_and_shard_map_equal_a_loop():
    counts = jnp.array([0, 1, 3, 4, 5, 8, 12, 13])
    starts = jnp.array([9, 0, 1, 2, 3, 4, 5, 6])
    keys = jax.random.split(KEY, 8)
    table = jnp.where(jnp.arange(N_MAX)[None] < counts[:, None], ROW[None], 0)

    def client(key, row, count, start):
        return client_batches(key, row, count, start, 9, 4)

    spec = PartitionSpec("end")
    mesh = jax.make_mesh((8,), ("end",), axis_types=(jax.sharding.AxisType.Auto,))
    arguments = keys, table, counts, starts
    mapped = {
        "vmap": jax.vmap(client),
        "shard_map": jax.shard_map(jax.vmap(client), mesh=mesh, in_specs=spec, out_specs=spec),
        "shard_map of map": jax.shard_map(
            lambda *xs: jax.lax.map(lambda x: client(*x), xs),
            mesh=mesh, in_specs=spec, out_specs=spec,
        ),
    }  # fmt: skip
    loop = [jit_batches(key, row, count, start, 9, 4) for key, row, count, start in zip(*arguments)]
    for name, function in mapped.items():
        np.testing.assert_array_equal(jax.jit(function)(*arguments), loop, err_msg=name)


def test_it_is_compiled_once_for_all_clients_and_steps():
    traces = []

    @jax.jit
    def batches(row, count, start):
        traces.append(1)
        return client_batches(KEY, row, count, start, 3, 4)

    for count, start in ((5, 0), (13, 100), (0, 7)):
        batches(ROW, count, start)
    assert len(traces) == 1
