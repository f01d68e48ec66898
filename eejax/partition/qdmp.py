"""QDMP: DADS made quicker, by a search of the blocks between cut vertices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eejax.partition.costs import Costs
from eejax.partition.dads import cut as min_cut
from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan
from eejax.partition.two_tiers import FORBIDDEN, check_up_only, pair
from eejax.tiers.topology import Topology


def qdmp(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> Plan:
    """Places a graph on two tiers as `dads` does, with less work.

    All paths go through a cut vertex, so the best placement is between two neighbours of them: all
    before the first one below, all from the second one on above. The first stage finds the cut
    vertices and prices the cuts at them; the second one cuts the inside of those blocks that may
    be better. The first vertex of a block is pinned, as the input is by the paper's ``tau``.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way`` and ``setup_s``.

    Returns:
      The best plan, not feasible where its parameters do not fit.

    Raises:
      ValueError: an argument is wrong, or every placement is forbidden.

    References:
      Zhang et al., Towards Real-time Cooperative Deep Inference over the Cloud and Edge End
      Devices, 2020.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e8, 1e5, 400), Layer("dense", 1e10, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 300_000), Tensor("features", 0, (1,), 9800))
      >>> qdmp(LayerGraph(layers, tensors, "layer"), three_tier()).name
      'end:conv | cloud:dense'
    """
    choice = pair(graph, topology, objective, tiers, keywords)
    check_up_only(choice.rates, "qdmp")
    return choice.price(cut(choice.costs)[0])


def cut_vertices(costs: Costs) -> np.ndarray:
    """Finds the layers through which every path from the input to an answer goes.

    Args:
      costs: gives who reads what.

    Returns:
      Their indices, ascending.
    """
    layers = len(costs.layer)
    # Furthest reader of the input and of each layer; an answer is read behind the last layer.
    far = np.full(layers + 1, -1)
    np.maximum.at(far, costs.producer[costs.message] + 1, costs.consumer)
    far[far < 0] = layers
    return np.flatnonzero(np.maximum.accumulate(far[:-1]) <= np.arange(layers))


def cut(costs: Costs) -> tuple[np.ndarray, float]:
    """Finds the cheapest placement of a table of two tiers in which data go up only.

    Args:
      costs: a table of two tiers, without set-up.

    Returns:
      0 (lower) or 1 (higher) for each layer, and what it costs.

    Raises:
      ValueError: every placement is forbidden.
    """
    layers = len(costs.layer)
    # Sums below and above: of the first i layers, and of all others.
    low = np.append(0, costs.layer[:, 0].cumsum())
    high = np.append(costs.layer[::-1, 1].cumsum()[::-1], 0)
    least = np.append(0, np.minimum(costs.layer[:, 0], costs.layer[:, 1]).cumsum())
    if not np.isfinite(least[-1]):
        raise ValueError(FORBIDDEN)
    sent = np.bincount(costs.producer + 1, costs.up[:, 0], layers + 1)
    # Number of layers below in the cuts right behind the input, each cut vertex, and the end.
    stops = np.unique(np.concatenate([[0], cut_vertices(costs) + 1, [layers]]))
    at = low[stops] + high[stops] + sent[stops]
    split = int(stops[at.argmin()])
    best, x = at.min(), (np.arange(layers) >= split).astype(int)

    first, last = stops[:-1], stops[1:]
    is_open = ~np.isin(last - 1, cut_vertices(costs))  # Ends in answers, not in a cut vertex.
    stop = np.where(is_open, last, last - 1)
    # The block holds the layers from first to stop; what is cut off behind it runs above.
    bound = low[first] + high[stop] + least[stop] - least[first]
    for block in np.argsort(bound, kind="stable"):
        if not bound[block] < best:
            break
        a, b, end = first[block], stop[block], last[block]
        if a == b:
            continue
        inner, value = min_cut(_block(costs, a, b, end))
        value += low[a] + high[end]
        if value < best:
            best, x = value, (np.arange(layers) >= a).astype(int)
            x[a:end] = inner
    if not np.isfinite(best):
        raise ValueError(FORBIDDEN)
    return x, float(best)


def _block(costs: Costs, a: int, b: int, end: int) -> Costs:
    """Takes layers ``a`` to ``end``; layer ``a - 1`` is their input, those from ``b`` run above."""
    layer = costs.layer[a:end].copy()
    layer[b - a :, 0] = np.inf
    inside = (costs.producer >= a - 1) & (costs.producer < b)
    number = np.cumsum(inside) - 1
    reads = inside[costs.message]
    return costs._replace(
        layer=layer,
        producer=costs.producer[inside] - a,
        message=number[costs.message[reads]],
        consumer=costs.consumer[reads] - a,
        up=costs.up[inside],
        down=costs.down[inside],
    )
