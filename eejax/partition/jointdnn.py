"""JointDNN: a chain that goes up and down between a device and a server as often as it pays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eejax.partition.costs import Costs, tabulate
from eejax.partition.graph import LayerGraph
from eejax.partition.milp import solve
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan, price, pricer
from eejax.partition.rates import Rates, rates_of
from eejax.partition.two_tiers import FORBIDDEN, between, check_chain, pair, tier_pair
from eejax.tiers.topology import Topology


def jointdnn(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    block_seconds: Any = None,
    **keywords: Any,
) -> Plan:
    """Places a chain on two tiers by a shortest path over its blocks.

    Nodes ``M_{i:j}`` and ``C_{i:j}`` run the layers ``i`` to ``j`` as one program on the mobile
    device or in the cloud. A block is followed by one on the other side, so blocks that were
    measured as a whole may take less than the sum of their layers. What a transition costs depends
    on the last layer before it alone, so the ``O(n^3)`` edges of the ``n (n + 1)`` nodes are
    searched in ``O(n^2)``.

    Args:
      graph: a chain of ``n`` layers.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      tiers: lower and higher tier; the lowest and the highest if None.
      block_seconds: measured seconds of the layers ``i`` to ``j`` as one program on the lower and
        the higher tier, ``[i, j, 2]`` with ``[layers, layers, 2]`` in all, where ``i <= j`` counts.
        The plan is then priced with them, each block shared out among its layers. Sums of layers if
        None.
      **keywords: as for `rates_of`, without ``setup_s``; ``two_way`` is True unless given.

    Returns:
      The best plan, not feasible where its parameters do not fit; of equal plans the one that keeps
      layers lower.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), an argument is
        wrong, or every placement is forbidden.

    References:
      Eshratifar, Abrishami and Pedram, JointDNN: An Efficient Training and Inference Engine for
      Intelligent Mobile Cloud Computing Services, 2019.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = [Layer(name, f, 1e5, 400) for name, f in (("a", 1e6), ("b", 1e11), ("c", 1e6))]
      >>> sizes = (("image", 300_000), ("features", 980), ("code", 980))
      >>> tensors = [Tensor(name, i - 1, (i,), b) for i, (name, b) in enumerate(sizes)]
      >>> graph = LayerGraph(tuple(layers), tuple(tensors), "layer")
      >>> jointdnn(graph, three_tier(), "end_energy", forbidden=[("c", "cloud")]).name
      'end:a+c | cloud:b'
    """
    keywords = {"two_way": True} | keywords
    if np.any(keywords.get("setup_s", 0)):
        raise ValueError("jointdnn knows no set-up costs: leave setup_s out, or use min_cut")
    if block_seconds is not None:
        return _measured(graph, topology, objective, tiers, block_seconds, keywords)
    choice = pair(graph, topology, objective, tiers, keywords)
    check_chain(graph, "jointdnn")
    layer = choice.costs.layer
    return choice.price(shortest_path(choice.costs, lambda j: layer[j::-1].cumsum(0)[::-1])[0])


def shortest_path(costs: Costs, block: Any) -> tuple[np.ndarray, float]:
    """Finds the shortest path from S to F.

    Args:
      costs: a table of two tiers of a chain, for its transitions.
      block: ``j`` to the costs of the blocks that start at layer 0 to ``j`` and end at ``j``,
        ``[j + 1, 2]``.

    Returns:
      0 (mobile) or 1 (cloud) for each layer, and the length of the path.

    Raises:
      ValueError: every placement is forbidden.
    """
    layers = len(costs.layer)
    # A chain: what layer j reads is made by the layer before it.
    up, down = (
        np.bincount(costs.producer + 1, cost[:, 0], layers) for cost in (costs.up, costs.down)
    )
    start, came = np.full((layers + 1, 2), np.inf), np.zeros((layers, 2), int)
    start[0] = 0.0, up[0]
    for j in range(layers):
        length = start[: j + 1] + block(j)
        came[j] = length.argmin(0)
        done = length.min(0)
        if j + 1 < layers:
            start[j + 1] = done[1] + down[j + 1], done[0] + up[j + 1]
    if not np.isfinite(done).any():
        raise ValueError(FORBIDDEN)
    x, side, j = np.zeros(layers, int), int(done.argmin()), layers - 1
    while j >= 0:
        i = came[j, side]
        x[i : j + 1] = side
        j, side = i - 1, 1 - side
    return x, float(done.min())


def jointdnn_ilp(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    tiers: Sequence[str | int] | None = None,
    battery_j: float = np.inf,
    cloud_s: float = np.inf,
    deadline_s: float = np.inf,
    seconds: float = 60.0,
    **keywords: Any,
) -> Plan:
    """Places a chain on two tiers within limits, by integer programming.

    Args:
      graph: a chain.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      tiers: lower and higher tier; the lowest and the highest if None.
      battery_j: most joules of the end device for one sample: what its battery allows.
      cloud_s: most seconds of the higher tier for one sample: what it grants when congested.
      deadline_s: most seconds of latency: quality of service.
      seconds: most that the search may take.
      **keywords: as for `rates_of`; ``two_way`` is True unless given.

    Returns:
      The best plan that is feasible and within the limits, all of them means over the end devices.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), an argument is
        wrong, no placement is within the limits, or none was proven best in time.

    References:
      Eshratifar, Abrishami and Pedram, JointDNN: An Efficient Training and Inference Engine for
      Intelligent Mobile Cloud Computing Services, 2019.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e10, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 98))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> jointdnn_ilp(graph, three_tier()).name
      'end:conv | cloud:dense'
      >>> jointdnn_ilp(graph, three_tier(), cloud_s=1e-4).name
      'all-end'
    """
    low, high = tier_pair(topology, tiers)
    rates = rates_of(graph, topology, **({"two_way": True} | keywords))
    check_chain(graph, "jointdnn_ilp")
    others = [k for k in range(len(topology.tiers)) if k not in (low, high)]
    allowed = rates.allowed.copy()
    allowed[:, others] = False
    rates = rates._replace(allowed=allowed)
    costs = tabulate(rates, objective)
    limits = {
        "end_energy": (tabulate(rates, "end_energy", costs.choice), battery_j),
        "latency": (tabulate(rates, "latency", costs.choice), deadline_s),
        "cloud_s": (_busy(rates, costs, high), cloud_s),
    }
    limits = {name: limit for name, limit in limits.items() if limit[1] < np.inf}
    return pricer(rates, costs.choice)(solve(rates, costs, limits, seconds))


def _busy(rates: Rates, costs: Costs, tier: int) -> Costs:
    """Tabulates the seconds that a tier computes."""
    share = np.bincount(rates.ancestor[tier], minlength=rates.topology.tiers[tier].nodes)
    layer = np.zeros_like(costs.layer)
    layer[:, tier] = rates.reach * (rates.layer_s[tier] @ share) / share.sum()
    return costs._replace(
        layer=layer,
        up=costs.up * 0,
        down=np.where(np.isfinite(costs.down), 0, np.inf),
        setup=costs.setup * 0,
    )


def _measured(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective,
    tiers: Sequence[str | int] | None,
    block_seconds: Any,
    keywords: dict[str, Any],
) -> Plan:
    layers = len(graph.layers)
    t = np.asarray(block_seconds, float)
    if t.shape != (layers, layers, 2):
        raise ValueError(f"block_seconds must be [{layers}, {layers}, 2], got {t.shape}")
    upper = t[np.triu_indices(layers)]
    if not ((upper >= 0) & (upper < np.inf)).all():
        raise ValueError("block_seconds must be finite and >= 0 wherever i <= j")
    for name in ("layer_seconds", "reach"):
        if keywords.get(name) is not None:
            raise ValueError(f"block_seconds cannot be combined with {name}")
    low, high = tier_pair(topology, tiers)
    seconds = np.zeros((layers, len(topology.tiers)))

    def table(value: float) -> Costs:
        rates = rates_of(graph, topology, layer_seconds=seconds + value, **keywords)
        return between(tabulate(rates, objective), low, high)

    # What is paid beside the seconds, such as the way of the answer; and for each second.
    fixed = table(0.0)
    check_chain(graph, "jointdnn")
    free = np.isfinite(fixed.layer)
    rate = np.where(free, table(1.0).layer - np.where(free, fixed.layer, 0), 0).max(0)

    def block(j: int) -> np.ndarray:
        return fixed.layer[j::-1].cumsum(0)[::-1] + rate * t[: j + 1, j]

    x, _ = shortest_path(fixed, block)
    edges = np.flatnonzero(np.diff(x)) + 1
    for i, stop in zip(np.append(0, edges), np.append(edges, layers)):
        own = t[range(i, stop), range(i, stop), x[i]]
        share = own / own.sum() if own.sum() else np.full(stop - i, 1 / (stop - i))
        seconds[i:stop, (low, high)[x[i]]] = share * t[i, stop - 1, x[i]]
    choice = fixed.choice
    assignment = np.where(x, high, low)
    return price(graph, topology, assignment, choice=choice, layer_seconds=seconds, **keywords)
