"""What a topology charges for a graph: the numbers that pricing and every solver share."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest
from eejax.partition.graph import LayerGraph, check, reads
from eejax.tiers.cost import roofline, transfer_joules, transfer_seconds
from eejax.tiers.topology import Topology


class LinkCodec(NamedTuple):
    """A way to write tensors for one hop, such as one of those of `eejax.wire` as measured.

    Attributes:
      name: of the codec.
      nbytes: bytes of one sample of each tensor, ``[tensors]``; infinite where it cannot be used.
      seconds: encoding below a link and decoding above it, or the other way round, that broadcasts
        to ``[tensors, links]``.
    """

    name: str
    nbytes: Any
    seconds: Any = 0.0


class Rates(NamedTuple):
    """What each layer, message and byte costs at each node. Link ``k`` joins tiers ``k``, ``k+1``.

    Attributes:
      graph: the model.
      topology: the system.
      edges: tensor and consumer of each read, as from `graph.reads`.
      producer: layer that makes each tensor, -1 for the input, ``[tensors]``.
      reach: probability that a sample reaches each layer, ``[layers]``.
      leaves: probability that its answer is made there, ``[layers]``.
      answer_nbytes: bytes of an answer.
      ancestor: for each tier the node that serves each end device, ``[ends]``.
      layer_s: for each tier, seconds of the layers at its nodes, ``[layers, nodes]``.
      codecs: how tensors may be written; the first is the graph's own.
      up_s: for each link and codec, seconds of the tensors, ``[tensors, nodes]``.
      down_s: the same, down; empty when data go up only.
      answer_s: for each link, seconds of an answer on its way down, ``[nodes]``.
      up_j: for each link, joules of a byte up, ``[nodes]``.
      down_j: the same, down.
      setup_s: seconds to wake a link, once for each sample that uses it, ``[links]``.
      usd_per_s: money for a second of computing in each tier, ``[tiers]``.
      usd_per_byte: money for a byte over each link, ``[links]``.
      allowed: whether a layer may be in a tier, ``[layers, tiers]``.
    """

    graph: LayerGraph
    topology: Topology
    edges: tuple[np.ndarray, np.ndarray]
    producer: np.ndarray
    reach: np.ndarray
    leaves: np.ndarray
    answer_nbytes: float
    ancestor: list[np.ndarray]
    layer_s: list[np.ndarray]
    codecs: tuple[LinkCodec, ...]
    up_s: list[list[np.ndarray]]
    down_s: list[list[np.ndarray]]
    answer_s: list[np.ndarray]
    up_j: list[np.ndarray]
    down_j: list[np.ndarray]
    setup_s: np.ndarray
    usd_per_s: np.ndarray
    usd_per_byte: np.ndarray
    allowed: np.ndarray


def rates_of(
    graph: LayerGraph,
    topology: Topology,
    *,
    reach: Any = None,
    answer_nbytes: float = 4,
    layer_seconds: Any = None,
    codecs: Sequence[LinkCodec] = (),
    two_way: bool = False,
    setup_s: Any = 0.0,
    usd_per_hour: Any = 0.0,
    usd_per_gb: Any = 0.0,
    forbidden: Iterable[tuple[str, str | int]] = (),
) -> Rates:
    """Prepares what `price` and the solvers compute with; its keywords are theirs.

    Args:
      graph: the model.
      topology: the system, of one or more tiers.
      reach: probability that a sample reaches each layer, ``[layers]``: first 1, then never rising;
        1 everywhere if None.
      answer_nbytes: bytes of an answer on its way down.
      layer_seconds: measured or estimated seconds of each layer in each tier, ``[layers, tiers]``,
        the same for all nodes of a tier; those of `tiers.roofline` if None.
      codecs: other ways to write tensors than the graph's own, chosen for each tensor and hop.
      two_way: whether data may also go down, to layers in tiers below their producers.
      setup_s: seconds to wake each link, once for each sample that uses it, that broadcasts to
        ``[links]``: what a radio takes to leave its idle state.
      usd_per_hour: money for an hour of computing, that broadcasts to ``[tiers]``.
      usd_per_gb: money for 1e9 bytes over a link, that broadcasts to ``[links]``.
      forbidden: pairs of a layer's name and a tier in which it must not be.

    Returns:
      The rates.

    Raises:
      ValueError: the graph has a fault, or a keyword is out of range; names it.
    """
    check(graph)
    tiers, links = topology.tiers, len(topology.tiers) - 1
    layers, tensors = len(graph.layers), len(graph.tensors)
    reach = _checked_reach(reach, graph)
    if not answer_nbytes >= 0:
        raise ValueError(f"answer_nbytes must be >= 0, got {answer_nbytes}")
    flops, bytes_moved, _ = np.array([layer[1:] for layer in graph.layers], float).T
    if layer_seconds is None:
        if not (flops.any() or bytes_moved.any()):
            raise ValueError("the graph tells neither FLOP nor bytes moved; give layer_seconds")
        layer_s = [roofline(t.devices, flops[:, None], bytes_moved[:, None]) for t in tiers]
    else:
        given = _amounts("layer_seconds", layer_seconds, (layers, links + 1))
        layer_s = [given[:, [k]] for k in range(links + 1)]
    layer_s = [np.broadcast_to(s, (layers, t.nodes)) for s, t in zip(layer_s, tiers)]

    own = LinkCodec("graph", np.array([tensor.nbytes for tensor in graph.tensors], float))
    codecs = (own, *codecs)
    written = [
        (
            _amounts(f"codecs {c.name!r}: nbytes", c.nbytes, (tensors,), most=np.inf),
            _amounts(f"codecs {c.name!r}: seconds", c.seconds, (tensors, links)),
        )
        for c in codecs
    ]

    def message_s(way: str) -> list[list[np.ndarray]]:
        return [
            [_hop_seconds(t, n, s[:, [k]], way) for n, s in written]
            for k, t in enumerate(tiers[:-1])
        ]

    def by_node(fn: Any, way: str) -> list[np.ndarray]:
        amount = 1.0 if fn is transfer_joules else answer_nbytes
        return [np.broadcast_to(fn(t.links, amount, way), (t.nodes,)) for t in tiers[:-1]]

    allowed = np.ones((layers, links + 1), bool)
    index = {layer.name: i for i, layer in enumerate(graph.layers)}
    for name, tier in forbidden:
        if name not in index:
            raise ValueError(f"forbidden: there is no layer {name!r}{suggest(name, index)}")
        allowed[index[name], topology.tier_index(tier)] = False
    return Rates(
        graph,
        topology,
        reads(graph),
        np.array([tensor.producer for tensor in graph.tensors], int),
        reach,
        reach - np.append(reach[1:], 0),
        answer_nbytes,
        [topology.ancestor(k) for k in range(links + 1)],
        layer_s,
        codecs,
        message_s("up"),
        message_s("down") if two_way else [],
        by_node(transfer_seconds, "down"),
        by_node(transfer_joules, "up"),
        by_node(transfer_joules, "down"),
        _amounts("setup_s", setup_s, (links,)),
        _amounts("usd_per_hour", usd_per_hour, (links + 1,)) / 3600,
        _amounts("usd_per_gb", usd_per_gb, (links,)) / 1e9,
        allowed,
    )


def codec_bytes(rates: Rates, choice: np.ndarray) -> np.ndarray:
    """Looks up the bytes of tensors written by the chosen codecs.

    Args:
      rates: from `rates_of`.
      choice: index of the codec, ``[tensors, links]``.

    Returns:
      Bytes ``[tensors, links]``.
    """
    table = np.array([np.broadcast_to(c.nbytes, len(choice)) for c in rates.codecs], float)
    return table[choice, np.arange(len(choice))[:, None]]


def _hop_seconds(tier: Any, nbytes: np.ndarray, seconds: np.ndarray, way: str) -> np.ndarray:
    usable = np.isfinite(nbytes)
    sent = transfer_seconds(tier.links, np.where(usable, nbytes, 0)[:, None], way)
    sent = np.where(usable[:, None], sent + seconds, np.inf)
    return np.broadcast_to(sent, (len(nbytes), tier.nodes))


def _amounts(
    field: str, value: Any, shape: tuple[int, ...], most: float = np.finfo(float).max
) -> np.ndarray:
    array = np.asarray(value, float)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{field} must be of shape {shape}, got {array.shape}") from None
    if not ((array >= 0) & (array <= most)).all():  # False for NaN, too.
        raise ValueError(f"{field} must be finite and >= 0 everywhere")
    return array


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
