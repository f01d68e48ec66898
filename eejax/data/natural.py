"""Clients that are groups in the data itself: subjects, writers, newsgroups."""

from typing import Any

import numpy as np

from eejax.data.parts import Indices


def natural(groups: Any, clients: int | None = None, seed: int = 0) -> Indices:
    """Makes each natural group one client, or deals whole groups to fewer clients.

    Args:
      groups: ``[n]``, the group of each sample, of any type that can be sorted.
      clients: at most the number of groups; None for one client a group, in sorted order.
      seed: of `numpy.random.default_rng`; draws which groups go together, and the order within.

    Returns:
      Positions of the samples of each client. No group is split, and the numbers of groups of two
      clients differ by at most one.

    Raises:
      ValueError: there is no client, or there are more clients than groups.

    Example:
      >>> subjects = np.array([7, 7, 3, 9, 3, 7])
      >>> [sorted(row.tolist()) for row in natural(subjects)]
      [[2, 4], [0, 1, 5], [3]]
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if clients is not None and not 1 <= clients <= len(names):
        raise ValueError(f"clients must be in 1..{len(names)}, the groups; got {clients!r}")
    rng = np.random.default_rng(seed)
    order = np.arange(len(names)) if clients in (None, len(names)) else rng.permutation(len(names))
    dealt = np.array_split(order, len(names) if clients is None else clients)
    return [rng.permutation(np.flatnonzero(np.isin(codes, row))) for row in dealt]
