"""Where the nodes of a graph are drawn."""

from collections.abc import Sequence

import numpy as np

COLUMNS = 28
"""Most nodes in a line; a longer graph is folded, as text is."""


def place_nodes(
    count: int, edges: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places nodes so that edges go to the right, line by line.

    Args:
      count: number of nodes.
      edges: pairs of ascending indices.

    Returns:
      Column and height of each node, and the line in which it is, each ``[nodes]``.

    Example:
      >>> x, y, line = place_nodes(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
      >>> x.tolist(), y.tolist()
      ([0, 1, 1, 2], [0.0, 0.5, -0.5, 0.0])
    """
    column, above = np.zeros(count, int), [[] for _ in range(count)]
    for a, b in edges:
        above[b].append(a)
    for b in range(count):  # Ends ascend, so each column is known before it is read.
        column[b] = max((column[a] + 1 for a in above[b]), default=0)
    row = np.zeros(count)
    for c in range(column.max(initial=0) + 1):
        here = np.flatnonzero(column == c)
        # In the order of where they come from, so that few edges cross.
        wish = [np.mean([row[a] for a in above[b]]) if above[b] else 0.0 for b in here]
        row[here[np.argsort(wish, kind="stable")]] = np.arange(len(here)) - (len(here) - 1) / 2
    line = column // COLUMNS
    return column % COLUMNS, 0.0 - row - line * (np.ptp(row) + 2), line
