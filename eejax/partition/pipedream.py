"""PipeDream's partition: the fastest pipeline, its slowest stage as fast as can be."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax.partition.graph import LayerGraph
from eejax.partition.plan import Plan, fastest_codecs, pricer
from eejax.partition.rates import rates_of
from eejax.tiers.topology import Topology


class PipelineStage(NamedTuple):
    """A run of layers on one or several machines.

    Attributes:
      start: its first layer.
      stop: the layer after its last.
      replicas: machines that share its mini-batches.
    """

    start: int
    stop: int
    replicas: int


def pipedream(
    graph: LayerGraph,
    topology: Topology,
    objective: str = "pipeline",
    *,
    replicas: Sequence[int] | None = None,
    **keywords: Any,
) -> Plan:
    """Finds the cuts with the shortest period among all that keep layers in their order.

    Dynamic programming over the layers in the order in which they run: tier ``k`` takes a run of
    them, possibly none, and all tensors that are alive at a cut cross the link. Time and memory
    grow with the square of the number of layers. Each tier computes at its own speed, as the mean
    over the end devices says; the period is that of `period` for equal end devices.

    Args:
      graph: the model.
      topology: the system.
      objective: ``"pipeline"``; there is no other.
      replicas: nodes of each tier that take samples in turn, ``[tiers]``; 1 each if None. The plan
        is priced for one: with replicas, divide ``parts["compute_s"]`` by them.
      **keywords: as for `rates_of`; not ``two_way``.

    Returns:
      The plan.

    Raises:
      ValueError: an argument is wrong, or every placement is forbidden.

    References:
      Narayanan et al., PipeDream: Generalized Pipeline Parallelism for DNN Training, 2019.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = tuple(Layer(f"l{i}", 1e11, 0, 10) for i in range(40))
      >>> tensors = tuple(Tensor(f"t{i}", i - 1, (i,), 1000) for i in range(40))
      >>> plan = pipedream(LayerGraph(layers, tensors, "layer"), three_tier())
      >>> [plan.assignment.count(k) for k in range(3)]
      [0, 5, 35]
    """
    if objective != "pipeline":
        raise ValueError(f"objective of pipedream must be 'pipeline', got {objective!r}")
    if keywords.get("two_way"):
        raise ValueError("two_way must be False: in a pipeline data go up only")
    rates = rates_of(graph, topology, **keywords)
    tiers = topology.tiers
    replicas = [1] * len(tiers) if replicas is None else list(replicas)
    if len(replicas) != len(tiers) or min(replicas) < 1:
        raise ValueError(f"replicas must be {len(tiers)} numbers of at least 1, got {replicas}")
    choice = fastest_codecs(rates)
    share = [np.bincount(a, minlength=t.nodes) for a, t in zip(rates.ancestor, tiers)]
    share = [s / s.sum() for s in share]
    layers = len(graph.layers)
    # Seconds of the layers before each cut, in each tier; infinite ones count apart.
    spent = np.zeros((len(tiers), layers + 1))
    banned = np.zeros((len(tiers), layers + 1))
    for k in range(len(tiers)):
        seconds = rates.layer_s[k] @ share[k] * rates.reach / replicas[k]
        spent[k, 1:] = np.cumsum(seconds)
        banned[k, 1:] = np.cumsum(~rates.allowed[:, k])
    moving = np.stack(
        [_crossing(rates, choice, k, share[k]) for k in range(len(tiers) - 1)]
        or [np.zeros((0, layers + 1))]
    ).reshape(-1, layers + 1)

    # best[j]: the shortest period of the layers before j on the tiers so far.
    best = np.where(banned[0] > 0, np.inf, spent[0])
    back = []
    for k in range(1, len(tiers)):
        before = np.maximum(best, moving[k - 1])[:, None]
        here = spent[k][None] - spent[k][:, None]
        here = np.where(banned[k][None] > banned[k][:, None], np.inf, here)
        ways = np.where(np.tri(layers + 1).T > 0, np.maximum(before, here), np.inf)
        back.append(ways.argmin(0))
        best = ways.min(0)
    if not np.isfinite(best[-1]):
        raise ValueError("every placement is forbidden")
    stop, tier = layers, np.zeros(layers, int)
    for k in range(len(tiers) - 1, 0, -1):
        start = back[k - 1][stop]
        tier[start:stop] = k
        stop = start
    return pricer(rates, choice)(tier)


def replicate(
    seconds: Sequence[float],
    activation_nbytes: Sequence[float],
    parameter_nbytes: Sequence[float],
    machines: int,
    bytes_per_s: float,
) -> tuple[float, list[PipelineStage]]:
    """Divides a chain over equal machines, with stages that several of them share, as published.

    A stage on ``m`` machines takes ``max(sum of seconds, 2 (m - 1) bytes of parameters / (m B)) /
    m``: it computes mini-batches in turn and sums its gradients. A cut sends the activations up and
    their gradients down, ``2 bytes / B``.

    Args:
      seconds: of forward and backward of each layer, ``[layers]``.
      activation_nbytes: output of each layer, ``[layers]``.
      parameter_nbytes: of each layer, ``[layers]``.
      machines: how many there are; some may stay idle.
      bytes_per_s: bandwidth ``B`` between two machines.

    Returns:
      Seconds between two mini-batches, and the stages.

    Raises:
      ValueError: lengths differ, or a number is out of range.

    Example:
      >>> replicate([1.0, 1.0, 2.5], [8, 8, 8], [8, 8, 8], machines=3, bytes_per_s=1e9)[1]
      [PipelineStage(start=0, stop=3, replicas=3)]
      >>> replicate([1.0, 1.0, 2.5], [8, 8, 8], [1e10, 1e10, 8], machines=3, bytes_per_s=1e9)[1]
      [PipelineStage(start=0, stop=2, replicas=1), PipelineStage(start=2, stop=3, replicas=2)]
    """
    n = len(seconds)
    if not n == len(activation_nbytes) == len(parameter_nbytes) or not n:
        raise ValueError("seconds, activation_nbytes and parameter_nbytes must have a layer each")
    if machines < 1 or not bytes_per_s > 0:
        raise ValueError("machines must be at least 1 and bytes_per_s above 0")
    spent = np.cumsum([0.0, *seconds])
    held = np.cumsum([0.0, *parameter_nbytes])
    cut = np.array([0.0, *activation_nbytes]) * 2 / bytes_per_s
    compute, synchronise = (x[None] - x[:, None] for x in (spent, held))  # Of layers i to j - 1.

    def stage(m: int) -> np.ndarray:
        return np.maximum(compute, 2 * (m - 1) / m * synchronise / bytes_per_s) / m

    one = [stage(m) for m in range(1, machines + 1)]
    best = np.full((n + 1, machines + 1), np.inf)
    best[0] = 0.0
    back: dict[tuple[int, int], tuple[int, int]] = {}
    for j in range(1, n + 1):
        for m in range(1, machines + 1):
            for own in range(1, m + 1):
                ways = np.maximum(best[:j, m - own], one[own - 1][:j, j])
                ways[1:] = np.maximum(ways[1:], cut[1:j])
                i = int(ways.argmin())
                if ways[i] < best[j, m]:
                    best[j, m], back[j, m] = ways[i], (i, own)
    stages, j, m = [], n, int(best[n].argmin())
    fastest = float(best[n, m])
    while j:
        i, own = back[j, m]
        stages.append(PipelineStage(i, j, own))
        j, m = i, m - own
    return fastest, stages[::-1]


def _crossing(rates: Any, choice: np.ndarray, k: int, share: np.ndarray) -> np.ndarray:
    """Sums the seconds on a link when its cut is before each layer, ``[layers + 1]``."""
    layers = len(rates.reach)
    tensor, consumer = rates.edges
    seconds = np.array([s @ share for s in rates.up_s[k]])[choice[:, k], np.arange(len(choice))]
    total = np.zeros(layers + 1)
    # A tensor crosses any cut behind its producer and before its last consumer; the reach of the
    # first consumer beyond is the largest.
    for cut in range(layers):
        beyond = (rates.producer[tensor] < cut) & (consumer >= cut)
        reach = np.zeros(len(choice))
        np.maximum.at(reach, tensor[beyond], rates.reach[consumer[beyond]])
        total[cut] = reach[reach > 0] @ seconds[reach > 0]
    answered = np.append(np.cumsum(rates.leaves[::-1])[::-1], 0)
    used = np.append(rates.reach, 0)
    return total + answered * (rates.answer_s[k] @ share) + used * rates.setup_s[k]
