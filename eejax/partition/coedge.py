"""CoEdge (of Hu, Sun and Ren): a chain over edge servers, chosen one by one, and the cloud."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.costs import tabulate, total
from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import Rates, rates_of
from eejax.partition.two_tiers import check_chain, check_up_only
from eejax.tiers.nodes import Link
from eejax.tiers.topology import Topology, make_tier, make_topology


class CoEdgePlan(NamedTuple):
    """A plan over a route through the edge.

    Attributes:
      plan: priced on ``topology``.
      topology: the route, a tier for each node: what is below the edge, the edge servers in their
        order, and the cloud.
      route: indices of the edge servers; the first one serves the end device.
    """

    plan: Plan
    topology: Topology
    route: tuple[int, ...]


def coedge(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    peers: Mapping[tuple[int, int], Link],
    end: int = 0,
    **keywords: Any,
) -> CoEdgePlan:
    """Adds the edge server that helps most, as long as one helps, and allocates the layers anew.

    To find the fastest allocation over any edge servers is NP-hard: each is used for one run of
    layers, in an order to be found. The edge is the tier below the top one. Starting with the
    server on the way up, each of the others is tried at each place behind it, and the best one
    stays. Each route is allocated by recursion: the best runs of the first ``j`` layers on the
    first ``k`` nodes follow from those on the first ``k - 1``, exactly, within the memory of each
    node. The route as a whole is greedy, so never worse than without peers, and not always the
    best.

    Only the abstract of the paper could be read: the problem, its hardness, the greedy choice of
    nodes and the recursive allocation are from there; where a server is inserted, the exact
    recursion, and memory limits are ours. CoEdge of Zeng et al. (2021), which shares the
    rows of feature maps out among devices, is another method.

    Args:
      graph: a chain.
      topology: the system, of two or more tiers; the present bandwidths and speeds decide.
      objective: one of `costs.LINEAR`, or weights of several; the paper minimises latency.
      peers: links between edge servers, by the indices of their source and target; its ``up`` is
        from source to target. Each way is a link of its own.
      end: index of the node of the lowest tier that has the data.
      **keywords: as for `rates_of`, without ``two_way`` and ``setup_s``, prices and seconds of
        codecs as one number; ``layer_seconds`` and ``forbidden`` of the edge tier hold for all of
        its servers.

    Returns:
      The plan, always feasible.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), an argument is
        wrong, or nothing is feasible on the way up.

    References:
      Hu, Sun and Ren, CoEdge: Exploiting the Edge-Cloud Collaboration for Faster Deep Learning,
      2020.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import DEVICES, LINKS, make_tier, make_topology
      >>> layers = (Layer("conv", 1e9, 1e5, 400), Layer("dense", 1e10, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3e5), Tensor("features", 0, (1,), 2e5))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> edge = make_tier("edge", [DEVICES["raspberry_pi_4"], DEVICES["edge_server"]],
      ...                  LINKS["wan"], parent=0)
      >>> system = make_topology(edge, make_tier("cloud", DEVICES["cloud_gpu"]))
      >>> coedge(graph, system, peers={}).plan.name
      'all-cloud'
      >>> found = coedge(graph, system, peers={(0, 1): LINKS["lan"]})
      >>> found.plan.name, found.route
      ('all-edge[1]', (0, 1))
    """
    top = len(topology.tiers) - 1
    if top < 1:
        raise ValueError(
            f"the topology must have two tiers or more, got only {topology.names[0]!r}"
        )
    if not 0 <= end < topology.tiers[0].nodes:
        raise ValueError(f"end must be in [0, {topology.tiers[0].nodes}), got {end}")
    edge = topology.tiers[top - 1]
    for pair in peers:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= p < edge.nodes for p in pair):
            raise ValueError(
                f"peers: {pair} must be two different nodes of {edge.name!r}, in [0, {edge.nodes})"
            )

    def allocated(route: tuple[int, ...]) -> tuple[float, CoEdgePlan | None]:
        system = _along(topology, end, route, peers)
        rates = rates_of(graph, system, **_for_route(keywords, graph, topology, route))
        check_chain(graph, "coedge")
        check_up_only(rates, "coedge")
        costs = tabulate(rates, objective)
        tier = allocate(rates, costs.layer, _moves(costs, len(graph.layers)))
        if tier is None:
            return np.inf, None
        return total(costs, tier), CoEdgePlan(pricer(rates, costs.choice)(tier), system, route)

    route = (int(topology.ancestor(top - 1)[end]),)
    cost, best = allocated(route)
    while True:
        tried = [
            allocated(longer)
            for longer in _insertions(route, edge.nodes)
            if all(hop in peers for hop in pairwise(longer))
        ]
        least, found = min(tried, key=lambda row: row[0], default=(np.inf, None))
        # Rounding alone is no help.
        if found is None or not least < cost * (1 - 1e-12):
            break
        cost, best, route = least, found, found.route
    if best is None:
        raise ValueError(
            "no allocation is feasible: layers do not fit into memory, or are forbidden"
        )
    return best


def allocate(rates: Rates, layer: np.ndarray, moves: np.ndarray) -> np.ndarray | None:
    """Allocates runs of layers to nodes in a row, within their memory.

    Args:
      rates: of a topology with one node a tier.
      layer: cost of each layer in each tier, ``[layers, tiers]``.
      moves: cost of each link with its cut before each layer, ``[layers + 1, links]``.

    Returns:
      Tier of each layer, ``[layers]``; None if nothing is feasible.
    """
    layers, tiers = layer.shape
    held = np.cumsum([0.0, *(row.parameter_bytes for row in rates.graph.layers)])
    best, back = np.where(np.arange(layers + 1) == 0, 0.0, np.inf), []
    for k in range(tiers):
        spent = np.cumsum([0.0, *np.where(np.isfinite(layer[:, k]), layer[:, k], 0)])
        banned = np.cumsum([0, *~np.isfinite(layer[:, k])])
        # Row i to column j: layers i to j - 1 run here.
        i, j = np.indices((layers + 1, layers + 1))
        fits = held[j] - held[i] <= rates.topology.tiers[k].devices.memory_bytes[0]
        fits &= (i <= j) & (banned[i] == banned[j])
        arrived = best + (moves[:, k - 1] if k else 0)
        ways = np.where(fits, arrived[:, None] + spent[j] - spent[i], np.inf)
        back.append(ways.argmin(0))
        best = ways.min(0)
    if not np.isfinite(best[-1]):
        return None
    tier, stop = np.zeros(layers, int), layers
    for k in range(tiers - 1, -1, -1):
        start = back[k][stop]
        tier[start:stop], stop = k, start
    return tier


def _moves(costs: Any, layers: int) -> np.ndarray:
    """Sums up what crosses each link with its cut before each layer; behind the last, nothing."""
    moves, read = np.zeros((layers + 1, costs.up.shape[1])), np.unique(costs.message)
    np.add.at(moves, costs.producer[read] + 1, costs.up[read])
    return moves


def _insertions(route: tuple[int, ...], nodes: int) -> list[tuple[int, ...]]:
    others = [p for p in range(nodes) if p not in route]
    return [(*route[:at], p, *route[at:]) for p in others for at in range(1, len(route) + 1)]


def _along(
    topology: Topology, end: int, route: tuple[int, ...], peers: Mapping[tuple[int, int], Link]
) -> Topology:
    *below, edge, cloud = topology.tiers
    nodes = [int(topology.ancestor(k)[end]) for k in range(len(below))]
    rows = [(t.name, t.device(node), t.link(node)) for t, node in zip(below, nodes)]
    links = [*(peers[hop] for hop in pairwise(route)), edge.link(route[-1])]
    names = [edge.name, *(f"{edge.name}[{p}]" for p in route[1:])]
    rows += [(name, edge.device(p), link) for name, p, link in zip(names, route, links)]
    tiers = [make_tier(name, device, link, parent=0) for name, device, link in rows]
    head = cloud.device(int(edge.parent[route[-1]]))
    return make_topology(*tiers, make_tier(cloud.name, head))


def _for_route(
    keywords: Mapping[str, Any], graph: LayerGraph, topology: Topology, route: Sequence[int]
) -> dict[str, Any]:
    """Says for each server of the route what the keywords say of the edge tier."""
    own, top = dict(keywords), len(topology.tiers) - 1
    columns = [*range(top), *[top - 1] * (len(route) - 1), top]
    if own.get("layer_seconds") is not None:
        shape = (len(graph.layers), top + 1)
        own["layer_seconds"] = np.broadcast_to(own["layer_seconds"], shape)[:, columns]
    at = [(name, topology.tier_index(tier)) for name, tier in own.get("forbidden", ())]
    own["forbidden"] = [(n, k) for n, tier in at for k, c in enumerate(columns) if c == tier]
    return own
