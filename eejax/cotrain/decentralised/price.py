"""What a round of gossip sends: a model along each edge of the graph, in both directions."""

from typing import Any

import numpy as np

from eejax import trees
from eejax.cotrain.federated import Rows
from eejax.cotrain.replica.mixing import check_mixing
from eejax.tiers import Ledger, record

PyTree = Any


def graph_bytes(w: Any, params: PyTree) -> np.ndarray:
    """Counts the bytes of one round of `dpsgd` for each edge of the graph.

    Args:
      w: mixing matrix ``[nodes, nodes]``; of a rule, that of one round or any with the same edges.
      params: the model, arrays or abstract arrays.

    Returns:
      int64 ``[nodes, nodes]``: entry i, j is what i receives from j.

    Raises:
      ValueError: the matrix is not doubly stochastic.

    Example:
      >>> from eejax.cotrain.replica import ring
      >>> graph_bytes(ring(4), {"w": np.zeros(10, np.float32)})[0].tolist()
      [0, 40, 0, 40]
    """
    talks = check_mixing(w) > 0
    np.fill_diagonal(talks, False)
    return talks.astype(np.int64) * trees.nbytes(params)


def price_mixing(w: Any, params: PyTree, rows: Rows) -> Ledger:
    """Books the models of one round by whether they stay under one edge server.

    Neighbours of one edge server talk over its local network, and others over the wide area: their
    models go up to the edge server, on to the other one, and down.

    Args:
      w: mixing matrix over seats, see `seat`.
      params: the model, arrays or abstract arrays.
      rows: where the clients sit.

    Returns:
      Messages from ``"end"`` to ``"end"`` below one edge server; and from ``"end"`` to ``"edge"``,
      from ``"edge"`` to ``"edge"`` and from ``"edge"`` to ``"end"`` for the others.

    Example:
      >>> from eejax.data import pack
      >>> from eejax.tiers import three_tier
      >>> from eejax.cotrain.federated import rows_of
      >>> from eejax.cotrain.replica import ring
      >>> rows = rows_of(three_tier(4, 2), pack([[0], [1], [2], [3]]))
      >>> ledger = price_mixing(ring(4), {"w": np.zeros(10, np.float32)}, rows)
      >>> [(t.source, t.target, t.count, t.nbytes) for t in ledger]
      [('end', 'end', 4, 40), ('end', 'edge', 4, 40), ('edge', 'edge', 4, 40),
       ('edge', 'end', 4, 40)]
    """
    edges, ends = rows.counts.shape
    sent = graph_bytes(w, params) > 0
    same = np.kron(np.eye(edges, dtype=bool), np.ones((ends, ends), bool))
    near, far = int((sent & same).sum()), int((sent & ~same).sum())
    nbytes, ledger = trees.nbytes(params), ()
    for source, target, count in (
        ("end", "end", near), ("end", "edge", far), ("edge", "edge", far), ("edge", "end", far)
    ):  # fmt: skip
        ledger = record(ledger, source, target, "information", "model", nbytes, count)
    return ledger
