"""Cogent: prune the layers below the cut of a chain, and choose both together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.graph import LayerGraph, check
from eejax.partition.neurosurgeon import cut_costs
from eejax.partition.objective import Objective
from eejax.partition.plan import Plan
from eejax.partition.two_tiers import check_chain, check_up_only, pair
from eejax.tiers.topology import Topology


class CogentPlan(NamedTuple):
    """A cut and how much of each layer below it is pruned.

    Attributes:
      plan: priced on ``graph``.
      graph: the pruned model.
      ratios: part of the output channels that is pruned of each layer, ``[layers]``; a layer
        without parameters passes on what it gets.
      loss: sum of the losses of the pruned layers.
    """

    plan: Plan
    graph: LayerGraph
    ratios: tuple[float, ...]
    loss: float


class _Labels(NamedTuple):
    """Ways to prune up to a layer, none both dearer and lossier than another, ``[labels]``."""

    cost: np.ndarray
    loss: np.ndarray
    before: np.ndarray  # Index of the ratio of the layer before,
    label: np.ndarray  # and of the label there.


def cogent(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    ratios: Sequence[float],
    loss: Any,
    max_loss: float,
    in_two_steps: bool = False,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> CogentPlan:
    """Finds the cut and the pruning ratios of the layers below it that cost least within a loss.

    Pruned channels of a layer are neither computed nor sent, nor read by the next layer: with ``r``
    and ``s`` the ratios of a layer and the one before, FLOPs and parameters shrink by ``(1 - r)
    (1 - s)``, its output by ``1 - r``. Bytes between memory and processor shrink by the larger of
    ``1 - r`` and ``1 - s``, an upper estimate; measured seconds (``layer_seconds``) as FLOPs do.
    The input and the answer are never pruned, and layers above the cut keep their outputs.

    The paper trains an agent by reinforcement learning, first for the partition point, from the
    bandwidth and the load of the server, then for the ratio of each layer. Its stages, inputs and
    goals are from its abstract and its algorithm 1, whose formulas could not be read. Here both are
    searched exactly, layer by layer, under the assumption that losses add up, which the paper does
    not make: the loss of the pruned model is to be measured anew. Bandwidths and speeds are those
    of the topology. Fine-tuning and containers are no part of this.

    Args:
      graph: a chain.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several; the paper minimises latency.
      ratios: parts of the channels that may be pruned, 0 first.
      loss: accuracy lost when a layer alone is pruned, ``[layers, ratios]``, 0 for ratio 0;
        infinite where it is not to be. Layers without parameters, and the last one, are not asked.
      max_loss: most that the losses of all layers may add up to.
      in_two_steps: choose the cut for the whole model first, and then the ratios, as published.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way``, ``setup_s`` and ``codecs``.

    Returns:
      The best plan that is feasible, among the best of each cut and ratio at the cut.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), an argument is
        wrong, or nothing is feasible.

    References:
      Shan, Ye and Cui, Collaborative Intelligence: Accelerating Deep Neural Network Inference via
      Device-Edge Synergy, 2020.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e8, 1e5, 400), Layer("dense", 1e11, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 150_000), Tensor("features", 0, (1,), 200_000))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> table = {"ratios": (0.0, 0.5, 0.75), "loss": [[0, 0.01, 0.04], [0, 0.02, 0.09]]}
      >>> for max_loss in (0.0, 0.01, 0.05):
      ...     best = cogent(graph, three_tier(), max_loss=max_loss, **table)
      ...     print(best.plan.name, best.ratios, best.loss)
      all-cloud (0.0, 0.0) 0.0
      end:conv | cloud:dense (0.5, 0.0) 0.01
      end:conv | cloud:dense (0.75, 0.0) 0.04
    """
    if keywords.get("codecs"):
        raise ValueError("cogent sends pruned features as they are: leave codecs out")
    check(graph)
    keep, loss = _checked(graph, ratios, loss, max_loss)
    widths, layers = range(len(keep)), len(graph.layers)
    ones = np.ones(layers)
    whole = pair(graph, topology, objective, tiers, keywords)
    check_chain(graph, "cogent")
    check_up_only(whole.rates, "cogent")

    def costs_of(inside: float, outside: float) -> Any:
        own = prune(graph, inside * ones, outside * ones, topology, keywords)
        return pair(own[0], topology, objective, tiers, own[1]).costs

    # Of every layer: below, with ratios before and behind it; above, with the one before, when it
    # is the first to read pruned channels, or passes them on.
    table = [[costs_of(keep[a], keep[b]) for b in widths] for a in widths]
    below = np.array([[table[a][b].layer[:, 0] for b in widths] for a in widths])
    first = np.array([row[0].layer[:, 1] for row in table])
    passed = np.array([table[a][a].layer[:, 1] for a in widths])
    sent = np.array([np.bincount(c.producer + 1, c.up[:, 0], layers + 1) for c in table[0]])
    above = np.append(whole.costs.layer[::-1, 1].cumsum()[::-1], 0.0)
    free = np.array([not layer.parameter_bytes for layer in graph.layers])

    labels = _search(below, loss, free, max_loss)
    cuts = range(layers + 1)
    if in_two_steps:
        every = cut_costs(whole.costs)
        cuts = [layers - int(every[::-1].argmin())]
    found = []
    for cut in cuts:
        for b, way in enumerate(labels[cut]):
            # The input below all layers, and the answer behind them, are whole.
            if not len(way.cost) or (b and cut in (0, layers)):
                continue
            # Layers without parameters pass the pruned channels on to the first that has some.
            reader = next((i for i in range(cut, layers) if not free[i]), layers)
            if b and reader == layers:
                continue
            rest = sent[b, cut] + passed[b, cut:reader].sum() if cut < layers else 0.0
            rest += first[b, reader] + above[reader + 1] if reader < layers else 0.0
            best = int(way.cost.argmin())
            found.append((way.cost[best] + rest, -cut, b, best, reader))
    for cost, minus, b, label, reader in sorted(found):
        if not np.isfinite(cost):
            break
        chosen, way = np.zeros(layers, int), (b, label)
        chosen[-minus:reader] = b
        for i in range(-minus, 0, -1):
            chosen[i - 1] = way[0]
            row = labels[i][way[0]]
            way = int(row.before[way[1]]), int(row.label[way[1]])
        behind = keep[chosen]
        part, own = prune(graph, np.append(1.0, behind[:-1]), behind, topology, keywords)
        plan = pair(part, topology, objective, tiers, own).price(np.arange(layers) >= -minus)
        if plan.feasible:
            lost = float(labels[-minus][b].loss[label])
            return CogentPlan(plan, part, tuple((1 - behind).tolist()), lost)
    raise ValueError("no cut is feasible: layers are forbidden, or do not fit into memory")


def prune(
    graph: LayerGraph,
    before: np.ndarray,
    behind: np.ndarray,
    topology: Topology,
    keywords: Mapping[str, Any],
) -> tuple[LayerGraph, dict[str, Any]]:
    """Shrinks the layers of a chain.

    Args:
      graph: the model.
      before: part of the channels of its input that each layer gets, ``[layers]``.
      behind: part of the channels of its output that is left, ``[layers]``.
      topology: the system.
      keywords: as for `rates_of`.

    Returns:
      The pruned graph, its parameters rounded up to a byte, and the keywords for it.
    """
    free = np.array([not layer.parameter_bytes for layer in graph.layers])
    work = np.where(free, behind, before * behind)
    moved = np.where(free, behind, np.maximum(before, behind))
    layers = tuple(
        layer._replace(
            flops=layer.flops * w,
            bytes_moved=layer.bytes_moved * m,
            parameter_bytes=int(np.ceil(layer.parameter_bytes * w)),
        )
        for layer, w, m in zip(graph.layers, work.tolist(), moved.tolist())
    )
    tensors = tuple(
        t._replace(nbytes=t.nbytes * float(behind[t.producer])) if t.producer >= 0 else t
        for t in graph.tensors
    )
    own = dict(keywords)
    if own.get("layer_seconds") is not None:
        shape = (len(layers), len(topology.tiers))
        own["layer_seconds"] = np.broadcast_to(own["layer_seconds"], shape) * work[:, None]
    return graph._replace(layers=layers, tensors=tensors), own


def _search(
    below: np.ndarray, loss: np.ndarray, free: np.ndarray, max_loss: float
) -> list[list[_Labels]]:
    """Finds for each number of layers below, and each ratio at the cut, the ways to get there."""
    widths, nothing = range(len(below)), np.zeros(0, int)
    none = _Labels(np.zeros(0), np.zeros(0), nothing, nothing)
    start = _Labels(np.zeros(1), np.zeros(1), np.zeros(1, int), np.zeros(1, int))
    labels = [[start, *[none] * (len(widths) - 1)]]
    for i in range(below.shape[2]):
        row = []
        for b in widths:
            parts = [
                (way.cost + below[a, b, i], way.loss + (0 if free[i] else loss[i, b]), a, way)
                for a, way in enumerate(labels[-1])
                if a == b or not free[i]
            ]
            every = _Labels(
                np.concatenate([cost for cost, *_ in parts]),
                np.concatenate([lost for _, lost, *_ in parts]),
                np.concatenate([np.full(len(way.cost), a) for *_, a, way in parts]),
                np.concatenate([np.arange(len(way.cost)) for *_, way in parts]),
            )
            order = np.lexsort((every.cost, every.loss))
            order = order[(every.loss[order] <= max_loss) & np.isfinite(every.cost[order])]
            least = np.minimum.accumulate(np.append(np.inf, every.cost[order]))[:-1]
            order = order[every.cost[order] < least]
            row.append(_Labels(*(column[order] for column in every)))
        labels.append(row)
    return labels


def _checked(
    graph: LayerGraph, ratios: Sequence[float], loss: Any, max_loss: float
) -> tuple[np.ndarray, np.ndarray]:
    given = np.asarray(ratios, float)
    if given.ndim != 1 or not len(given) or given[0] != 0 or not ((given >= 0) & (given < 1)).all():
        raise ValueError(f"ratios must lie in [0, 1), 0 first, got {list(ratios)}")
    table, shape = np.asarray(loss, float), (len(graph.layers), len(given))
    if table.shape != shape:
        raise ValueError(f"loss must be [layers, ratios] = {shape}, got shape {table.shape}")
    if not (table >= 0).all() or table[:, 0].any():
        raise ValueError("loss must be >= 0 everywhere, and 0 for ratio 0")
    if not max_loss >= 0:
        raise ValueError(f"max_loss must be >= 0, got {max_loss}")
    return 1 - given, table
