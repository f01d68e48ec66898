"""What a placement of layers on tiers costs: one sample, modelled, for all end devices at once."""

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.graph import LayerGraph
from eejax.partition.rates import Rates, codec_bytes, rates_of
from eejax.tiers.cost import compute_joules
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
      money_usd: US dollars for computing and traffic, ``[ends]``.
      link_bytes: expected bytes by ``(source tier, target tier)``, for every link both ways.
      codecs: by link, from below, the codec of each tensor that crosses it; empty when there was
        no choice.
      parts: the breakdown: ``"compute_s"`` ``[ends, tiers]`` and ``"transfer_s"``
        ``[ends, links]``, whose sum is the latency; ``"compute_j"`` ``[ends, tiers]``, ``"idle_j"``
        ``[ends]`` and ``"link_j"`` ``[ends, links]``, whose sum is the energy.
      feasible: whether the parameters of each tier fit the memory of its nodes, and every layer is
        where it may be.
      why: what does not fit where; empty when feasible.
    """

    name: str
    assignment: tuple[int, ...]
    latency_s: np.ndarray
    energy_j: np.ndarray
    money_usd: np.ndarray
    link_bytes: dict[tuple[str, str], float]
    codecs: dict[tuple[str, str], dict[str, str]]
    parts: dict[str, np.ndarray]
    feasible: bool
    why: str


def price(
    graph: LayerGraph,
    topology: Topology,
    assignment: Assignment,
    *,
    name: str | None = None,
    choice: Any = None,
    **keywords: Any,
) -> Plan:
    """Models what one sample costs under a placement.

    The model:

    - Each end device takes its own path end -> edge -> ... up to the top tier, and has it for
      itself: no queues, and no sharing of links or servers.
    - Layers and transfers follow each other; nothing overlaps. A layer is one program and takes
      `tiers.roofline`, or what ``layer_seconds`` says. A tensor is one message on each link and
      takes `tiers.transfer_seconds`, one link after the other.
    - A sample reaches layer ``i`` with probability ``reach[i]``. Who reaches a layer has run all
      layers before it, so a tensor crosses a link with the largest ``reach`` of its consumers
      beyond, once however many they are.
    - The raw input lies on the end device. The answer comes back down to it from the tier of the
      layer after which the sample leaves: after layer ``i`` with probability
      ``reach[i] - reach[i + 1]``, after the last with ``reach[-1]``.
    - Data go up only, unless ``two_way``: no layer runs below one that it reads from.
    - A node that computes draws ``busy_w``. The end device draws ``idle_w`` for all of the latency
      in which it does not compute. Nodes above serve others meanwhile: their rest is not charged.
    - The energy of a link, both ways, is added to the tier below it. What it covers is up to its
      ``source``: in the presets, the radio of an end device or all equipment of a wired network.
    - A plan is feasible when the parameters of a tier's layers fit the smallest node that serves an
      end device, and no layer is where it is forbidden. Activations are not counted.

    Args:
      graph: the model.
      topology: the system, of one or more tiers.
      assignment: tier of each layer.
      name: of the plan; made from the assignment if None.
      choice: index of the codec of each tensor on each link, ``[tensors, links]``, 0 the graph's
        own; the fastest on average if None.
      **keywords: as for `rates_of`.

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
    return pricer(rates_of(graph, topology, **keywords), choice)(assignment, name)


def pricer(rates: Rates, choice: Any = None) -> Callable[..., Plan]:
    """Prepares `price` for many placements of one graph.

    Args:
      rates: from `rates_of`.
      choice: as for `price`.

    Returns:
      ``(assignment, name=None) -> Plan``.

    Raises:
      ValueError: when called, as `price`.
    """
    graph, topology = rates.graph, rates.topology
    tiers, names = topology.tiers, topology.names
    top, ancestor, reach = len(tiers) - 1, rates.ancestor, rates.reach
    choice = fastest_codecs(rates) if choice is None else np.asarray(choice)
    nbytes = codec_bytes(rates, choice)
    up_s, down_s = (_chosen(seconds, choice) for seconds in (rates.up_s, rates.down_s))
    parameter_bytes = np.array([layer.parameter_bytes for layer in graph.layers], float)

    def by_end(columns: list[np.ndarray]) -> np.ndarray:
        ends = [column[index] for column, index in zip(columns, ancestor)]
        return np.stack(ends, 1) if ends else np.zeros((tiers[0].nodes, 0))

    def priced(assignment: Assignment, name: str | None = None) -> Plan:
        tier = _checked_assignment(assignment, rates)
        up, down = crossings(rates, tier)
        # Probability that the answer, or anything at all, crosses each link.
        returned = [rates.leaves @ (tier > k) for k in range(top)]
        used = [(reach * (tier > k)).max() for k in range(top)]
        up_bytes = [float(up[k] @ nbytes[:, k]) for k in range(top)]
        down_bytes = [
            float(down[k] @ nbytes[:, k] + returned[k] * rates.answer_nbytes) for k in range(top)
        ]

        seconds = [(reach * (tier == k)) @ rates.layer_s[k] for k in range(top + 1)]
        moving = [
            _expected(up[k], up_s[k])
            + (_expected(down[k], down_s[k]) if down_s else 0)
            + returned[k] * rates.answer_s[k]
            + used[k] * rates.setup_s[k]
            for k in range(top)
        ]
        compute_s, transfer_s = by_end(seconds), by_end(moving)
        compute_j = by_end([compute_joules(t.devices, s) for t, s in zip(tiers, seconds)])
        waiting_s = compute_s[:, 1:].sum(1) + transfer_s.sum(1)
        idle_j = compute_joules(tiers[0].devices, waiting_s, utilisation=0)
        link_j = by_end(
            [b * j + c * i for b, j, c, i in zip(up_bytes, rates.up_j, down_bytes, rates.down_j)]
        )
        energy_j = compute_j.copy()
        energy_j[:, :-1] += link_j
        energy_j[:, 0] += idle_j
        link_usd = (np.add(up_bytes, down_bytes) * rates.usd_per_byte).sum()
        held = [parameter_bytes[tier == k].sum() for k in range(top + 1)]
        why = "; ".join(filter(None, (*map(_lack, tiers, ancestor, held), _misplaced(rates, tier))))
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
            money_usd=compute_s @ rates.usd_per_s + link_usd,
            link_bytes=link_bytes,
            codecs=_codecs_used(rates, choice, up, down),
            parts=parts,
            feasible=not why,
            why=why,
        )

    return priced


