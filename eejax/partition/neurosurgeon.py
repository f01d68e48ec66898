"""Neurosurgeon: the best of all cuts of a chain between a device and a server."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eejax.partition.costs import Costs
from eejax.partition.graph import LayerGraph
from eejax.partition.plan import Plan
from eejax.partition.two_tiers import check_chain, pair
from eejax.tiers.topology import Topology

GOALS = ("latency", "end_energy")
"""What Neurosurgeon minimises: time, or the energy of the mobile device."""


def neurosurgeon(
    graph: LayerGraph,
    topology: Topology,
    objective: str = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> Plan:
    """Tries every cut of a chain: the first layers run below, the others above.

    Args:
      graph: a chain of ``n`` layers.
      topology: the system.
      objective: one of `GOALS`.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way``.

    Returns:
      The best of the ``n + 1`` plans, not feasible where its parameters do not fit; of equal plans
      the one that keeps more layers below.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), the objective is
        another one, data would go down, or every cut is forbidden.

    References:
      Kang et al., Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge, 2017.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e10, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 300_000), Tensor("features", 0, (1,), 98))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> neurosurgeon(graph, three_tier()).name
      'end:conv | cloud:dense'
      >>> neurosurgeon(graph, three_tier(), tiers=("end", "edge")).name
      'end:conv | edge:dense'
    """
    if objective not in GOALS:
        raise ValueError(f"neurosurgeon minimises {' or '.join(GOALS)}, got {objective!r}")
    if keywords.get("two_way"):
        raise ValueError("neurosurgeon sends data up only: leave two_way out, or use jointdnn")
    choice = pair(graph, topology, objective, tiers, keywords)
    check_chain(graph, "neurosurgeon")
    cost = cut_costs(choice.costs)
    if not np.isfinite(cost).any():
        raise ValueError("every cut is forbidden")
    layers = len(graph.layers)
    cut = layers - int(cost[::-1].argmin())
    return choice.price(np.arange(layers) >= cut)


def cut_costs(costs: Costs) -> np.ndarray:
    """Adds up what each cut of a chain costs.

    Args:
      costs: a table of two tiers, of a chain.

    Returns:
      Cost with the first ``i`` layers below, ``[layers + 1]``.
    """
    layers = len(costs.layer)
    head = np.append(0, costs.layer[:, 0].cumsum())
    tail = np.append(costs.layer[::-1, 1].cumsum()[::-1], 0)
    sent = np.bincount(costs.producer + 1, costs.up[:, 0], layers + 1)
    wake = (costs.setup[:, 0] * (costs.setup_stop > np.arange(layers + 1)[:, None])).sum(1)
    return head + tail + sent + wake
