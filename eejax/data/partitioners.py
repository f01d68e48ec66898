"""How samples are spread over clients.

A partitioner is ``(labels, clients, seed, ...) -> indices``: for each client the positions of its
samples, int64, in random order. Every sample belongs to exactly one client.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest

Indices = list[np.ndarray]
Partitioner = Callable[[Any, int, int], Indices]
"""``(labels [n], clients, seed) -> indices``."""

_FORMS = ("iid", "dirichlet:ALPHA", "shards:PER_CLIENT", "quantity:ALPHA")


class ClientIndex(NamedTuple):
    """The samples of all clients as two arrays that a compiled program can index.

    Attributes:
      table: int32 ``[clients, n_max]``, positions in the data set; the first ``counts[i]`` of row
        ``i`` are real, and the rest repeats the first (zeros for a client without samples).
      counts: int32 ``[clients]``.
    """

    table: np.ndarray
    counts: np.ndarray


def iid(labels: Any, clients: int, seed: int) -> Indices:
    """Deals shuffled samples; sizes differ by at most one.

    Args:
      labels: ``[n]``.
      clients: how many, at most ``n``.
      seed: of `numpy.random.default_rng`.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: there are fewer samples than clients, or no client.

    Example:
      >>> [len(indices) for indices in iid(np.zeros(10), clients=4, seed=0)]
      [3, 3, 2, 2]
    """
    labels, rng = _start(labels, clients, 1, seed)
    return np.array_split(rng.permutation(len(labels)), clients)


def dirichlet(
    labels: Any, clients: int, seed: int, alpha: float = 0.5, min_size: int = 2
) -> Indices:
    """Draws for each class how it is shared among the clients: label and quantity skew.

    The shares of a class are Dirichlet(alpha) distributed over the clients: near IID for large
    ``alpha``, few classes a client for small. Hsu et al. draw the mix of classes of each client
    and give all the same number of samples, some of them twice or never; this variant of Yurochkin
    et al. uses every sample once. Clients left with fewer than ``min_size`` samples get random
    ones of the client that has most at that moment.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      alpha: concentration, > 0.
      min_size: samples that each client has at least.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: ``alpha`` is not positive, or the samples do not suffice for ``min_size``.

    References:
      Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated
      Visual Classification, 2019. Yurochkin et al., Bayesian Nonparametric Federated Learning of
      Neural Networks, 2019.

    Example:
      >>> labels = np.repeat([0, 1], 50)
      >>> indices = dirichlet(labels, clients=3, seed=0, alpha=0.1)
      >>> [np.bincount(labels[row], minlength=2).tolist() for row in indices]
      [[19, 45], [30, 4], [1, 1]]
    """
    labels, rng = _start(labels, clients, min_size, seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for part, indices in zip(parts, _split(members, clients, alpha, rng)):
            part.append(indices)
    return _fill_up([np.concatenate(part) for part in parts], min_size, rng)


def shards(labels: Any, clients: int, seed: int, per_client: int = 2) -> Indices:
    """Sorts by label, cuts into equal shards and deals them: pathological label skew.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      per_client: shards of each client; about the number of classes it sees, at most.

    Returns:
      Positions of the samples of each client; shards differ in size by at most one.

    Raises:
      ValueError: ``per_client`` is below 1, or there are fewer samples than shards.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017.

    Example:
      >>> labels = np.repeat(np.arange(10), 10)
      >>> [sorted(set(labels[i].tolist())) for i in shards(labels, 5, seed=0)]
      [[1, 2], [5, 6], [4, 8], [0, 3], [7, 9]]
    """
    if per_client < 1:
        raise ValueError(f"per_client must be at least 1; got {per_client!r}")
    labels, rng = _start(labels, clients, per_client, seed)
    order = rng.permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * per_client)
    dealt = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [rng.permutation(np.concatenate([pieces[i] for i in row])) for row in dealt]


def quantity_skew(
    labels: Any, clients: int, seed: int, alpha: float = 0.5, min_size: int = 2
) -> Indices:
    """Draws how many samples each client has; labels are IID.

    The shares of the data set are Dirichlet(alpha) distributed over the clients. Clients left with
    fewer than ``min_size`` samples get some of the client that has most at that moment.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      alpha: concentration, > 0; sizes are nearly equal for large ``alpha``.
      min_size: samples that each client has at least.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: ``alpha`` is not positive, or the samples do not suffice for ``min_size``.

    References:
      Li, Diao, Chen and He, Federated Learning on Non-IID Data Silos: An Experimental Study, 2022.

    Example:
      >>> [len(indices) for indices in quantity_skew(np.zeros(100), clients=4, seed=0)]
      [2, 41, 54, 3]
    """
    labels, rng = _start(labels, clients, min_size, seed)
    parts = _split(rng.permutation(len(labels)), clients, alpha, rng)
    return _fill_up(parts, min_size, rng)


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


def from_name(text: str) -> Partitioner:
    """Makes the partitioner that a config names.

    Args:
      text: ``iid``, ``dirichlet:ALPHA``, ``shards:PER_CLIENT`` or ``quantity:ALPHA``.

    Returns:
      ``(labels, clients, seed) -> indices``.

    Raises:
      ValueError: the name is unknown (tells the nearest one), or its argument is missing, needless,
        no number or out of range.

    Example:
      >>> partition = from_name("shards:2")
      >>> len(partition(np.arange(100) % 10, clients=5, seed=0))
      5
    """
    name, colon, argument = text.partition(":")
    try:
        match name, argument if colon else None:
            case "iid", None:
                return iid
            case "dirichlet", str(alpha):
                return functools.partial(dirichlet, alpha=_positive(float(alpha)))
            case "shards", str(per_client):
                return functools.partial(shards, per_client=_positive(int(per_client)))
            case "quantity", str(alpha):
                return functools.partial(quantity_skew, alpha=_positive(float(alpha)))
    except ValueError as error:
        raise ValueError(f"partitioner {text!r}: {error}") from error
    forms = ", ".join(_FORMS)
    raise ValueError(f"partitioner {text!r} is none of {forms}{suggest(name, _FORMS)}")


def _positive(value: float) -> float:
    if not 0 < value < np.inf:
        raise ValueError(f"its argument must be positive; got {value!r}")
    return value


def _start(
    labels: Any, clients: int, min_size: int, seed: int
) -> tuple[np.ndarray, np.random.Generator]:
    labels = np.asarray(labels)
    if clients < 1:
        raise ValueError(f"clients must be at least 1; got {clients!r}")
    if len(labels) < clients * min_size:
        raise ValueError(
            f"{clients} clients with at least {min_size} samples each need {clients * min_size} "
            f"samples; there are {len(labels)}"
        )
    return labels, np.random.default_rng(seed)


def _split(indices: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> Indices:
    if not alpha > 0:
        raise ValueError(f"alpha must be positive; got {alpha!r}")
    shares = rng.dirichlet(np.full(clients, alpha))
    return np.split(indices, np.rint(np.cumsum(shares)[:-1] * len(indices)).astype(int))


def _fill_up(parts: Indices, min_size: int, rng: np.random.Generator) -> Indices:
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
