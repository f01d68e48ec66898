"""Exhaustive search: prices every placement there is, so it is exact, for models of few layers."""

from collections.abc import Sequence
from typing import Any

from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import Rates, rates_of
from eejax.tiers.topology import Topology

MAX_PLANS = 100_000
"""Most placements that `exhaustive` prices: half a minute or so on one core."""

MAX_ROWS = 10_000_000
"""Most placements times end devices that `exhaustive` keeps: about 1 GB for three tiers."""


def exhaustive(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    most: int = MAX_PLANS,
    **keywords: Any,
) -> list[Plan]:
    """Prices every placement, or when data go up only every one in which they do.

    A chain of ``n`` layers on ``k`` tiers has ``binomial(n + k - 1, k - 1)`` of them; a graph with
    branches has more.

    Args:
      graph: a model, of a few dozen layers at most if a chain.
      topology: the system.
      objective: what to sort by, one of `OBJECTIVES` or weights of several.
      most: placements to price before giving up.
      **keywords: as for `rates_of`; ``codecs`` are taken as for `price`, the fastest.

    Returns:
      All plans, the best first, those that fit no memory last. One for each tier runs everything
      there: ``"all-end"``, ``"all-edge"``, ``"all-cloud"`` for tiers of these names. Of equal plans
      the one that keeps early layers lower comes first.

    Raises:
      ValueError: there are too many placements, or an argument is wrong as for `price`.

    Example:
      >>> from eejax.partition import Layer, Tensor, best
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e9, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 98))
      >>> plans = exhaustive(LayerGraph(layers, tensors, "layer"), three_tier(), "latency")
      >>> [plan.name for plan in plans[:3]], best(plans) is plans[0]
      (['end:conv | edge:dense', 'all-edge', 'end:conv | cloud:dense'], True)
    """
    rates = rates_of(graph, topology, **keywords)
    run = pricer(rates)
    assignments = _placements(rates, most)
    ends = topology.tiers[0].nodes
    if len(assignments) * ends > MAX_ROWS:
        raise ValueError(
            f"{len(assignments)} placements for {ends} end devices are more than {MAX_ROWS} rows; "
            "search with fewer end devices, then price the best plan for all"
        )
    rows = [(not plan.feasible, judge(plan, objective), plan) for plan in map(run, assignments)]
    return [plan for *_, plan in sorted(rows, key=lambda row: row[:2])]


def best(plans: Sequence[Plan]) -> Plan:
    """Takes the first plan that is feasible.

    Args:
      plans: in order of preference, such as those of `exhaustive`.

    Returns:
      The plan.

    Raises:
      ValueError: no plan is feasible; tells why the first one is not.
    """
    for plan in plans:
        if plan.feasible:
            return plan
    why = f"; {plans[0].name}: {plans[0].why}" if plans else ""
    raise ValueError(f"none of {len(plans)} plans is feasible{why}")


def _placements(rates: Rates, most: int) -> list[tuple[int, ...]]:
    graph, tiers = rates.graph, len(rates.topology.tiers)
    above: list[list[int]] = [[] for _ in graph.layers]
    for tensor in graph.tensors if not rates.down_s else ():
        for i in tensor.consumers if tensor.producer >= 0 else ():
            above[i].append(tensor.producer)
    partial = [()]
    for i in range(len(graph.layers)):
        # Each has a completion, as all layers that follow may go to the top.
        partial = [
            (*head, tier)
            for head in partial
            for tier in range(max((head[j] for j in above[i]), default=0), tiers)
        ]
        if len(partial) > most:
            raise ValueError(
                f"{len(graph.layers)} layers on {tiers} tiers have more than {most} "
                "placements; group them into fewer layers"
            )
    return partial
