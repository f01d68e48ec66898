"""Who talks to whom: mixing matrices over the seats of clients, fixed or new in each round."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eejax.cotrain.federated import Rows
from eejax.cotrain.replica.mixing import check_mixing

MixingRule = Callable[[jax.Array, int], jax.Array]
"""``(key, seats) -> W [seats, seats]``: the doubly stochastic matrix of one round, when traced."""


def seat(w: Any, rows: Rows) -> np.ndarray:
    """Turns a mixing matrix over client numbers into one over seats, for `dpsgd`.

    Args:
      w: doubly stochastic ``[clients, clients]``, such as ``ring(clients)``.
      rows: the clients; seats are numbered edge by edge. Empty ones talk to nobody.

    Returns:
      float64 ``[edges * ends, edges * ends]``.

    Raises:
      ValueError: the matrix is not doubly stochastic, or is not of as many nodes as there are
        clients.

    Example:
      >>> from eejax.data import pack
      >>> from eejax.tiers import three_tier
      >>> from eejax.cotrain.federated import rows_of
      >>> rows = rows_of(three_tier(3, 2), pack([[0], [1], [2]]))
      >>> seat(np.full((3, 3), 1 / 3), rows).round(2).tolist()[2:]
      [[0.33, 0.33, 0.33, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    w, ids = check_mixing(w), np.asarray(rows.ids).reshape(-1)
    if len(w) != (ids >= 0).sum():
        raise ValueError(f"w: {len(w)} nodes are not the {(ids >= 0).sum()} clients of the rows")
    seated = np.ix_(ids >= 0, ids >= 0)
    full = np.eye(len(ids))
    full[seated] = w[ids[ids >= 0]][:, ids[ids >= 0]]
    return full


def random_matching(graph: Any) -> MixingRule:
    """Makes the rule of pairwise gossip: every round, random pairs of neighbours take their mean.

    Edges are taken in random order, each whose two ends are still free, until none is left: a
    maximal matching, in which nobody talks to more than one other.

    Args:
      graph: symmetric ``[seats, seats]``, non-zero where two may talk, such as a mixing matrix made
        by `seat`; the diagonal is ignored.

    Returns:
      The rule. It raises ValueError for another number of seats.

    Raises:
      ValueError: the graph is not square and symmetric, or has no edge.

    References:
      Boyd, Ghosh, Prabhakar and Shah, Randomized Gossip Algorithms, 2006, where one pair talks at a
      time.

    Example:
      >>> random_matching(np.ones((4, 4)))(jax.random.key(0), 4).tolist()
      [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]
    """
    a = np.asarray(graph) != 0
    if a.ndim != 2 or a.shape[0] != a.shape[1] or (a != a.T).any():
        raise ValueError(f"graph must be square and symmetric, got {np.asarray(graph)!r}")
    edges = np.argwhere(np.triu(a, 1)).astype(np.int32)
    if not len(edges):
        raise ValueError("graph has no edge")

    def rule(key, seats):
        if seats != len(a):
            raise ValueError(f"graph: {len(a)} nodes do not sit on the {seats} seats of the rows")

        def take(partner, edge):
            i, j = edge
            free = (partner[i] == i) & (partner[j] == j)
            partner = partner.at[i].set(jnp.where(free, j, partner[i]))
            return partner.at[j].set(jnp.where(free, i, partner[j])), None

        alone = jnp.arange(seats, dtype=jnp.int32)
        partner, _ = jax.lax.scan(take, alone, jax.random.permutation(key, edges))
        return (jnp.eye(seats) + jnp.eye(seats)[partner]) / 2

    return rule


def mean_spectral_gap(rule: MixingRule, seats: int, key: jax.Array, rounds: int = 1000) -> float:
    """Tells how fast a random rule alone brings clients together: ``1 - lambda_2(mean W^T W)``.

    After a round the expected squared distance from the mean is at most ``lambda_2`` of what it
    was; for a fixed matrix that is ``(1 - spectral_gap)^2``. Estimated over drawn rounds.

    Args:
      rule: the rule.
      seats: of the clients.
      key: of the draws.
      rounds: how many are drawn.

    Returns:
      1 when a round makes all equal, 0 when the graphs together are not connected.

    Example:
      >>> pairs = random_matching(np.ones((2, 2)))
      >>> round(mean_spectral_gap(pairs, 2, jax.random.key(0), rounds=10), 6)
      1.0
    """
    drawn = np.asarray(jax.vmap(lambda k: rule(k, seats))(jax.random.split(key, rounds)), float)
    mean = np.einsum("rki,rkj->ij", drawn, drawn) / rounds
    return float(1 - np.sort(np.linalg.eigvalsh(mean))[-2])
