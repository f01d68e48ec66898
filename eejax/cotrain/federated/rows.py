"""Clients as rows of arrays, laid out by edge server and over the mesh ``("edge", "end")``."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.data import ClientIndex
from eejax.tiers import EDGE, END, Topology

PyTree = Any


class Rows(NamedTuple):
    """Which samples every client has; edges with fewer clients are filled up with empty ones.

    Attributes:
      table: int32 ``[edges, ends, n_max]``, positions in the data set.
      counts: int32 ``[edges, ends]``, how many of them count; 0 for an empty row.
      ids: int32 ``[edges, ends]``, number of the client; it seeds what is random there, so that
        results do not depend on how rows lie on accelerators. -1 for an empty row.
    """

    table: jax.Array
    counts: jax.Array
    ids: jax.Array


def rows_of(topology: Topology, index: ClientIndex) -> Rows:
    """Seats clients at the end devices of a topology.

    Args:
      topology: its lowest tier are the clients and the tier above the edge servers; without a tier
        above, all clients sit at one.
      index: samples of each client, one client for each end device.

    Returns:
      The rows, on the host; `place` lays them over a mesh.

    Raises:
      ValueError: the numbers of clients and end devices differ.
    """
    ends = topology.tiers[0]
    clients = len(index.counts)
    if clients != ends.nodes:
        raise ValueError(f"{clients} clients cannot sit at {ends.nodes} end devices; give as many")
    edge = np.zeros(clients, np.int64) if ends.parent is None else ends.parent
    edges = 1 if ends.parent is None else topology.tiers[1].nodes
    seats = [np.flatnonzero(edge == e) for e in range(edges)]
    width = max(map(len, seats))
    ids = np.full((edges, width), -1, np.int32)
    for e, clients_here in enumerate(seats):
        ids[e, : len(clients_here)] = clients_here
    table = np.asarray(index.table, np.int32)[ids]
    counts = np.where(ids >= 0, np.asarray(index.counts, np.int32)[ids], 0).astype(np.int32)
    return Rows(table, counts, ids)


def place(mesh: Mesh, rows: PyTree) -> PyTree:
    """Lays arrays ``[edges, ends, ...]`` over the mesh.

    Args:
      mesh: a mesh over ``("edge", "end")`` as `tiers.tier_mesh` makes it for these rows.
      rows: arrays whose first two axes are edges and end devices.

    Returns:
      The same arrays, each device holding its own rows.
    """
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(EDGE, END)))


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts a copy of every array on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
