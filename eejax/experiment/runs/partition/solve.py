"""All solvers on one model, timed, with the baselines beside them."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from eejax import partition
from eejax.experiment.runs.partition.config import Partition
from eejax.experiment.runs.partition.source import Source
from eejax.partition import LayerGraph, Plan
from eejax.tiers import Topology, Trace


def _best_pair(solver: Callable[..., Plan]) -> Callable[..., Plan]:
    """Lets a method for two tiers choose the tier above the lowest with which it does best."""

    def run(graph: LayerGraph, topology: Topology, objective: str, **keywords: Any) -> Plan:
        low, *above = topology.names
        plans = [
            solver(graph, topology, objective, tiers=(low, high), **keywords) for high in above
        ]
        return min(plans, key=lambda p: (not p.feasible, partition.objective(p, objective)))

    return run


def _exhaustive(graph: LayerGraph, topology: Topology, objective: str, **keywords: Any) -> Plan:
    return partition.best(partition.exhaustive(graph, topology, objective, **keywords))


SOLVERS: Mapping[str, Callable[..., Plan]] = MappingProxyType(
    {
        "exact": partition.exact,
        "min_cut": partition.min_cut,
        "milp": partition.milp,
        "exhaustive": _exhaustive,
        "neurosurgeon": _best_pair(partition.neurosurgeon),
        "jointdnn": _best_pair(partition.jointdnn),
        "dads": _best_pair(partition.dads),
        "qdmp": _best_pair(partition.qdmp),
        "pipedream": partition.pipedream,
    }
)
"""Solvers that need nothing but a graph, a topology and an objective, by name. Those for two tiers
get the best pair that holds the lowest tier."""


FOR_TWO = ("neurosurgeon", "jointdnn", "dads", "qdmp")
"""Those for two tiers."""


class Solved(NamedTuple):
    """What a solver found.

    Attributes:
      solver: its name.
      plan: its plan, or None.
      seconds: what it took, measured here.
      why: why there is no plan.
    """

    solver: str
    plan: Plan | None
    seconds: float
    why: str


class Swept(NamedTuple):
    """Plans over bandwidths.

    Attributes:
      bps: bits per second of the lowest links, ``[points]``.
      plans: the plan at each.
      fixed: the baselines at each.
      changes: from `switches`.
    """

    bps: np.ndarray
    plans: list[Plan]
    fixed: list[list[Plan]]
    changes: list[tuple[float, str, str]]


def solve(source: Source, topology: Topology, objective: str, solver: str) -> list[Solved]:
    """Runs one or all solvers.

    Args:
      source: the model.
      topology: the system.
      objective: one of `partition.OBJECTIVES`.
      solver: one of `SOLVERS`, or ``"all"``.

    Returns:
      What they found, the best plans first, then those that cannot do it and say why.

    Raises:
      ValueError: the only solver asked for cannot do it.
    """
    keywords = {} if source.layer_seconds is None else {"layer_seconds": source.layer_seconds}
    found = []
    for name in SOLVERS if solver == "all" else (solver,):
        began = time.perf_counter()
        plan, why = None, ""
        try:
            # Among all, a search of half a minute is not what anybody waits for.
            few = {"most": 2000} if name == "exhaustive" and solver == "all" else {}
            plan = SOLVERS[name](source.graph, topology, objective, **keywords, **few)
        except ValueError as error:
            if solver != "all":
                raise
            why = str(error)
        found.append(Solved(name, plan, time.perf_counter() - began, why))

    def rank(row: Solved) -> tuple:
        if row.plan is None:
            return 2, 0.0
        return int(not row.plan.feasible), partition.objective(row.plan, objective)

    return sorted(found, key=rank)


def baselines(source: Source, topology: Topology) -> list[Plan]:
    """Prices the plans that run everything in one tier.

    Args:
      source: the model.
      topology: the system.

    Returns:
      One plan for each tier, the lowest first.
    """
    rates = partition.rates_of(source.graph, topology, layer_seconds=source.layer_seconds)
    run, layers = partition.pricer(rates), len(source.graph.layers)
    return [run([k] * layers) for k in range(len(topology.tiers))]


def over_bandwidth(
    source: Source, topology: Topology, objective: str, bps: np.ndarray, solver: str = "all"
) -> tuple[list[Plan], list[list[Plan]]]:
    """Plans for many bandwidths of the lowest links.

    Args:
      source: the model.
      topology: the system.
      objective: one of `partition.OBJECTIVES`; for ``"worst_latency"`` plans are those with the
        best mean.
      bps: bits per second, both ways, ``[points]``.
      solver: one of `SOLVERS`, or ``"all"``.

    Returns:
      The plan at each point: of the solver where it is one for two tiers, otherwise of PipeDream
      for ``"pipeline"`` and the best of all; and the baselines.
    """
    below = topology.names[0]
    best = partition.pipedream if objective == "pipeline" else partition.min_cut
    run = SOLVERS[solver] if solver in FOR_TWO else best
    wanted = "latency" if objective == "worst_latency" else objective
    plans, fixed = [], []
    for value in bps:
        now = partition.conditions(topology, 0, bandwidth={below: Trace([0], [value])})
        plans.append(run(source.graph, now, wanted, layer_seconds=source.layer_seconds))
        fixed.append(baselines(source, now))
    return plans, fixed


def sweep(config: Partition, source: Source, topology: Topology) -> Swept | None:
    """Plans over the bandwidths of a config.

    Args:
      config: the fields.
      source: the model.
      topology: the system.

    Returns:
      The plans; None when there is nothing to sweep.
    """
    if not config.sweep.points or len(topology.tiers) == 1:
        return None
    bps = np.geomspace(config.sweep.from_bps, config.sweep.to_bps, config.sweep.points)
    plans, fixed = over_bandwidth(source, topology, config.objective, bps, config.solver)
    return Swept(bps, plans, fixed, switches(plans, bps))


def switches(plans: list[Plan], bps: np.ndarray) -> list[tuple[float, str, str]]:
    """Finds where the best placement changes as the bandwidth rises.

    Args:
      plans: from `over_bandwidth`.
      bps: as for `over_bandwidth`, ascending.

    Returns:
      The bandwidth half-way (on a logarithmic scale) between two points with different placements,
      how many layers each tier has beyond it, and the name of the plan there.
    """
    found = []
    for i in range(1, len(plans)):
        if plans[i].assignment != plans[i - 1].assignment:
            counts = np.bincount(plans[i].assignment, minlength=plans[i].energy_j.shape[1])
            at = float(np.sqrt(bps[i] * bps[i - 1]))
            found.append((at, "/".join(map(str, counts)), plans[i].name))
    return found
