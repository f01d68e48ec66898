"""The samples of every client: what a partitioner returns, and what partitioners share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Indices = list[np.ndarray]
"""For each client the positions of its samples, int64, in random order."""

Partitioner = Callable[[Any, int, int], Indices]
"""``(labels [n], clients, seed) -> indices``."""


class ClientIndex(NamedTuple):
    """The samples of all clients as two arrays that a compiled program can index.

    Attributes:
      table: int32 ``[clients, n_max]``, positions in the data set; the first ``counts[i]`` of row
        ``i`` are real, and the rest repeats the first (zeros for a client without samples).
      counts: int32 ``[clients]``.
    """

    table: np.ndarray
    counts: np.ndarray


def pack(indices: Sequence[np.ndarray]) -> ClientIndex:
    """Packs the samples of all clients into one table.

    Args:
      indices: positions of the samples of each client, as a partitioner gives them.

    Returns:
      The table and the counts.

    Example:
      >>> pack([np.array([5, 3, 4]), np.array([7]), np.array([], int)])
      ClientIndex(table=array([[5, 3, 4],
             [7, 7, 7],
             [0, 0, 0]], dtype=int32), counts=array([3, 1, 0], dtype=int32))
    """
    counts = np.array([len(row) for row in indices], np.int32)
    table = np.zeros((len(counts), max(counts, default=0) or 1), np.int32)
    for padded, row in zip(table, indices):
        padded[:] = row[0] if len(row) else 0
        padded[: len(row)] = row
    return ClientIndex(table, counts)


def start(
    labels: Any, clients: int, min_size: int, seed: int
) -> tuple[np.ndarray, np.random.Generator]:
    """Checks what every partitioner is given.

    Returns:
      The labels as an array, and the generator of this seed.

    Raises:
      ValueError: there is no client, or fewer than ``min_size`` samples a client.
    """
    labels = np.asarray(labels)
    if clients < 1:
        raise ValueError(f"clients must be at least 1; got {clients!r}")
    if len(labels) < clients * min_size:
        raise ValueError(
            f"{clients} clients with at least {min_size} samples each need {clients * min_size} "
            f"samples; there are {len(labels)}"
        )
    return labels, np.random.default_rng(seed)


def split_dirichlet(
    indices: np.ndarray, clients: int, alpha: float, rng: np.random.Generator
) -> Indices:
    """Cuts ``indices`` into shares that are Dirichlet(alpha) distributed over the clients."""
    shares = rng.dirichlet(np.full(clients, positive("alpha", alpha)))
    return np.split(indices, np.rint(np.cumsum(shares)[:-1] * len(indices)).astype(int))


def sizes_of(weights: np.ndarray, n: int, min_size: int) -> np.ndarray:
    """Rounds shares to whole samples.

    Args:
      weights: ``[clients]``, > 0; the shares are in proportion to them.
      n: samples, at least ``clients * min_size``.
      min_size: of each client; what it lacks is taken from the largest at that moment.

    Returns:
      int64 ``[clients]``, of sum ``n``.

    Example:
      >>> sizes_of(np.array([6.0, 3.0, 1.0]), 100, min_size=20)
      array([50, 30, 20])
    """
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * n).astype(np.int64)
    sizes = np.diff(ends, prepend=0)
    for poor in np.flatnonzero(sizes < min_size):
        while sizes[poor] < min_size:
            sizes[sizes.argmax()] -= 1
            sizes[poor] += 1
    return sizes


def fill_up(parts: Indices, min_size: int, rng: np.random.Generator) -> Indices:
    """Mixes the samples of each client, and gives the poor some of the client that has most."""
    parts = [rng.permutation(part) for part in parts]
    sizes = np.array([len(part) for part in parts])
    for poor in np.flatnonzero(sizes < min_size):
        while sizes[poor] < min_size:
            rich = sizes.argmax()
            parts[poor] = np.append(parts[poor], parts[rich][-1])
            parts[rich] = parts[rich][:-1]
            sizes[poor] += 1
            sizes[rich] -= 1
    return parts


def positive(name: str, value: float) -> float:
    """Returns ``value``, or raises a ValueError that names it unless it is > 0 and finite."""
    if not 0 < value < np.inf:
        raise ValueError(f"{name} must be positive and finite; got {value!r}")
    return value
