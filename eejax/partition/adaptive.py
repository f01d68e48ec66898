"""Planning again when bandwidth, load or the number of nodes changes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.graph import LayerGraph
from eejax.partition.min_cut import min_cut
from eejax.partition.objective import Objective
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, price
from eejax.tiers.topology import Topology
from eejax.tiers.traces import Trace, value_at

SLOWEST_BPS = 1.0
"""Bandwidth that stands for an outage in a plan, bits per second: finite, but never worth it."""


class Adaptation(NamedTuple):
    """A sequence of plans through changing conditions; costs are modelled, ``[times]`` each.

    Attributes:
      assignments: placement that is in force at each time, ``[times, layers]``.
      cost: what a sample costs under it then.
      best: what it would cost under the best placement of that very time.
      switches: whether the placement changed at this time, bool.
      total: sum of costs and of the costs of switching.
    """

    assignments: np.ndarray
    cost: np.ndarray
    best: np.ndarray
    switches: np.ndarray
    total: float


def conditions(
    topology: Topology,
    t: float,
    *,
    bandwidth: Mapping[str, Trace] | None = None,
    load: Mapping[str, Trace] | None = None,
) -> Topology:
    """Gives the topology as it is at a time.

    Args:
      topology: the system at rest.
      t: seconds.
      bandwidth: by the name of the tier below a link, its bits per second, both ways.
      load: by tier, the share of its devices that others use, below 1: it slows computing and
        memory alike.

    Returns:
      The same nodes with other numbers.

    Raises:
      ValueError: a tier is unknown or has no links, or a load is not below 1.

    Example:
      >>> from eejax.tiers import Trace, three_tier
      >>> drop = Trace([0, 10], [5e7, 1e6])
      >>> now = conditions(three_tier(), 12, bandwidth={"end": drop})
      >>> float(now.tiers[0].links.bandwidth_up_bps[0])
      1000000.0
    """
    tiers = list(topology.tiers)
    for name, trace in (bandwidth or {}).items():
        k = topology.tier_index(name)
        if tiers[k].links is None:
            raise ValueError(f"bandwidth: tier {name!r} is the top and has no links above it")
        bps = max(float(value_at(trace, t)), SLOWEST_BPS)
        links = dataclasses.replace(tiers[k].links, bandwidth_up_bps=bps, bandwidth_down_bps=bps)
        tiers[k] = dataclasses.replace(tiers[k], links=links)
    for name, trace in (load or {}).items():
        k = topology.tier_index(name)
        free = 1 - float(value_at(trace, t))
        if not free > 0:
            raise ValueError(f"load of {name!r} must be below 1, is {1 - free:g} at {t:g} s")
        devices = tiers[k].devices
        devices = dataclasses.replace(
            devices,
            flops_per_s=devices.flops_per_s * free,
            memory_bandwidth_bytes_per_s=devices.memory_bandwidth_bytes_per_s * free,
        )
        tiers[k] = dataclasses.replace(tiers[k], devices=devices)
    return dataclasses.replace(topology, tiers=tuple(tiers))


def adapt(
    graph: LayerGraph,
    topology_at: Callable[[float], Topology],
    times: Sequence[float],
    objective: Objective = "latency",
    *,
    hysteresis: float = 0.0,
    delay: int = 0,
    switch_cost: float = 0.0,
    solver: Callable[..., Plan] = min_cut,
    **keywords: Any,
) -> Adaptation:
    """Follows conditions, and changes the placement when another one is better by enough.

    At each time the planner sees the conditions of ``delay`` times ago. It switches when the best
    placement for them costs less than ``1 - hysteresis`` of the placement in force, so that noise
    does not make it go back and forth. An infinite hysteresis keeps the first placement for good.

    Args:
      graph: the model.
      topology_at: ``(seconds) -> Topology``, such as one made with `conditions`; the number of
        nodes may change, not the tiers.
      times: when samples come, ascending.
      objective: as for the solver.
      hysteresis: share of the cost that must be won, >= 0.
      delay: age of what the planner sees, in times.
      switch_cost: of a change, in units of the objective for one sample.
      solver: ``(graph, topology, objective, **keywords) -> Plan``.
      **keywords: as for `rates_of`.

    Returns:
      What happened.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import Trace, three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e8, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 980))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> drop = {"end": Trace([0, 10], [5e7, 1e4])}
      >>> run = adapt(graph, lambda t: conditions(three_tier(), t, bandwidth=drop), [0, 5, 10, 15])
      >>> run.assignments.tolist(), run.switches.tolist()
      ([[1, 1], [1, 1], [0, 0], [0, 0]], [False, False, True, False])
    """
    if not hysteresis >= 0:
        raise ValueError(f"hysteresis must be >= 0, got {hysteresis}")
    if delay < 0:
        raise ValueError(f"delay must be >= 0, got {delay}")
    if not len(times):
        raise ValueError("times must hold at least one time")
    topologies = [topology_at(t) for t in times]
    plans = [solver(graph, topology, objective, **keywords) for topology in topologies]

    def cost(assignment: Any, topology: Topology) -> float:
        return judge(price(graph, topology, assignment, **keywords), objective)

    now, chosen = plans[0].assignment, []
    for i in range(len(times)):
        seen = max(i - delay, 0)
        wanted = plans[seen].assignment
        if wanted != now:
            stay = cost(now, topologies[seen])
            if judge(plans[seen], objective) < (1 - hysteresis) * stay:
                now = wanted
        chosen.append(now)
    return _account(chosen, plans, topologies, cost, objective, switch_cost)


def foresee(
    graph: LayerGraph,
    topology_at: Callable[[float], Topology],
    times: Sequence[float],
    objective: Objective = "latency",
    *,
    switch_cost: float = 0.0,
    solver: Callable[..., Plan] = min_cut,
    **keywords: Any,
) -> Adaptation:
    """Chooses with knowledge of the future: what no planner can beat, to measure regret against.

    Dynamic programming over the placements that are the best at any of the times. Without a cost of
    switching that is the optimum over all placements; with one, over these.

    Args:
      graph: as for `adapt`.
      topology_at: as for `adapt`.
      times: as for `adapt`.
      objective: as for `adapt`.
      switch_cost: as for `adapt`.
      solver: as for `adapt`.
      **keywords: as for `adapt`.

    Returns:
      What would happen. The regret of another run is the difference of their ``total``.
    """
    topologies = [topology_at(t) for t in times]
    plans = [solver(graph, topology, objective, **keywords) for topology in topologies]
    options = list(dict.fromkeys(plan.assignment for plan in plans))

    def cost(assignment: Any, topology: Topology) -> float:
        return judge(price(graph, topology, assignment, **keywords), objective)

    costs = np.array([[cost(a, topology) for a in options] for topology in topologies])
    change = switch_cost * (1 - np.eye(len(options)))
    reached, back = costs[0], []
    for row in costs[1:]:
        ways = reached[:, None] + change
        back.append(ways.argmin(0))
        reached = ways.min(0) + row
    last = int(reached.argmin())
    path = [last]
    for step in back[::-1]:
        path.append(int(step[path[-1]]))
    chosen = [options[i] for i in path[::-1]]
    return _account(chosen, plans, topologies, cost, objective, switch_cost)


def _account(
    chosen: Sequence[tuple[int, ...]],
    plans: Sequence[Plan],
    topologies: Sequence[Topology],
    cost: Callable[..., float],
    objective: Objective,
    switch_cost: float,
) -> Adaptation:
    best = np.array([judge(plan, objective) for plan in plans])
    # A placement that is the best has been priced already.
    paid = [
        b if a == plan.assignment else cost(a, topology)
        for a, b, plan, topology in zip(chosen, best, plans, topologies)
    ]
    assignments = np.array(chosen)
    switches = np.r_[False, (assignments[1:] != assignments[:-1]).any(1)]
    total = float(np.sum(paid) + switch_cost * switches.sum())
    return Adaptation(assignments, np.array(paid), best, switches, total)
