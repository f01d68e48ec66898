"""QDMP's estimate: the time of a layer as the difference of measured prefix times."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from eejax.names import suggest
from eejax.partition.estimate.errors import Errors, errors
from eejax.partition.graph import LayerGraph, check

Over = Literal["order", "predecessors"]


class PrefixEstimate(NamedTuple):
    """Seconds of layers from those of prefixes.

    Attributes:
      seconds: ``[layers]``, >= 0.
      negative: how many differences were below 0, which noise makes, and became 0.
      errors: of the sums of ``seconds`` against held-out repeats of the prefix times; None when
        there is one repeat only.
    """

    seconds: np.ndarray
    negative: int
    errors: Errors | None


def prefix_seconds(graph: LayerGraph, totals: Any, *, over: Over = "order") -> PrefixEstimate:
    """Turns prefix times into layer times: ``t_i = T(1, i) - max_j T(1, j)``.

    What compilers fuse across layers is in prefix times, while single layers that are timed alone
    pay for it.

    Args:
      graph: the model.
      totals: measured seconds ``T(1, i)``, ``[layers]`` or ``[repeats, layers]``, of which the
        median counts.
      over: which ``j`` the largest is taken over. ``"order"``, all earlier layers: right when
        ``T(1, i)`` is the time to run the layers 1 to ``i``; then the layer times sum up to the
        largest total. ``"predecessors"``, the layers that ``i`` reads: meant for times to run just
        what ``i`` needs; where branches meet, all but the longest branch count twice.

    Returns:
      The layer times, and how well they predict the totals of repeats that they were not made from.

    Raises:
      ValueError: the graph has a fault, or an argument a wrong shape or value.

    References:
      Zhang et al., Towards Real-time Cooperative Deep Inference over the Cloud and Edge End
      Devices, 2020.

    Example:
      >>> from eejax.partition.graph import Layer, Tensor
      >>> layers = tuple(Layer(name, 0, 0, 0) for name in ("stem", "left", "right", "join"))
      >>> tensors = (
      ...     Tensor("x", -1, (0,), 4),
      ...     Tensor("a", 0, (1, 2), 4),
      ...     Tensor("b", 1, (3,), 4),
      ...     Tensor("c", 2, (3,), 4),
      ... )
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> prefix_seconds(graph, [1, 3, 6, 7]).seconds.tolist()
      [1.0, 2.0, 3.0, 1.0]
    """
    check(graph)
    count = len(graph.layers)
    totals = np.atleast_2d(np.asarray(totals, float))
    if totals.ndim != 2 or totals.shape[1] != count or not len(totals):
        raise ValueError(f"totals must be [repeats, {count} layers], got {totals.shape}")
    if not ((totals > 0) & (totals < np.inf)).all():
        raise ValueError("totals must be finite and > 0")
    if over not in get_args(Over):
        raise ValueError(
            f"over {over!r} is none of {', '.join(get_args(Over))}{suggest(over, get_args(Over))}"
        )
    before: list[list[int]] = [[] for _ in range(count)]
    for tensor in graph.tensors:
        for i in tensor.consumers if tensor.producer >= 0 else ():
            before[i].append(tensor.producer)
    needed: list[set[int]] = []  # What runs in each prefix.
    for i, js in enumerate(before):
        ancestors = {i}.union(*(needed[j] for j in js))
        needed.append(ancestors if over == "predecessors" else set(range(i + 1)))

    def differences(rows: np.ndarray) -> np.ndarray:
        median = np.median(rows, 0)
        if over == "order":
            return median - np.maximum.accumulate(np.append(0, median[:-1]))
        return median - [max((median[j] for j in js), default=0.0) for js in before]

    raw = differences(totals)
    held = None
    if len(totals) > 1:
        guesses = []
        for r in range(len(totals)):
            seconds = np.maximum(differences(np.delete(totals, r, 0)), 0)
            guesses.append([seconds[list(js)].sum() for js in needed])
        held = errors(guesses, totals)
    return PrefixEstimate(np.maximum(raw, 0), int((raw < 0).sum()), held)
