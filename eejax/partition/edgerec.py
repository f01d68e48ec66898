"""EdgeRec: embeddings stay in the cloud, and what computes with them runs on the end device."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest
from eejax.partition.costs import tabulate
from eejax.partition.graph import LayerGraph
from eejax.partition.objective import Objective
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import rates_of
from eejax.partition.two_tiers import tier_pair
from eejax.tiers.topology import Topology

BYTES_PER_FLOP = 32.0
"""A layer with more bytes of parameters for each FLOP counts as an embedding. A dense layer reads
each float32 weight once for a product and a sum, 2 bytes for each FLOP; a convolution has fewer. A
look-up reads a few rows of a large table and computes nothing."""


class EmbeddingPlan(NamedTuple):
    """A placement of embeddings and what else could be done.

    Attributes:
      plan: embeddings above, all other layers below.
      embeddings: names of the layers that stay above.
      alternatives: all layers below and all above, the better one first, what does not fit last.
    """

    plan: Plan
    embeddings: tuple[str, ...]
    alternatives: tuple[Plan, Plan]


def edgerec(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    embeddings: Iterable[str] | None = None,
    bytes_per_flop: float = BYTES_PER_FLOP,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> EmbeddingPlan:
    """Places the embeddings on the higher tier and everything else on the lower one.

    A table of embeddings fills the memory of a phone but takes no computing, so it stays in the
    cloud, which sends the rows that a sample needs down. This is a rule, not a search: what makes
    it pay is the memory of the end device, where the whole model does not fit, and the answers that
    need no server. The identifiers are sent up and the rows down for each sample, one after the
    other: a plan for one sample is often slower than with all layers above, which the alternatives
    show. The abstract of the paper was read; the placement is that of the survey's account of it.
    Sending rows ahead of time, as a recommender that ranks pages of items can, is not priced.

    Args:
      graph: the model.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several: what codecs are chosen by, and the
        alternatives ordered.
      embeddings: names of the layers that stay above; those that ``bytes_per_flop`` tells if None.
      bytes_per_flop: least bytes of parameters for each FLOP of an embedding, exclusive.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`; ``two_way`` is always True.

    Returns:
      The plan, not feasible where its parameters do not fit, and the alternatives.

    Raises:
      ValueError: there are no embeddings, a name is unknown (tells the nearest one), or an argument
        is wrong.

    References:
      Gong et al., EdgeRec: Recommender System on Edge in Mobile Taobao, 2020.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("table", 0, 3e3, 8_000_000_000), Layer("rank", 2e6, 4e6, 4_000_000))
      >>> tensors = (Tensor("ids", -1, (0,), 200), Tensor("rows", 0, (1,), 3200))
      >>> found = edgerec(LayerGraph(layers, tensors, "layer"), three_tier())
      >>> found.embeddings, found.plan.name, found.plan.feasible
      (('table',), 'end:rank | cloud:table', True)
      >>> [(plan.name, plan.feasible) for plan in found.alternatives]
      [('all-cloud', True), ('all-end', False)]
    """
    if not keywords.pop("two_way", True):
        raise ValueError("edgerec sends embeddings down: two_way cannot be False")
    low, high = tier_pair(topology, tiers)
    rates = rates_of(graph, topology, two_way=True, **keywords)
    above = (
        _named(graph, embeddings) if embeddings is not None else _detected(graph, bytes_per_flop)
    )
    run = pricer(rates, tabulate(rates, objective).choice)
    layers = len(graph.layers)
    plan = run(np.where(above, high, low))
    others = [run([k] * layers) for k in (low, high)]
    others.sort(key=lambda other: (not other.feasible, judge(other, objective)))
    names = tuple(layer.name for layer, up in zip(graph.layers, above) if up)
    return EmbeddingPlan(plan, names, tuple(others))


def _named(graph: LayerGraph, embeddings: Iterable[str]) -> np.ndarray:
    names = [layer.name for layer in graph.layers]
    chosen = [embeddings] if isinstance(embeddings, str) else list(embeddings)
    for name in chosen:
        if name not in names:
            raise ValueError(f"embeddings: there is no layer {name!r}{suggest(name, names)}")
    if not chosen:
        raise ValueError("embeddings must name at least one layer")
    return np.isin(names, chosen)


def _detected(graph: LayerGraph, bytes_per_flop: float) -> np.ndarray:
    if not bytes_per_flop > 0:
        raise ValueError(f"bytes_per_flop must be > 0, got {bytes_per_flop}")
    above = np.array([row.parameter_bytes > bytes_per_flop * row.flops for row in graph.layers])
    if not above.any():
        raise ValueError(
            f"no layer has more than {bytes_per_flop:g} bytes of parameters for each FLOP; name "
            "the embeddings, or lower bytes_per_flop"
        )
    return above
