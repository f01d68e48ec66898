"""One process; between processes these are tested by tests/experiment/test_multihost.py."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from eejax.cotrain.multihost import any_process, from_first, process_mesh, to_devices, to_host


def test_arrays_go_to_the_devices_and_back():
    x = np.arange(16, dtype=np.float32).reshape(8, 2)
    sharding = NamedSharding(process_mesh(), P("device", None))
    laid = to_devices(x, sharding)
    assert laid.sharding == sharding
    np.testing.assert_array_equal(to_host(laid), x)
    assert not to_devices(x, None).committed


def test_values_of_the_host_stay_what_they_are():
    assert to_host(np.float64(1.5)).dtype == np.float64
    assert to_host(jnp.int32(3)).shape == ()
    assert from_first(b"\x00\xff") == b"\x00\xff"
    assert any_process(np.True_) is True
    assert jax.process_count() == 1
