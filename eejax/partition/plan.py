"""What a placement of layers on tiers costs: one sample, modelled, for all end devices at once."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest
from eejax.partition.graph import LayerGraph, check
from eejax.tiers.cost import compute_joules, roofline, transfer_joules, transfer_seconds
from eejax.tiers.topology import Topology

Assignment = Sequence[int | str]
"""For each layer the tier that runs it, by index (0 is the lowest) or by name."""


class Plan(NamedTuple):
    """A placement and its modelled cost for one sample; nothing here is measured.

    Costs are expected values over samples that leave early or late. Link ``l`` joins the tiers
    ``l`` and ``l + 1``.

    Attributes:
      name: ``"all-edge"`` and the like, or which tier runs which layers.
      assignment: tier index of each layer.
      latency_s: seconds from the sample to its answer at each end device, ``[ends]``.
      energy_j: joules by tier, ``[ends, tiers]``; a link's belong to the tier below it.
      link_bytes: expected bytes by ``(source tier, target tier)``, for every link both ways.
      parts: the breakdown: ``"compute_s"`` ``[ends, tiers]`` and ``"transfer_s"``
        ``[ends, links]``, whose sum is the latency; ``"compute_j"`` ``[ends, tiers]``, ``"idle_j"``
        ``[ends]`` and ``"link_j"`` ``[ends, links]``, whose sum is the energy.
      feasible: whether the parameters of each tier fit the memory of its nodes.
      why: the tier and the node that they do not fit; empty when feasible.
    """

    name: str
    assignment: tuple[int, ...]
    latency_s: np.ndarray
    energy_j: np.ndarray
    link_bytes: dict[tuple[str, str], float]
    parts: dict[str, np.ndarray]
    feasible: bool
    why: str


def price(
    graph: LayerGraph,
    topology: Topology,
    assignment: Assignment,
    *,
    reach: Any = None,
    answer_nbytes: float = 4,
    name: str | None = None,
) -> Plan:
    """Models what one sample costs under a placement.

    The model:

    - Each end device takes its own path end -> edge -> ... up to the top tier, and has it for
      itself: no queues, and no sharing of links or servers.
    - Layers and transfers follow each other; nothing overlaps. A layer is one program and takes
      `tiers.roofline`. A tensor is one message on each link and takes `tiers.transfer_seconds`,
      one link after the other.
    - A sample reaches layer ``i`` with probability ``reach[i]``. Who reaches a layer has run all
      layers before it, so a tensor crosses a link with the largest ``reach`` of its consumers
      beyond, once however many they are.
    - The raw input lies on the end device. The answer comes back down to it from the tier of the
      layer after which the sample leaves: after layer ``i`` with probability
      ``reach[i] - reach[i + 1]``, after the last with ``reach[-1]``.
    - Data go up only: no layer runs below one that it reads from.
    - A node that computes draws ``busy_w``. The end device draws ``idle_w`` for all of the latency
      in which it does not compute. Nodes above serve others meanwhile: their rest is not charged.
    - The energy of a link, both ways, is added to the tier below it. What it covers is up to its
      ``source``: in the presets, the radio of an end device or all equipment of a wired network.
    - A plan is feasible when the parameters of a tier's layers fit the smallest node that serves an
      end device. Activations are not counted.

    Args:
      graph: the model.
      topology: the system, of one or more tiers.
      assignment: tier of each layer.
      reach: probability that a sample reaches each layer, ``[layers]``: first 1, then never rising;
        1 everywhere if None.
      answer_nbytes: bytes of an answer on its way down.
      name: of the plan; made from the assignment if None.

    Returns:
      The priced plan.

    Raises:
      ValueError: the graph has a fault, an argument is out of range, or data would go down.

    References:
      Kang et al., Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge, 2017.

    Example:
      >>> from eejax.partition import Layer, LayerGraph, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e8, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 784), Tensor("features", 0, (1,), 1568))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> plan = price(graph, three_tier(ends=5), ["end", "edge"], reach=[1, 0.25])
      >>> plan.name, plan.latency_s.shape, plan.link_bytes["end", "edge"]
      ('end:conv | edge:dense', (5,), 392.0)
    """
    return pricer(graph, topology, reach=reach, answer_nbytes=answer_nbytes)(assignment, name)


def pricer(
    graph: LayerGraph, topology: Topology, *, reach: Any = None, answer_nbytes: float = 4
) -> Callable[..., Plan]:
    """Prepares `price` for many placements of one graph.

    Args:
      graph: as for `price`.
      topology: as for `price`.
      reach: as for `price`.
      answer_nbytes: as for `price`.

    Returns:
      ``(assignment, name=None) -> Plan``.

    Raises:
      ValueError: as for `price`, here or when called.
    """
    layers, tensors, _ = check(graph)
    tiers, names = topology.tiers, topology.names
    top = len(tiers) - 1
    reach = _checked_reach(reach, graph)
    leaves = reach - np.append(reach[1:], 0)
    if not answer_nbytes >= 0:
        raise ValueError(f"answer_nbytes must be >= 0, got {answer_nbytes}")

    flops, bytes_moved, parameter_bytes = np.array([layer[1:] for layer in layers], float).T
    producer = np.array([tensor.producer for tensor in tensors])
    nbytes = np.array([tensor.nbytes for tensor in tensors], float)
    reads = np.zeros((len(tensors), len(layers)))
    for row, tensor in zip(reads, tensors):
        row[list(tensor.consumers)] = reach[list(tensor.consumers)]

    # Costs by node, [layers or tensors, nodes]; ancestor turns nodes into [ends].
    ancestor = [topology.ancestor(k) for k in range(len(tiers))]
    layer_s = [roofline(t.devices, flops[:, None], bytes_moved[:, None]) for t in tiers]
    up_s = [transfer_seconds(t.links, nbytes[:, None], "up") for t in tiers[:-1]]
    down_s = [transfer_seconds(t.links, answer_nbytes, "down") for t in tiers[:-1]]

    def by_end(columns: list[np.ndarray]) -> np.ndarray:
        ends = [column[index] for column, index in zip(columns, ancestor)]
        return np.stack(ends, 1) if ends else np.zeros((tiers[0].nodes, 0))

    def priced(assignment: Assignment, name: str | None = None) -> Plan:
        tier = _checked_assignment(assignment, graph, topology)
        source = np.where(producer < 0, 0, tier[producer])
        # Probability that each tensor, and the answer, crosses each link.
        sent = [(reads * (tier > k)).max(1) * (source <= k) for k in range(top)]
        returned = [leaves @ (tier > k) for k in range(top)]
        up_bytes = [float(p @ nbytes) for p in sent]
        down_bytes = [float(p * answer_nbytes) for p in returned]

        seconds = [(reach * (tier == k)) @ layer_s[k] for k in range(top + 1)]
        compute_s = by_end(seconds)
        transfer_s = by_end([sent[k] @ up_s[k] + returned[k] * down_s[k] for k in range(top)])
        compute_j = by_end([compute_joules(t.devices, s) for t, s in zip(tiers, seconds)])
        waiting_s = compute_s[:, 1:].sum(1) + transfer_s.sum(1)
        idle_j = compute_joules(tiers[0].devices, waiting_s, utilisation=0)
        up_j = [transfer_joules(t.links, b, "up") for t, b in zip(tiers, up_bytes)]
        down_j = [transfer_joules(t.links, b, "down") for t, b in zip(tiers, down_bytes)]
        link_j = by_end(up_j) + by_end(down_j)
        energy_j = compute_j.copy()
        energy_j[:, :-1] += link_j
        energy_j[:, 0] += idle_j
        held = [parameter_bytes[tier == k].sum() for k in range(top + 1)]
        why = "; ".join(filter(None, map(_lack, tiers, ancestor, held)))
        link_bytes = {}
        for k, pair in enumerate(pairwise(names)):
            link_bytes[pair], link_bytes[pair[::-1]] = up_bytes[k], down_bytes[k]
        parts = {"compute_s": compute_s, "transfer_s": transfer_s}
        parts |= {"compute_j": compute_j, "idle_j": idle_j, "link_j": link_j}
        return Plan(
            name=_describe(tier, graph, names) if name is None else name,
            assignment=tuple(tier.tolist()),
            latency_s=compute_s.sum(1) + transfer_s.sum(1),
            energy_j=energy_j,
            link_bytes=link_bytes,
            parts=parts,
            feasible=not why,
            why=why,
        )

    return priced


OBJECTIVES: Mapping[str, Callable[[Plan], float]] = MappingProxyType(
    {
        "latency": lambda plan: float(plan.latency_s.mean()),
        "worst_latency": lambda plan: float(plan.latency_s.max()),
        "energy": lambda plan: float(plan.energy_j.sum(1).mean()),
        "end_energy": lambda plan: float(plan.energy_j[:, 0].mean()),
        "bytes": lambda plan: float(sum(plan.link_bytes.values())),
    }
)
"""What a plan can be judged by, all for one sample and the less the better: mean and largest
latency over the end devices in seconds, mean energy of all tiers and of the end device alone in
joules, and bytes over all links both ways."""


def objective(plan: Plan, name: str) -> float:
    """Judges a plan.

    Args:
      plan: a priced plan.
      name: one of `OBJECTIVES`.

    Returns:
      Seconds, joules or bytes of one sample; less is better.

    Raises:
      ValueError: the name is unknown; tells the nearest one.
    """
    if name not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise ValueError(f"objective {name!r} is none of {known}{suggest(name, OBJECTIVES)}")
    return OBJECTIVES[name](plan)


def summary(plan: Plan) -> dict[str, float]:
    """Judges a plan by all of `OBJECTIVES`.

    Args:
      plan: a priced plan.

    Returns:
      Modelled seconds, joules and bytes of one sample, by the name of the objective.
    """
    return {name: judge(plan) for name, judge in OBJECTIVES.items()}


def _checked_reach(reach: Any, graph: LayerGraph) -> np.ndarray:
    count = len(graph.layers)
    reach = np.ones(count) if reach is None else np.asarray(reach, np.float64)
    if reach.shape != (count,):
        raise ValueError(f"reach must be {count} probabilities [layers], got shape {reach.shape}")
    if reach[0] != 1:
        raise ValueError(f"reach[0] must be 1: all samples reach the first layer; got {reach[0]}")
    wrong = ~((reach >= 0) & (np.diff(reach, prepend=1) <= 0))  # True for NaN, too.
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"reach[{i}] must be in [0, reach[{i - 1}]], got {reach[i]}")
    return reach


def _checked_assignment(
    assignment: Assignment, graph: LayerGraph, topology: Topology
) -> np.ndarray:
    if len(assignment) != len(graph.layers):
        raise ValueError(f"assignment must name {len(graph.layers)} tiers, got {len(assignment)}")
    tier = np.array([topology.tier_index(t) for t in assignment])
    for tensor in graph.tensors:
        for consumer in tensor.consumers:
            if tensor.producer >= 0 and tier[consumer] < tier[tensor.producer]:
                raise ValueError(
                    f"assignment puts {graph.layers[consumer].name!r} on "
                    f"{topology.names[tier[consumer]]!r}, below "
                    f"{topology.names[tier[tensor.producer]]!r} where what it reads is made; data "
                    "go up only"
                )
    return tier


def _lack(tier: Any, ancestor: np.ndarray, nbytes: float) -> str:
    memory = tier.devices.memory_bytes[ancestor]
    if nbytes <= memory.min():
        return ""
    node = int(ancestor[memory.argmin()])
    return (
        f"{tier.name}: {nbytes:,.0f} bytes of parameters do not fit the {memory.min():,.0f} bytes "
        f"of node {node} ({tier.devices.name[node]})"
    )


def _describe(tier: np.ndarray, graph: LayerGraph, names: Sequence[str]) -> str:
    if (tier == tier[0]).all():
        return f"all-{names[tier[0]]}"

    def layers(k: int) -> str:
        # Neighbours have the same difference of index and rank.
        ranked = enumerate(np.flatnonzero(tier == k))
        runs = [[i for _, i in run] for _, run in groupby(ranked, lambda pair: pair[1] - pair[0])]
        name = [layer.name for layer in graph.layers]
        return "+".join(
            f"{name[run[0]]}..{name[run[-1]]}" if len(run) > 2 else "+".join(name[i] for i in run)
            for run in runs
        )

    return " | ".join(f"{names[k]}:{layers(k)}" for k in sorted(set(tier.tolist())))
