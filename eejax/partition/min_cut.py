"""Exact placement of any graph on any number of tiers, by one minimum cut."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from eejax.partition.costs import Costs, tabulate, total
from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import rates_of
from eejax.tiers.topology import Topology

SOURCE, SINK = 0, 1
_BITS = 30  # Capacities of scipy's maximum flow are 32-bit integers.


def min_cut(
    graph: LayerGraph, topology: Topology, objective: Objective = "latency", **keywords: Any
) -> Plan:
    """Finds the best placement, whatever the shape of the graph and the number of tiers.

    Exact for every sum over layers and messages: transfers paid once a tensor and link, set-up
    once a link, codecs chosen for each hop, early exits, forbidden placements, data that go up only
    or both ways. Not for memory limits (see `milp`), nor for the largest of several times.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several.
      **keywords: as for `rates_of`.

    Returns:
      The best plan, not feasible where its parameters do not fit; of equal plans the one that keeps
      layers lower.

    Raises:
      ValueError: an argument is wrong, or every placement is forbidden.

    References:
      Hu et al., Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge, 2019 (two
      tiers). Ishikawa, Exact Optimization for Markov Random Fields with Convex Priors, 2003 (many
      labels by one cut).

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e9, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 3072), Tensor("features", 0, (1,), 98))
      >>> min_cut(LayerGraph(layers, tensors, "layer"), three_tier()).name
      'end:conv | edge:dense'
    """
    rates = rates_of(graph, topology, **keywords)
    costs = tabulate(rates, objective)
    return pricer(rates, costs.choice)(cut(costs))


def cut(costs: Costs) -> np.ndarray:
    """Finds the cheapest placement of a table of costs.

    Layer ``v`` has a vertex for each link ``k``, on the side of the source when ``v`` is beyond it.
    Arcs along these vertices carry the costs of the layer. A message with several readers has a
    vertex for each link, so that it is paid once; so has the set-up of a link. Capacities are
    integers of 30 bits in units of the best placement that is known, which is improved until it
    stays; costs that differ by less than about 1e-9 of it for each arc are the same.

    Args:
      costs: from `tabulate`, or any other table.

    Returns:
      Tier of each layer, ``[layers]``.

    Raises:
      ValueError: every placement is forbidden.
    """
    layers, tiers = costs.layer.shape
    if tiers == 1:
        return np.zeros(layers, int)
    lowest = costs.layer.min(1)
    if not np.isfinite(lowest).all():
        raise ValueError(f"layer {int(lowest.argmax())} is forbidden on every tier")
    # What a layer costs anyway needs no bits.
    relative = costs._replace(layer=costs.layer - lowest[:, None])
    vertices, tail, head, capacity = _network(relative)
    known = [np.full(layers, k) for k in range(tiers)] + [costs.layer.argmin(1)]
    bounds = [total(relative, x) for x in known]
    best, bound = known[int(np.argmin(bounds))], min(bounds)
    if not np.isfinite(bound):
        bound = capacity[np.isfinite(capacity)].sum() or 1.0
    while bound > 0:
        beyond = source_side(vertices, tail, head, capacity, bound)
        x = beyond[2 : 2 + layers * (tiers - 1)].reshape(layers, -1).sum(1)
        cost = total(relative, x)
        if not np.isfinite(cost):
            raise ValueError("every placement is forbidden: no tier is left to some layers")
        if cost > bound:
            break
        # Finer units pay only when the bound falls a lot.
        best, done, bound = x, cost > bound / 16, cost
        if done:
            break
    return best


def _network(costs: Costs) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Lists the arcs of the network: number of vertices, tails, heads, capacities."""
    layers, tiers = costs.layer.shape
    links = tiers - 1
    vertex = 2 + np.arange(layers * links).reshape(layers, links)
    # The input lies in the lowest tier: never beyond a link.
    vertex = np.vstack([vertex, np.full((1, links), SINK)])
    chain = np.hstack([np.full((layers, 1), SOURCE), vertex[:-1], np.full((layers, 1), SINK)])
    arcs = [(chain[:, :-1], chain[:, 1:], costs.layer)]
    arcs.append((vertex[:-1, 1:], vertex[:-1, :-1], np.inf))
    count = 2 + layers * links

    def shared(rows: np.ndarray) -> np.ndarray:
        """Makes a new vertex for each row and link."""
        nonlocal count
        new = count + np.arange(rows.size * links).reshape(-1, links)
        count += new.size
        return new

    source, readers = vertex[costs.producer], vertex[costs.consumer]
    several = np.flatnonzero(np.bincount(costs.message, minlength=len(source)) > 1)
    place = np.full(len(source), -1)
    place[several] = np.arange(len(several))
    many = place[costs.message] >= 0
    one, mine = costs.message[~many], place[costs.message[many]]
    gather = shared(several)
    arcs.append((readers[~many], source[one], costs.up[one]))
    arcs.append((gather, source[several], costs.up[several]))
    arcs.append((readers[many], gather[mine], np.inf))
    down = np.isfinite(costs.down).all(1)
    one_way = ~down[costs.message]
    arcs.append((source[costs.message[one_way]], readers[one_way], np.inf))
    if down.any():
        scatter = shared(several)
        back = ~many & ~one_way
        arcs.append((source[costs.message[back]], readers[back], costs.down[costs.message[back]]))
        finite = np.where(down[several][:, None], costs.down[several], np.inf)
        arcs.append((source[several], scatter, finite))
        arcs.append((scatter[mine], readers[many], np.inf))
    for group, stop in zip(costs.setup, costs.setup_stop):
        if group.any():
            wake = shared(np.zeros(1))
            arcs.append((vertex[:stop], np.broadcast_to(wake, (stop, links)), np.inf))
            arcs.append((wake, np.full((1, links), SINK), group[None]))
    flat = [[np.broadcast_to(a, arc[0].shape).ravel() for a in arc] for arc in arcs]
    tail, head, capacity = (np.concatenate(column) for column in zip(*flat))
    # An arc of no capacity, into the source or out of the sink, never matters.
    keep = (capacity > 0) & (head != SOURCE) & (tail != SINK) & (tail != head)
    return count, tail[keep], head[keep], capacity[keep]


def source_side(
    vertices: int, tail: np.ndarray, head: np.ndarray, capacity: np.ndarray, bound: float
) -> np.ndarray:
    """Cuts a network in integer units of a bound.

    Args:
      vertices: their number; vertex 0 is the source and 1 the sink.
      tail: of each arc, ``[arcs]``.
      head: of each arc.
      capacity: of each arc, may be infinite.
      bound: capacity of a known cut, above 0.

    Returns:
      Which vertices are on the side of the source of the smallest such cut, bool ``[vertices]``.
    """
    # No arc above the bound is in the best cut, so all arcs of twice as much are the same: they are
    # above it however the others are rounded.
    units = np.rint(np.minimum(capacity / bound, 2) * 2 ** (_BITS - 1)).astype(np.int64)
    matrix = sp.coo_array((units, (tail, head)), (vertices, vertices)).tocsr()
    matrix.data = np.minimum(matrix.data, 2**_BITS)
    matrix = sp.csr_matrix(matrix)
    flow = maximum_flow(matrix.astype(np.int32), SOURCE, SINK, method="dinic").flow
    left = matrix - flow  # In 64 bits: against the direction of a flow both add up.
    left.data = (left.data > 0).astype(np.int32)
    left.eliminate_zeros()
    side = np.zeros(vertices, bool)
    side[breadth_first_order(left, SOURCE, return_predecessors=False)] = True
    return side
