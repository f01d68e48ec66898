"""Arrays that lie over several processes, brought to every host and back."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def to_host(x: Any) -> np.ndarray:
    """Copies a whole array to every host, wherever its parts lie.

    All processes must call it in the same order. It needs memory for the whole array on each host,
    which suits states of some gigabytes, not more.

    Args:
      x: an array; a typed key must be unwrapped first.

    Returns:
      All elements.

    Example:
      >>> to_host(jax.numpy.arange(3))
      array([0, 1, 2], dtype=int32)
    """
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def to_devices(x: np.ndarray, sharding: Any) -> jax.Array:
    """Lays an array that every host has whole over the devices of all processes.

    Args:
      x: all elements, the same on every host.
      sharding: where they go; None for the default device.

    Returns:
      The array; each process copied only the parts of its own devices.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def from_first(data: bytes) -> bytes:
    """Sends bytes of process 0 to all.

    Args:
      data: what to send; only that of process 0 matters. All processes must call.

    Returns:
      The bytes of process 0.

    Example:
      >>> from_first(b"step 40")
      b'step 40'
    """
    if jax.process_count() == 1:
        return data
    first = jax.process_index() == 0
    # Bytes, since JAX broadcasts by a sum, which would turn -0.0 into 0.0 and 64 bits into 32.
    length = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
    size = int.from_bytes(multihost_utils.broadcast_one_to_all(length).tobytes(), "little")
    mine = np.frombuffer(data, np.uint8) if first else np.zeros(size, np.uint8)
    return multihost_utils.broadcast_one_to_all(mine).tobytes()
