import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from eejax.cotrain.multihost import global_batch, process_mesh, process_slice
from eejax.tiers import make_mesh


def test_slices_of_all_processes_are_the_batch():
    rows = np.arange(24)
    for count in (1, 2, 3, 24):
        parts = [rows[process_slice(24, i, count)] for i in range(count)]
        np.testing.assert_array_equal(np.concatenate(parts), rows)
        assert {len(part) for part in parts} == {24 // count}
    assert process_slice(24) == slice(0, 24)


@pytest.mark.parametrize(("n", "count", "near"), [(25, 4, 24), (3, 4, 4)])
def test_an_unequal_share_is_refused_with_the_nearest(n, count, near):
    with pytest.raises(ValueError, match=f"a batch of {n} .* {count} processes.*nearest is {near}"):
        process_slice(n, 0, count)


def test_the_mesh_has_a_row_for_each_process():
    mesh = process_mesh()
    assert dict(mesh.shape) == {"process": 1, "device": 8}
    assert mesh.devices.ravel().tolist() == sorted(jax.devices(), key=lambda d: d.id)


def test_rows_lie_in_order_over_the_devices():
    batch = global_batch(process_mesh(), {"x": np.arange(16.0), "y": np.arange(32).reshape(16, 2)})
    for i, device in enumerate(jax.devices()):
        shard = next(s for s in batch["x"].addressable_shards if s.device == device)
        np.testing.assert_array_equal(shard.data, [2 * i, 2 * i + 1])
    np.testing.assert_array_equal(batch["y"], np.arange(32).reshape(16, 2))


def test_other_axes_may_copy_the_rows():
    mesh = make_mesh((1, 2, 4), ("process", "device", "model"))
    x = global_batch(mesh, np.arange(6))
    assert x.sharding.spec == P(("process", "device"))
    assert {s.data.shape for s in x.addressable_shards} == {(3,)}
    with pytest.raises(ValueError, match=r"7 rows of a process .* its 2 devices"):
        global_batch(mesh, np.arange(7))
