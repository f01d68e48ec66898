"""Edgent: the exit and the cut of a chain, together, for a deadline."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest
from eejax.partition.graph import LayerGraph, check
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import LinkCodec, rates_of
from eejax.partition.two_tiers import check_chain, tier_pair
from eejax.tiers.topology import Topology

GOALS = ("latency", "worst_latency")
"""What Edgent holds to the deadline: the mean over the end devices, or the slowest of them."""


class ExitPlan(NamedTuple):
    """An exit and how to reach it.

    Attributes:
      exit: layer that gives the answer.
      accuracy: of its answers, as given.
      graph: the layers up to the exit, a chain.
      plan: its best cut.
    """

    exit: str
    accuracy: float
    graph: LayerGraph
    plan: Plan


def edgent(
    graph: LayerGraph,
    topology: Topology,
    objective: str = "latency",
    *,
    accuracy: Mapping[str, float],
    deadline_s: float,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> ExitPlan:
    """Takes the most accurate exit whose best cut meets a deadline.

    All samples leave at the one exit that is chosen ("right-sizing"), whatever they are.

    Args:
      graph: a model with exits; the layers that an exit needs must be a chain.
      topology: the system.
      objective: one of `GOALS`: what a cut is chosen by, and what must meet the deadline.
      accuracy: by name of the layer that gives its answer, the accuracy of each exit.
      deadline_s: most seconds from the sample to the answer.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way`` and ``reach``.

    Returns:
      The exit and its plan; of exits that are equally accurate the fastest. A plan that is not
      feasible is never taken.

    Raises:
      ValueError: what an exit needs is no chain (names the first tensor that branches), an argument
        is wrong, or no exit meets the deadline (tells the fastest).

    References:
      Li, Zhou and Chen, Edge Intelligence: On-Demand Deep Learning Model Co-Inference with
      Device-Edge Synergy, 2018 (algorithm 1).

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> flops = {"conv": 1e8, "early": 1e6, "deep": 2e10, "late": 1e6}
      >>> layers = tuple(Layer(name, f, 1e5, 400) for name, f in flops.items())
      >>> tensors = (Tensor("image", -1, (0,), 3e5), Tensor("features", 0, (1, 2), 3e4),
      ...            Tensor("code", 2, (3,), 98))
      >>> model = LayerGraph(layers, tensors, "layer")
      >>> exits = {"early": 0.8, "late": 0.9}
      >>> pair = ("end", "edge")
      >>> for deadline_s in (0.03, 0.5):
      ...     best = edgent(model, three_tier(), accuracy=exits, deadline_s=deadline_s, tiers=pair)
      ...     print(best.exit, best.plan.name)
      early all-end
      late end:conv | edge:deep+late
    """
    if objective not in GOALS:
        raise ValueError(f"edgent minimises {' or '.join(GOALS)}, got {objective!r}")
    for name in ("two_way", "reach"):
        if keywords.get(name) is not None and keywords[name] is not False:
            raise ValueError(f"edgent sends data up, and all samples to one exit: leave {name} out")
    if not accuracy:
        raise ValueError("accuracy must name at least one exit")
    if not deadline_s > 0:
        raise ValueError(f"deadline_s must be > 0, got {deadline_s}")
    low, high = tier_pair(topology, tiers)
    check(graph)
    found = []
    for name, value in accuracy.items():
        part, own = _up_to(graph, topology, name, keywords)
        check_chain(part, "edgent")
        run = pricer(rates_of(part, topology, **own))
        layers = len(part.layers)
        plans = [run([low] * cut + [high] * (layers - cut)) for cut in range(layers, -1, -1)]
        plans = [plan for plan in plans if plan.feasible]
        if plans:
            best = min(plans, key=lambda plan: judge(plan, objective))
            found.append((-value, judge(best, objective), ExitPlan(name, value, part, best)))
    if not found:
        raise ValueError("no exit has a feasible plan")
    met = [row for row in found if row[1] <= deadline_s]
    if not met:
        _, least, fastest = min(found, key=lambda row: row[1])
        raise ValueError(
            f"no exit meets deadline_s={deadline_s:g}; the fastest, {fastest.exit!r}, takes "
            f"{least:.4g} s"
        )
    return min(met, key=lambda row: row[:2])[2]


def _up_to(
    graph: LayerGraph, topology: Topology, exit_name: str, keywords: Mapping[str, Any]
) -> tuple[LayerGraph, dict[str, Any]]:
    """Takes the layers that an exit needs, and what the keywords say of them."""
    names = [layer.name for layer in graph.layers]
    if exit_name not in names:
        raise ValueError(f"accuracy: there is no layer {exit_name!r}{suggest(exit_name, names)}")
    needed = np.zeros(len(names), bool)
    needed[names.index(exit_name)] = True
    for i in range(len(names) - 1, -1, -1):
        if needed[i]:
            for tensor in graph.tensors:
                if i in tensor.consumers and tensor.producer >= 0:
                    needed[tensor.producer] = True
    new = np.cumsum(needed) - 1
    kept = [k for k, tensor in enumerate(graph.tensors) if any(needed[i] for i in tensor.consumers)]
    part = LayerGraph(
        tuple(layer for layer, keep in zip(graph.layers, needed) if keep),
        tuple(
            tensor._replace(
                producer=int(new[tensor.producer]) if tensor.producer >= 0 else -1,
                consumers=tuple(int(new[i]) for i in tensor.consumers if needed[i]),
            )
            for tensor in (graph.tensors[k] for k in kept)
        ),
        graph.granularity,
    )
    own = dict(keywords)
    if own.get("layer_seconds") is not None:
        shape = (len(names), len(topology.tiers))
        own["layer_seconds"] = np.broadcast_to(own["layer_seconds"], shape)[needed]
    if own.get("codecs"):
        shape = (len(graph.tensors), len(topology.tiers) - 1)
        own["codecs"] = [
            LinkCodec(
                codec.name,
                np.broadcast_to(codec.nbytes, shape[:1])[kept],
                np.broadcast_to(codec.seconds, shape)[kept],
            )
            for codec in own["codecs"]
        ]
    dropped = {name for name, keep in zip(names, needed) if not keep}
    own["forbidden"] = [(n, tier) for n, tier in own.get("forbidden", ()) if n not in dropped]
    return part, own