def crossings(rates: Rates, tier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tells with which probability each tensor crosses each link.

    Args:
      rates: from `rates_of`.
      tier: tier of each layer.

    Returns:
      Probabilities up and down, each ``[links, tensors]``.
    """
    tensor, consumer = rates.edges
    source = np.where(rates.producer < 0, 0, tier[rates.producer])
    links = len(rates.topology.tiers) - 1
    ways = np.zeros((2, links, len(source)))
    for k in range(links):
        beyond = tier[consumer] > k
        for way, mask in zip(
            ways, (beyond & (source[tensor] <= k), ~beyond & (source[tensor] > k))
        ):
            np.maximum.at(way[k], tensor, rates.reach[consumer] * mask)
    return ways[0], ways[1]


def fastest_codecs(rates: Rates) -> np.ndarray:
    """Picks for each tensor and hop the codec that is fastest on average, ``[tensors, links]``."""
    if len(rates.codecs) == 1:
        return np.zeros((len(rates.producer), len(rates.up_s)), int)
    weight = [
        np.bincount(a, minlength=t.nodes) for a, t in zip(rates.ancestor, rates.topology.tiers)
    ]
    # A codec that cannot be used anywhere is never the fastest, also where no end device is.
    mean = [
        [
            np.where(np.isfinite(s).all(1), np.where(np.isfinite(s), s, 0) @ w, np.inf)
            for s in seconds
        ]
        for seconds, w in zip(rates.up_s, weight)
    ]
    return np.array(mean).argmin(1).T


def _chosen(seconds: list[list[np.ndarray]], choice: np.ndarray) -> list[np.ndarray]:
    rows = np.arange(len(choice))
    return [
        hop[0] if len(hop) == 1 else np.array(hop)[choice[:, k], rows]
        for k, hop in enumerate(seconds)
    ]


def _expected(probability: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    sent = probability > 0  # A codec that cannot write what is not sent costs nothing.
    return probability[sent] @ seconds[sent]


def _checked_assignment(assignment: Assignment, rates: Rates) -> np.ndarray:
    graph, topology = rates.graph, rates.topology
    if len(assignment) != len(graph.layers):
        raise ValueError(f"assignment must name {len(graph.layers)} tiers, got {len(assignment)}")
    tier = np.array([topology.tier_index(t) for t in assignment])
    tensor, consumer = rates.edges
    producer = rates.producer[tensor]
    below = (producer >= 0) & (tier[consumer] < tier[producer])
    if below.any() and not rates.down_s:
        i = below.argmax()
        raise ValueError(
            f"assignment puts {graph.layers[consumer[i]].name!r} on "
            f"{topology.names[tier[consumer[i]]]!r}, below "
            f"{topology.names[tier[producer[i]]]!r} where what it reads is made; data go up only"
        )
    return tier


def _misplaced(rates: Rates, tier: np.ndarray) -> str:
    wrong = np.flatnonzero(~rates.allowed[np.arange(len(tier)), tier])
    if not len(wrong):
        return ""
    i = wrong[0]
    return f"{rates.graph.layers[i].name} is forbidden on {rates.topology.names[tier[i]]}"


def _codecs_used(
    rates: Rates, choice: np.ndarray, up: np.ndarray, down: np.ndarray
) -> dict[tuple[str, str], dict[str, str]]:
    if len(rates.codecs) == 1:
        return {}
    names, tensors = rates.topology.names, rates.graph.tensors
    return {
        pair: {
            tensors[t].name: rates.codecs[choice[t, k]].name
            for t in np.flatnonzero(up[k] + down[k])
        }
        for k, pair in enumerate(pairwise(names))
    }


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
