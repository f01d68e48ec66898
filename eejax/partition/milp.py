"""Exact placement under limits of memory, time, energy or money, by integer programming."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint
from scipy.optimize import milp as highs

from eejax.partition.costs import Costs, tabulate
from eejax.partition.graph import LayerGraph
from eejax.partition.min_cut import cut
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import Rates, rates_of
from eejax.tiers.topology import Topology


def exact(
    graph: LayerGraph, topology: Topology, objective: Objective = "latency", **keywords: Any
) -> Plan:
    """Finds the best placement that fits into memory: `min_cut`, and `milp` only where it must.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      **keywords: as for `rates_of`.

    Returns:
      The best feasible plan.

    Raises:
      ValueError: an argument is wrong, or no placement is feasible.
    """
    rates = rates_of(graph, topology, **keywords)
    costs = tabulate(rates, objective)
    run = pricer(rates, costs.choice)
    # The best of all placements is the best of those that fit, if it fits.
    plan = run(cut(costs))
    return plan if plan.feasible else run(solve(rates, costs))


def milp(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    limits: Mapping[str, float] | None = None,
    seconds: float = 60.0,
    **keywords: Any,
) -> Plan:
    """Finds the best placement within the memory of every tier and other limits.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      limits: the most that other objectives may be, such as ``{"latency": 0.1}`` for a deadline or
        ``{"end_energy": 2}`` for a battery.
      seconds: most that the search may take.
      **keywords: as for `rates_of`.

    Returns:
      The best feasible plan.

    Raises:
      ValueError: an argument is wrong, or no placement is feasible, or none was proven best in
        time.

    References:
      Eshratifar, Abrishami and Pedram, JointDNN: An Efficient Training and Inference Engine for
      Intelligent Mobile Cloud Computing Services, 2019 (limits). Huangfu and Hall, Parallelizing
      the Dual Revised Simplex Method, 2018 (the solver, HiGHS).

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e9, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 98))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> milp(graph, three_tier(), "energy").name
      'end:conv | cloud:dense'
      >>> milp(graph, three_tier(), "energy", limits={"latency": 0.02}).name
      'end:conv | edge:dense'
    """
    rates = rates_of(graph, topology, **keywords)
    costs = tabulate(rates, objective)
    bounded = {name: (tabulate(rates, name, costs.choice), m) for name, m in (limits or {}).items()}
    return pricer(rates, costs.choice)(solve(rates, costs, bounded, seconds))


def solve(
    rates: Rates,
    costs: Costs,
    limits: Mapping[str, tuple[Costs, float]] | None = None,
    seconds: float = 60.0,
) -> np.ndarray:
    """Finds the cheapest placement of a table of costs within limits.

    One binary for each layer and link tells whether the layer is beyond it; one number for each
    message and link, at least the difference of reader and source, tells whether it crosses.

    Args:
      rates: gives the parameters of the layers and the memory of the tiers.
      costs: what to minimise.
      limits: other tables of the same messages, with the most that they may come to, by name.
      seconds: most that the search may take.

    Returns:
      Tier of each layer, ``[layers]``.

    Raises:
      ValueError: as for `milp`.
    """
    layers, tiers = costs.layer.shape
    links, messages, groups = tiers - 1, len(costs.producer), len(costs.setup)
    if tiers == 1:
        return np.zeros(layers, int)
    # Variables: layers, messages up, messages down, set-up; each [rows, links].
    starts = np.cumsum([0, layers, messages, messages, groups]) * links
    beyond, up, down, wake = (np.arange(a, b).reshape(-1, links) for a, b in pairwise(starts))
    rows = _Rows(int(starts[-1]))
    # Beyond a link means beyond those below it.
    rows.add(beyond[:, :-1], beyond[:, 1:], at_least=0)
    reader, source = beyond[costs.consumer], costs.producer[costs.message]
    inside = source >= 0
    rows.add(up[costs.message[~inside]], reader[~inside], at_least=0)
    read, made, message = reader[inside], beyond[source[inside]], costs.message[inside]
    rows.add(up[message], read, at_least=0, plus=made)
    one_way = ~np.isfinite(costs.down).all(1)[message]
    rows.add(read[one_way], made[one_way], at_least=0)
    rows.add(down[message[~one_way]], made[~one_way], at_least=0, plus=read[~one_way])
    for group, stop in zip(wake, costs.setup_stop):
        rows.add(np.broadcast_to(group, (stop, links)), beyond[:stop], at_least=0)

    upper = np.ones(rows.columns)
    lower = np.zeros(rows.columns)
    forbidden = ~np.isfinite(costs.layer)
    upper[beyond[forbidden[:, -1], -1]] = 0
    lower[beyond[forbidden[:, 0], 0]] = 1
    for k in range(1, links):
        rows.add(beyond[forbidden[:, k], k], beyond[forbidden[:, k], k - 1], at_least=0)

    constraints = [rows.constraint()]
    parameters = np.array([layer.parameter_bytes for layer in rates.graph.layers], float)
    for k, tier in enumerate(rates.topology.tiers):
        held = np.zeros(rows.columns)
        room = tier.devices.memory_bytes[rates.ancestor[k]].min()
        # A layer is here when it is beyond the link below and not beyond the one above.
        if k == 0:
            room -= parameters.sum()
        else:
            held[beyond[:, k - 1]] = parameters
        if k < links:
            held[beyond[:, k]] = -parameters
        constraints.append(LinearConstraint(held[None], -np.inf, room))

    def linear(table: Costs) -> tuple[np.ndarray, float]:
        layer = np.where(forbidden, 0, table.layer)
        vector = np.zeros(rows.columns)
        vector[beyond] = np.diff(layer, axis=1)
        vector[up], vector[wake] = table.up, table.setup
        vector[down] = np.where(np.isfinite(table.down), table.down, 0)
        return vector, layer[:, 0].sum()

    for table, most in (limits or {}).values():
        vector, constant = linear(table)
        constraints.append(LinearConstraint(vector[None], -np.inf, most - constant))
    goal, _ = linear(costs)
    whole = np.zeros(rows.columns)
    whole[beyond] = 1
    found = highs(
        goal / max(np.abs(goal).max(), 1e-300),
        integrality=whole,
        bounds=Bounds(lower, upper),
        constraints=constraints,
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    if found.status != 0:
        known = ", ".join(f"{name} <= {most:g}" for name, (_, most) in (limits or {}).items())
        reason = {1: f"nothing was proven best in {seconds:g} s", 2: "no placement is feasible"}
        raise ValueError(
            f"{reason.get(found.status, found.message)} within the memory of the tiers"
            + (f" and {known}" if known else "")
        )
    return np.rint(found.x[beyond]).astype(int).sum(1)


class _Rows:
    """Collects rows ``larger - smaller (+ plus) >= bound`` of a sparse matrix."""

    def __init__(self, columns: int):
        self.columns = columns
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._bounds: list[np.ndarray] = []
        self._count = 0

    def add(self, larger: Any, smaller: Any, at_least: float, plus: Any = None) -> None:
        larger, smaller = np.ravel(larger), np.ravel(smaller)
        row = self._count + np.arange(len(larger))
        for column, sign in ((larger, 1), (smaller, -1), (plus, 1)):
            if column is not None:
                self._parts.append((np.full(len(row), sign), row, np.ravel(column)))
        self._bounds.append(np.full(len(row), at_least))
        self._count += len(row)

    def constraint(self) -> LinearConstraint:
        values, row, column = (np.concatenate(part) for part in zip(*self._parts))
        matrix = sp.csr_array((values, (row, column)), (self._count, self.columns))
        return LinearConstraint(matrix, np.concatenate(self._bounds), np.inf)
