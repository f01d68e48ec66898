"""Batches over processes: each process loads its rows, and together they are one array.

Which samples a step uses follows from the step alone, not from the number of processes: all know
the indices of the whole batch, and each reads its slice of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.tiers import make_mesh

PyTree = Any

PROCESS, DEVICE = "process", "device"


def process_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays the devices of all processes out as ``[process, device]``.

    Sums over ``device`` stay inside a process; sums over ``process`` cross the network.

    Args:
      devices: as many of each process; all if None.

    Returns:
      A mesh over ``("process", "device")`` whose row ``i`` holds the devices of the ``i``-th
      process.

    Example:
      >>> process_mesh().axis_names
      ('process', 'device')
    """
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    processes = len({device.process_index for device in devices})
    return make_mesh((processes, len(devices) // processes), (PROCESS, DEVICE), devices)


def process_place(mesh: Mesh) -> tuple[int, int]:
    """Finds the row of this process in a mesh, for `process_slice`.

    Args:
      mesh: of `process_mesh`, of all processes or of those that are left.

    Returns:
      ``(index, count)``: its row, and how many rows there are.

    Example:
      >>> process_place(process_mesh())
      (0, 1)
    """
    owners = [row[0].process_index for row in mesh.devices]
    return owners.index(jax.process_index()), len(owners)


def process_slice(n: int, index: int | None = None, count: int | None = None) -> slice:
    """Chooses the rows of a global batch that a process loads.

    Args:
      n: rows of the whole batch.
      index: number of the process; this one if None.
      count: number of processes; all of the run if None.

    Returns:
      Its equal share, in the order of the processes.

    Raises:
      ValueError: the rows cannot be shared equally.

    Example:
      >>> [process_slice(12, i, 3) for i in range(3)]
      [slice(0, 4, None), slice(4, 8, None), slice(8, 12, None)]
    """
    index = jax.process_index() if index is None else index
    count = jax.process_count() if count is None else count
    if n % count:
        near = max(n // count, 1) * count
        raise ValueError(
            f"a batch of {n} cannot be shared by {count} processes equally; the nearest is {near}"
        )
    return slice(index * (n // count), (index + 1) * (n // count))


def global_batch(mesh: Mesh, local: PyTree, axes: Sequence[str] = (PROCESS, DEVICE)) -> PyTree:
    """Joins the rows of all processes to global arrays; nothing is sent.

    Args:
      mesh: a mesh over all processes, such as `process_mesh`.
      local: numpy arrays ``[rows of this process, ...]``, see `process_slice`.
      axes: mesh axes over which the rows lie.

    Returns:
      Arrays ``[rows of all processes, ...]``, laid over ``axes``.

    Raises:
      ValueError: the rows of this process cannot be shared by its devices equally.

    Example:
      >>> import numpy as np
      >>> global_batch(process_mesh(), {"x": np.zeros((8, 3))})["x"].shape
      (8, 3)
    """
    sharding = NamedSharding(mesh, PartitionSpec(tuple(axes)))
    parts = len({
        s.start for s, *_ in sharding.addressable_devices_indices_map((mesh.size,)).values()
    })  # fmt: skip

    def join(x):
        if x.shape[0] % parts:
            raise ValueError(
                f"{x.shape[0]} rows of a process cannot be shared by its {parts} devices on the "
                f"axes {tuple(axes)} equally"
            )
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(join, local)
