"""Clients that differ in how often they see each class."""

from typing import Any

import numpy as np

from eejax.data.parts import Indices, fill_up, positive, sizes_of, split_dirichlet, start


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
    labels, rng = start(labels, clients, min_size, seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for part, indices in zip(parts, split_dirichlet(members, clients, alpha, rng)):
            part.append(indices)
    return fill_up([np.concatenate(part) for part in parts], min_size, rng)


def inner_dirichlet(
    labels: Any,
    clients: int,
    seed: int,
    alpha: float = 0.3,
    size_sd: float = 0.0,
    min_size: int = 2,
) -> Indices:
    """Draws the mix of classes of each client, and its samples one by one without replacement.

    Client i has class shares q_i ~ Dirichlet(alpha) over the classes, and a size of its own. Again
    and again one of the clients that have room is drawn, then a class from its q_i, and a sample of
    it taken; classes that have run out are left out. When all that a client wants have run out, it
    takes from the rest in proportion (the published loop does not end then). `dirichlet` draws over
    the clients instead, which makes sizes uneven.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      alpha: concentration, > 0.
      size_sd: standard deviation of the logarithm of the sizes; with 0 they differ by at most one
        sample.
      min_size: samples that each client has at least.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: ``alpha`` is not positive, ``size_sd`` negative, or the samples do not suffice for
        ``min_size``.

    References:
      Acar, Zhao, Matas, Mattina, Whatmough and Saligrama, Federated Learning Based on Dynamic
      Regularization, 2021.

    Example:
      >>> labels = np.repeat([0, 1], 50)
      >>> indices = inner_dirichlet(labels, clients=4, seed=0, alpha=0.3)
      >>> [np.bincount(labels[row], minlength=2).tolist() for row in indices]
      [[17, 8], [2, 23], [6, 19], [25, 0]]
    """
    labels, rng = start(labels, clients, min_size, seed)
    positive("alpha", alpha)
    if not 0 <= size_sd < np.inf:
        raise ValueError(f"size_sd must be >= 0 and finite; got {size_sd!r}")
    sizes = sizes_of(rng.lognormal(0.0, size_sd, clients), len(labels), min_size)
    classes, codes = np.unique(labels, return_inverse=True)
    q = rng.dirichlet(np.full(len(classes), alpha), clients)
    drawn = _draw_classes(q, sizes, np.bincount(codes), rng)
    # The k-th draw of a class takes the k-th of its samples in random order.
    order = rng.permutation(len(labels))
    order = order[np.argsort(codes[order], kind="stable")]
    samples = np.empty_like(order)
    samples[np.argsort(drawn, kind="stable")] = order
    # Random again: the first draws of a client keep to its mix, and the last ones need not.
    return [rng.permutation(row) for row in np.split(samples, np.cumsum(sizes)[:-1])]


def _draw_classes(
    q: np.ndarray, sizes: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws a class for each place; places ``[n]`` are those of client 0, then of client 1, ...

    All classes are drawn at once with those that are left now, and the draws hold up to the moment
    when the first class runs out: as if drawn one by one, in at most as many rounds as classes.
    """
    n = sizes.sum()
    # Whose turn it is, is drawn evenly among the clients that have room: as events of equal rates.
    times = np.concatenate([np.cumsum(rng.exponential(size=size)) for size in sizes])
    when = np.argsort(np.argsort(times))
    drawn = np.empty(n, np.int64)
    waiting = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    now = 0
    while now < n:
        for i, places in enumerate(waiting):
            p = q[i] * (left > 0)
            p = p if p.sum() > 0 else left.astype(float)
            drawn[places] = rng.choice(len(left), len(places), p=p / p.sum())
        places = np.concatenate(waiting)
        places = places[np.argsort(when[places])]
        stops = [
            np.flatnonzero(drawn[places] == c)[left[c] - 1 : left[c]] for c in np.flatnonzero(left)
        ]
        stop = np.concatenate(stops).min() + 1
        left = left - np.bincount(drawn[places[:stop]], minlength=len(left))
        now += stop
        waiting = [row[when[row] >= now] for row in waiting]
    return drawn


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
    labels, rng = start(labels, clients, per_client, seed)
    order = rng.permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * per_client)
    dealt = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [rng.permutation(np.concatenate([pieces[i] for i in row])) for row in dealt]


def classes_per_client(labels: Any, clients: int, seed: int, per_client: int = 2) -> Indices:
    """Gives each client exactly ``per_client`` classes, and splits each class among its clients.

    Each client, one after the other, takes the classes that fewest clients have so far, ties drawn:
    so the numbers of clients of two classes differ by at most one. The samples of a class are
    split evenly. Unlike `shards`, sizes follow the classes and no client sees one class too many.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      per_client: classes of each client.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: ``per_client`` is not in 1..classes, too small for every class to have a client,
        or so large that a class has fewer samples than clients.

    References:
      Li, Diao, Chen and He, Federated Learning on Non-IID Data Silos: An Experimental Study, 2022
      ("#C = k").

    Example:
      >>> labels = np.repeat(np.arange(4), 6)
      >>> indices = classes_per_client(labels, clients=4, seed=0, per_client=2)
      >>> [np.bincount(labels[row], minlength=4).tolist() for row in indices]
      [[0, 0, 3, 3], [3, 3, 0, 0], [3, 0, 0, 3], [0, 3, 3, 0]]
    """
    labels, rng = start(labels, clients, 1, seed)
    names, counts = np.unique(labels, return_counts=True)
    if not 1 <= per_client <= len(names):
        raise ValueError(f"per_client must be in 1..{len(names)}, the classes; got {per_client!r}")
    if clients * per_client < len(names):
        raise ValueError(
            f"per_client must be at least {-(-len(names) // clients)} so that each of "
            f"{len(names)} classes has one of {clients} clients; got {per_client!r}"
        )
    holders: list[list[int]] = [[] for _ in names]
    for client in range(clients):
        held = [len(row) for row in holders]
        for c in np.lexsort((rng.random(len(names)), held))[:per_client]:
            holders[c].append(client)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for name, count, row in zip(names, counts, holders):
        if count < len(row):
            raise ValueError(
                f"per_client {per_client!r}: class {name} has {count} samples for {len(row)} "
                "clients; take fewer clients or classes"
            )
        members = rng.permutation(np.flatnonzero(labels == name))
        for client, piece in zip(row, np.array_split(members, len(row))):
            parts[client].append(piece)
    return [rng.permutation(np.concatenate(part)) for part in parts]
