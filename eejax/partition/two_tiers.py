"""Two tiers and chains: the limits within which most published partitioners work."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.costs import Costs, tabulate
from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import Rates, rates_of
from eejax.tiers.topology import Topology

FORBIDDEN = "every placement is forbidden: no tier is left to some layers"


class Pair(NamedTuple):
    """The choice between two tiers of a topology.

    Attributes:
      rates: of the whole topology.
      costs: a table of two tiers; `costs.total` of a placement on them is what all tiers cost.
      low: index of the lower tier.
      high: index of the higher tier.
      price: ``[layers]`` of 0 (lower) and 1 (higher) to the priced plan.
    """

    rates: Rates
    costs: Costs
    low: int
    high: int
    price: Callable[[Any], Plan]


def pair(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective,
    tiers: Sequence[str | int] | None,
    keywords: Mapping[str, Any],
) -> Pair:
    """Prepares a choice between two tiers.

    Args:
      graph: the model.
      topology: the system, of two or more tiers.
      objective: one of `costs.LINEAR`, or weights of several.
      tiers: the lower and the higher tier; the lowest and the highest if None. Tiers between them
        only pass data on.
      keywords: as for `rates_of`.

    Returns:
      The pair.

    Raises:
      ValueError: there are no such two tiers, or an argument is wrong as for `rates_of`.
    """
    low, high = tier_pair(topology, tiers)
    rates = rates_of(graph, topology, **keywords)
    costs = tabulate(rates, objective)
    run = pricer(rates, costs.choice)
    return Pair(
        rates,
        between(costs, low, high),
        low,
        high,
        lambda x: run(np.where(np.asarray(x, bool), high, low)),
    )


def tier_pair(topology: Topology, tiers: Sequence[str | int] | None) -> tuple[int, int]:
    """Finds two tiers, the lower one first.

    Args:
      topology: the system.
      tiers: two names or indices; the lowest and the highest tier if None.

    Returns:
      Their indices.

    Raises:
      ValueError: there are not two, or they are not in order.
    """
    names = topology.names
    if len(names) < 2:
        raise ValueError(f"the topology must have two tiers or more, got only {names[0]!r}")
    if tiers is None:
        return 0, len(names) - 1
    if isinstance(tiers, str) or len(tiers) != 2:
        raise ValueError(f"tiers must be two of {', '.join(names)}, got {tiers!r}")
    low, high = map(topology.tier_index, tiers)
    if low >= high:
        raise ValueError(f"tiers must name the lower one first, got {tiers!r}")
    return low, high


def between(costs: Costs, low: int, high: int) -> Costs:
    """Narrows a table of costs to two of its tiers.

    Args:
      costs: from `tabulate`.
      low: index of the lower tier.
      high: index of the higher tier.

    Returns:
      A table of two tiers, of the messages that are read. What every placement on them pays, such
      as the input on its way to the lower one, is in the first layer.

    Example:
      >>> from eejax.partition import Layer, Tensor, total
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e9, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 98))
      >>> costs = tabulate(rates_of(LayerGraph(layers, tensors, "layer"), three_tier()))
      >>> abs(total(between(costs, 1, 2), [0, 1]) - total(costs, [1, 2])) < 1e-12
      True
    """
    hops = slice(low, high)
    read, message = np.unique(costs.message, return_inverse=True)
    producer, up = costs.producer[read], costs.up[read]
    layer = costs.layer[:, [low, high]].copy()
    layer[0] += up[producer < 0, :low].sum() + costs.setup[:, :low].sum()
    return costs._replace(
        layer=layer,
        producer=producer,
        message=message,
        up=up[:, hops].sum(1, keepdims=True),
        down=costs.down[read, hops].sum(1, keepdims=True),
        setup=costs.setup[:, hops].sum(1, keepdims=True),
    )


def check_chain(graph: LayerGraph, solver: str) -> None:
    """Refuses what is no chain.

    Args:
      graph: a checked graph.
      solver: who refuses.

    Raises:
      ValueError: a tensor is read by another layer than the next one; names the first.
    """
    for tensor in graph.tensors:
        if set(tensor.consumers) - {tensor.producer + 1}:
            readers = ", ".join(graph.layers[i].name for i in tensor.consumers)
            made = "the input" if tensor.producer < 0 else graph.layers[tensor.producer].name
            raise ValueError(
                f"{solver} cuts chains only, and tensor {tensor.name!r} of {made} is read by "
                f"{readers}, not by the next layer alone; use min_cut"
            )


def check_up_only(rates: Rates, solver: str) -> None:
    """Refuses data that go down, and set-up costs: a graph of layers alone has no place for them.

    Args:
      rates: from `rates_of`.
      solver: who refuses.

    Raises:
      ValueError: there are such.
    """
    if rates.down_s:
        raise ValueError(f"{solver} sends data up only: leave two_way out, or use min_cut")
    if rates.setup_s.any():
        raise ValueError(f"{solver} knows no set-up costs: leave setup_s out, or use min_cut")
