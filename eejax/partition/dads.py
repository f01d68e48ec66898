"""DADS: the placement of a graph on two tiers by a minimum cut, and one for busy pipelines."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.costs import Costs
from eejax.partition.graph import LayerGraph
from eejax.partition.min_cut import SINK, SOURCE, source_side
from eejax.partition.objective import Objective, period
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan
from eejax.partition.two_tiers import FORBIDDEN, Pair, check_up_only, pair
from eejax.tiers.topology import Topology

SPACE = 8.0
"""Largest weight of a stage in the first search for heavy load, where the paper has "large"."""

EPSILON = 1e-3
"""Relative improvement below which the search for heavy load ends."""


class Network(NamedTuple):
    """The latency graph of DADS. Vertex 0 is ``e``, 1 is ``c``, then the layers, then the input.

    Attributes:
      vertices: their number.
      tail: of each arc.
      head: of each arc.
      capacity: of each arc; may be infinite.
      base: what the layers cost wherever they are, taken off the capacities.
    """

    vertices: int
    tail: np.ndarray
    head: np.ndarray
    capacity: np.ndarray
    base: float


class Claim(NamedTuple):
    """What the graph as published promises, and what its placement costs.

    Attributes:
      plan: the placement, with what it truly costs; data may go down.
      claimed: value of the cut.
      true: value of the plan by the same objective.
    """

    plan: Plan
    claimed: float
    true: float


def dads(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    frames_per_s: float | None = None,
    as_published: bool = False,
    **keywords: Any,
) -> Plan:
    """Places a graph on two tiers.

    Light load: a minimum cut, exact as the input is pinned to the lower tier and data go up only.
    Heavy load: the `period` is to be short, which is NP-hard; DSH weighs the compute of the lower
    tier by ``alpha`` and that of the higher one by ``gamma``, searches a grid of both, then finer
    ones around the best, and keeps the cut whose slowest stage is fastest. ``alpha = gamma = 1`` is
    among them, so the slowest stage takes at most three times as long as it must (once more for
    every further link and tier on the way).

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR` or weights of several for light load, ``"pipeline"`` for
        heavy load.
      tiers: lower and higher tier; the lowest and the highest if None.
      frames_per_s: rate of inputs of each end device: with it, the plan for light load is taken if
        it keeps up, otherwise the one for heavy load.
      as_published: take the graph as published, see `claim`; the plan may then be far from the
        best.
      **keywords: as for `rates_of`, without ``two_way`` and ``setup_s``.

    Returns:
      The plan, not feasible where its parameters do not fit.

    Raises:
      ValueError: an argument is wrong, every placement is forbidden, or no plan that is found
        keeps up with ``frames_per_s``.

    References:
      Hu, Bao, Wang and Liu, Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge,
      2019 (equations 4 and 5, algorithms 1 to 3).

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e8, 1e5, 400), Layer("dense", 1e10, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 300_000), Tensor("features", 0, (1,), 9800))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> dads(graph, three_tier()).name
      'end:conv | cloud:dense'
      >>> dads(graph, three_tier(), as_published=True).name
      'all-cloud'
    """
    if as_published:
        return claim(graph, topology, objective, tiers=tiers, **keywords).plan
    light = "latency" if objective == "pipeline" else objective
    choice = pair(graph, topology, light, tiers, keywords)
    check_up_only(choice.rates, "dads")
    x, value = cut(choice.costs)
    if not np.isfinite(value):
        raise ValueError(FORBIDDEN)
    plan = choice.price(x)
    rate = frames_per_s or 0.0
    if objective == "pipeline" or period(plan).max() * rate >= 1:
        plan = _heavy(pair(graph, topology, "latency", tiers, keywords))
    if period(plan).max() * rate >= 1:
        raise ValueError(
            f"frames_per_s must be below {1 / period(plan).max():.3g}, what {plan.name} keeps up "
            f"with, got {rate:g}"
        )
    return plan


def claim(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    out_degree: int = 1,
    **keywords: Any,
) -> Claim:
    """Cuts the graph as published, with its two defects, and prices the placement truly.

    The input is a vertex like any other, so the cut may move it to the higher tier for nothing.
    Nothing stops data that go down, which cost nothing either.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      tiers: lower and higher tier; the lowest and the highest if None.
      out_degree: a tensor with more readers than this is paid once; 1 in the paper. With 2, as some
        restate it, a tensor of two readers is paid twice.
      **keywords: as for `rates_of`, without ``two_way`` and ``setup_s``.

    Returns:
      The claim.

    Raises:
      ValueError: an argument is wrong, or every placement is forbidden.
    """
    if keywords.get("two_way") or np.any(keywords.get("setup_s", 0)):
        raise ValueError("dads has no place for two_way and setup_s; use min_cut")
    choice = pair(graph, topology, objective, tiers, keywords | {"two_way": True})
    x, claimed = cut(choice.costs, pin=0.0, reverse=False, out_degree=out_degree)
    if not np.isfinite(claimed):
        raise ValueError(FORBIDDEN)
    plan = choice.price(x)
    return Claim(plan, claimed, judge(plan, objective))


def network(
    costs: Costs, pin: float = np.inf, reverse: bool = True, out_degree: int = 1
) -> Network:
    """Builds the latency graph: a vertex on the side of ``e`` is in the lower tier.

    Args:
      costs: a table of two tiers.
      pin: capacity of the arc that keeps the input in the lower tier; 0 as published by DADS, the
        ``tau`` of QDMP.
      reverse: whether no layer may be below one that it reads from; not as published.
      out_degree: a tensor with more readers than this gets an auxiliary vertex.

    Returns:
      The network.
    """
    lowest = costs.layer.min(1)
    if not np.isfinite(lowest).all():
        raise ValueError(f"layer {int((~np.isfinite(lowest)).argmax())} is forbidden on both tiers")
    relative = costs.layer - lowest[:, None]
    v = 2 + np.arange(len(relative))
    v1 = 2 + len(relative)
    source = np.where(costs.producer < 0, v1, 2 + costs.producer)
    readers = 2 + costs.consumer
    many = np.bincount(costs.message, minlength=len(source)) > out_degree
    auxiliary = v1 + np.cumsum(many)
    out = np.where(many, auxiliary, source)[costs.message]
    cost = np.where(many, np.inf, costs.up[:, 0])[costs.message]
    arcs = [
        (np.full(len(v), SOURCE), v, relative[:, 1]),
        (v, np.full(len(v), SINK), relative[:, 0]),
        ([SOURCE], [v1], [pin]),
        (source[many], auxiliary[many], costs.up[many, 0]),
        (out, readers, cost),
    ]
    if reverse:
        arcs.append((readers, source[costs.message], np.full(len(readers), np.inf)))
    tail, head, capacity = (np.concatenate(column) for column in zip(*arcs))
    keep = capacity > 0
    return Network(
        v1 + 1 + int(many.sum()), tail[keep], head[keep], capacity[keep], float(lowest.sum())
    )


def cut(costs: Costs, **options: Any) -> tuple[np.ndarray, float]:
    """Cuts the latency graph.

    Args:
      costs: a table of two tiers.
      **options: as for `network`.

    Returns:
      0 (lower) or 1 (higher) for each layer, and the value of the cut: infinite if every placement
      is forbidden.

    Raises:
      ValueError: a layer is forbidden on both tiers.
    """
    layers = len(costs.layer)
    net = network(costs, **options)
    below = np.arange(net.vertices) != SINK
    above = np.isin(np.arange(net.vertices), (SOURCE, 2 + layers))
    side, bound = min(((s, _value(net, s)) for s in (below, above)), key=lambda pair: pair[1])
    if not np.isfinite(bound):
        bound = net.capacity[np.isfinite(net.capacity)].sum() or 1.0
    while bound > 0:
        found = source_side(*net[:4], bound)
        value = _value(net, found)
        if value > bound:
            break
        # Finer units pay only when the bound falls a lot.
        side, done, bound = found, value > bound / 16, value
        if done:
            break
    return (~side[2 : 2 + layers]).astype(int), _value(net, side) + net.base


def _value(net: Network, side: np.ndarray) -> float:
    return float(net.capacity[side[net.tail] & ~side[net.head]].sum())


def _heavy(choice: Pair) -> Plan:
    free = np.isfinite(choice.costs.layer)
    plans: dict[bytes, tuple[float, Plan]] = {}

    def at(alpha: float, gamma: float) -> tuple[float, Plan]:
        layer = np.where(free, choice.costs.layer, 0) * [alpha, gamma]
        x, _ = cut(choice.costs._replace(layer=np.where(free, layer, np.inf)))
        if x.tobytes() not in plans:
            plan = choice.price(x)
            plans[x.tobytes()] = judge(plan, "pipeline"), plan
        return plans[x.tobytes()]

    low, high, delta = np.zeros(2), np.full(2, SPACE), 1.0
    before = np.inf
    while True:
        axes = [np.arange(a, b + delta / 2, delta) for a, b in zip(low, high)]
        weights = [(alpha, gamma) for alpha in axes[0] for gamma in axes[1]]
        found = [at(*w) for w in weights]
        best = int(np.argmin([stage for stage, _ in found]))
        stage, plan = found[best]
        if stage > (1 - EPSILON) * before:
            return plan
        before, centre = stage, np.array(weights[best])
        low, high, delta = np.maximum(centre - delta, 0), centre + delta, delta / 4
