"""Mixing matrices of gossip, and their product with models that lie on different devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from eejax.cotrain.replica.price import add_bytes, permute_bytes
from eejax.cotrain.replica.replica import device_count

PyTree = Any


def metropolis(adjacency: Any) -> np.ndarray:
    """Makes the mixing matrix of any graph from the degrees of neighbours alone.

    ``W_ij = 1 / (1 + max(d_i, d_j))`` along edges, and the rest of each row on the diagonal.

    Args:
      adjacency: symmetric bools ``[nodes, nodes]``; the diagonal is ignored.

    Returns:
      A symmetric, doubly stochastic matrix in float64.

    Raises:
      ValueError: the adjacency is not square and symmetric.

    References:
      Xiao and Boyd, Fast Linear Iterations for Distributed Averaging, 2004.

    Example:
      >>> metropolis([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).round(2).tolist()
      [[0.67, 0.33, 0.0], [0.33, 0.33, 0.33], [0.0, 0.33, 0.67]]
    """
    a = np.asarray(adjacency, bool)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or (a != a.T).any():
        raise ValueError(f"adjacency must be square and symmetric, got {np.asarray(adjacency)!r}")
    a = a & ~np.eye(len(a), dtype=bool)
    degree = a.sum(1)
    w = a / (1.0 + np.maximum(degree[:, None], degree[None]))
    return w + np.diag(1 - w.sum(1))


def ring(n: int) -> np.ndarray:
    """Makes the mixing matrix of a ring: a third each for oneself and both neighbours.

    Example:
      >>> ring(4)[0].round(2).tolist()
      [0.33, 0.33, 0.0, 0.33]
    """
    step = np.roll(np.eye(n, dtype=bool), 1, 1)
    return metropolis(step | step.T)


def star(n: int) -> np.ndarray:
    """Makes the mixing matrix of a star: the first node talks to all, and the others to it.

    Example:
      >>> star(3).round(2).tolist()
      [[0.33, 0.33, 0.33], [0.33, 0.67, 0.0], [0.33, 0.0, 0.67]]
    """
    edges = np.zeros((n, n), bool)
    edges[0, 1:] = edges[1:, 0] = True
    return metropolis(edges)


def complete(n: int) -> np.ndarray:
    """Makes the mixing matrix of a complete graph: everybody's mean.

    Example:
      >>> complete(2).tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    return np.full((n, n), 1 / n)


def spectral_gap(w: Any) -> float:
    """Tells how fast mixing alone brings nodes together: ``1 - max(|lambda_2|, |lambda_n|)``.

    Args:
      w: a mixing matrix.

    Returns:
      1 when one step makes all equal, 0 when the graph is not connected.

    Example:
      >>> round(spectral_gap(complete(8)), 6), round(spectral_gap(ring(8)), 4)
      (1.0, 0.1953)
    """
    sizes = np.sort(np.abs(np.linalg.eigvals(check_mixing(w))))
    return float(1 - sizes[-2]) if len(sizes) > 1 else 1.0


def check_mixing(w: Any) -> np.ndarray:
    """Checks that a matrix is square, not negative, and that rows and columns add up to 1.

    Args:
      w: the matrix.

    Returns:
      It in float64.

    Raises:
      ValueError: it is not doubly stochastic, so nodes would not agree on the mean.
    """
    w = np.asarray(w, np.float64)
    square = w.ndim == 2 and w.shape[0] == w.shape[1]
    if not square or w.min() < 0 or max(abs(w.sum(i) - 1).max() for i in (0, 1)) > 1e-6:
        raise ValueError(f"w must be square, >= 0, its rows and columns of sum 1; got {w!r}")
    return w


def mix(tree: PyTree, w: np.ndarray, axes: tuple[str, ...]) -> PyTree:
    """Computes ``sum_j W_ij x_j`` inside `jax.shard_map`; only edges of the graph carry anything.

    Each offset between devices is one permute among those that have an edge, of the rows that any
    edge needs: a ring is two permutes of one model, a complete graph ``n - 1``.

    Args:
      tree: leaves ``[rows, ...]``, the nodes of this device.
      w: mixing matrix.
      axes: mesh axes of the nodes.

    Returns:
      Leaves of the same shape.
    """
    here = jax.lax.axis_index(axes)
    devices = jax.lax.axis_size(axes)

    def one(x):
        total = jnp.zeros_like(x)
        for pairs, rows, blocks in offsets(w, devices):
            part = x[rows]
            if any(a != b for a, b in pairs):
                part = jax.lax.ppermute(part, axes, pairs)
            total += jnp.tensordot(jnp.asarray(blocks, x.dtype)[here], part, 1)
        return total

    return jax.tree.map(one, tree)


def mix_bytes(nbytes: float, w: np.ndarray, mesh: Mesh, axes: tuple[str, ...]) -> dict[str, float]:
    """Prices `mix`: a model for each edge of the graph that lies between two devices.

    Args:
      nbytes: bytes of one model.
      w: mixing matrix.
      mesh: the mesh.
      axes: mesh axes of the nodes.

    Returns:
      Bytes that the mean device sends, by the outermost axis crossed.
    """
    return add_bytes(
        *(
            permute_bytes(len(rows) * nbytes, pairs, mesh, axes)
            for pairs, rows, _ in offsets(w, device_count(mesh, axes))
        )
    )


def offsets(
    w: np.ndarray, devices: int
) -> list[tuple[list[tuple[int, int]], np.ndarray, np.ndarray]]:
    """Cuts a mixing matrix into blocks of devices, one diagonal of blocks after the other.

    Args:
      w: mixing matrix ``[nodes, nodes]``.
      devices: number of devices, which divides the nodes.

    Returns:
      For each offset between devices with any edge: the pairs (from, to) of devices, the rows of a
      device that are needed, and their weights ``[devices, rows of a device, rows needed]``.

    Example:
      >>> [(pairs, rows.tolist()) for pairs, rows, _ in offsets(ring(4), 2)]
      [([(0, 0), (1, 1)], [0, 1]), ([(1, 0), (0, 1)], [0, 1])]
    """
    rows = len(w) // devices
    grid = w.reshape(devices, rows, devices, rows).transpose(0, 2, 1, 3)
    found = []
    for offset in range(devices):
        source = (np.arange(devices) + offset) % devices
        blocks = grid[np.arange(devices), source]
        needed = np.flatnonzero(blocks.any((0, 1)))
        pairs = [(int(a), b) for b, a in enumerate(source) if blocks[b].any()]
        if pairs:
            found.append((pairs, needed, blocks[:, :, needed]))
    return found
