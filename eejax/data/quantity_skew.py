"""How many samples each client has, while the labels are IID."""

from typing import Any

import numpy as np

from eejax.data.parts import Indices, fill_up, positive, sizes_of, split_dirichlet, start


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
    labels, rng = start(labels, clients, 1, seed)
    return np.array_split(rng.permutation(len(labels)), clients)


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
    labels, rng = start(labels, clients, min_size, seed)
    parts = split_dirichlet(rng.permutation(len(labels)), clients, alpha, rng)
    return fill_up(parts, min_size, rng)


def power_law(
    labels: Any, clients: int, seed: int, exponent: float = 1.0, min_size: int = 2
) -> Indices:
    """Gives the client of rank r a share in proportion to r^-exponent; labels are IID.

    Which client has which rank is drawn. Clients below ``min_size`` samples get some of the client
    that has most at that moment.

    Args:
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      exponent: > 0; 1 is Zipf's law.
      min_size: samples that each client has at least.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: ``exponent`` is not positive, or the samples do not suffice for ``min_size``.

    References:
      Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, Federated Optimization in Heterogeneous
      Networks, 2020: sizes of clients follow a power law.

    Example:
      >>> [len(indices) for indices in power_law(np.zeros(100), clients=4, seed=0)]
      [16, 24, 12, 48]
    """
    labels, rng = start(labels, clients, min_size, seed)
    ranks = np.arange(1.0, clients + 1)
    sizes = sizes_of(ranks ** -positive("exponent", exponent), len(labels), min_size)
    order = rng.permutation(len(labels))
    return np.split(order, np.cumsum(rng.permutation(sizes))[:-1])
