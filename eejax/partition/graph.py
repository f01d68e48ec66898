"""A model as a graph of layers and the tensors between them: what every partitioner reads.

Costs are those of one sample, so a graph knows neither tiers nor batches.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np


class Layer(NamedTuple):
    """A piece of a model that runs on one node as one program.

    Attributes:
      name: unique among the layers.
      flops: floating-point operations for one sample; a multiply-add counts as two.
      bytes_moved: bytes between memory and processor for one sample.
      parameter_bytes: bytes of its parameters in memory.
    """

    name: str
    flops: float
    bytes_moved: float
    parameter_bytes: int


class Tensor(NamedTuple):
    """What one layer makes and others read.

    Attributes:
      name: unique among the tensors.
      producer: index of the layer that makes it; -1 for the input of the model.
      consumers: indices of the layers that read it.
      nbytes: bytes of one sample on a link, after its codec: exact, or the mean of measured sizes
        where they depend on the data.
    """

    name: str
    producer: int
    consumers: tuple[int, ...]
    nbytes: float


class LayerGraph(NamedTuple):
    """A model, ready to be cut.

    Attributes:
      layers: in the order in which they run; the last one gives the answer.
      tensors: at least the input of the model.
      granularity: what one layer is, such as ``"stage with its exit"``; results mean little
        without it.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    granularity: str


def check(graph: LayerGraph) -> LayerGraph:
    """Finds faults of a graph.

    Args:
      graph: a graph of any origin.

    Returns:
      The same graph.

    Raises:
      ValueError: there is no layer, a name is used twice, a cost is negative or not finite, an
        index does not exist, a layer reads what a later one makes (so no cycle passes), or a layer
        reads nothing at all; names the field.

    Example:
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e5, 1e4, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 784), Tensor("features", 0, (1,), 1568))
      >>> check(LayerGraph(layers, tensors, "layer")).layers[1].name
      'dense'
      >>> check(LayerGraph(layers, tensors[:1], "layer"))
      Traceback (most recent call last):
      ValueError: layers[1] 'dense' reads no tensor
    """
    count = len(graph.layers)
    if not count:
        raise ValueError("layers must hold at least one layer")
    for field, rows in (("layers", graph.layers), ("tensors", graph.tensors)):
        seen: set[str] = set()
        for i, row in enumerate(rows):
            if row.name in seen:
                raise ValueError(f"{field}[{i}].name {row.name!r} is used before already")
            seen.add(row.name)
    _check_costs("layers", graph.layers, ("flops", "bytes_moved", "parameter_bytes"))
    _check_costs("tensors", graph.tensors, ("nbytes",))
    for i, tensor in enumerate(graph.tensors):
        where = f"tensors[{i}] {tensor.name!r}"
        if not -1 <= tensor.producer < count:
            raise ValueError(
                f"{where}: producer must be in [-1, {count}), the layers and -1 for the input of "
                f"the model, got {tensor.producer}"
            )
        for consumer in tensor.consumers:
            if not 0 <= consumer < count:
                raise ValueError(f"{where}: consumers must be in [0, {count}), got {consumer}")
            if consumer <= tensor.producer:
                raise ValueError(
                    f"{where}: layer {consumer} {graph.layers[consumer].name!r} reads it before "
                    f"layer {tensor.producer} {graph.layers[tensor.producer].name!r} makes it; "
                    "layers must be in the order in which they run, without cycles"
                )
    fed = {consumer for tensor in graph.tensors for consumer in tensor.consumers}
    for i, layer in enumerate(graph.layers):
        if i not in fed:
            raise ValueError(f"layers[{i}] {layer.name!r} reads no tensor")
    return graph


def reads(graph: LayerGraph) -> tuple[np.ndarray, np.ndarray]:
    """Lists who reads what.

    Args:
      graph: a graph.

    Returns:
      For each pair of a tensor and a consumer, ordered by tensor: the index of the tensor and that
      of the consumer, both ``[reads]``.

    Example:
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e5, 1e4, 5000))
      >>> tensors = (Tensor("image", -1, (0, 1), 784), Tensor("features", 0, (1,), 1568))
      >>> reads(LayerGraph(layers, tensors, "layer"))
      (array([0, 0, 1]), array([0, 1, 1]))
    """
    counts = [len(tensor.consumers) for tensor in graph.tensors]
    consumers = chain.from_iterable(tensor.consumers for tensor in graph.tensors)
    return np.repeat(np.arange(len(counts)), counts), np.fromiter(consumers, int, sum(counts))


def _check_costs(
    field: str, rows: Sequence[Layer] | Sequence[Tensor], costs: Sequence[str]
) -> None:
    values = np.array([[getattr(row, cost) for cost in costs] for row in rows], float)
    wrong = ~(np.isfinite(values) & (values >= 0))
    for i, j in np.argwhere(wrong.reshape(-1, len(costs)))[:1]:
        raise ValueError(
            f"{field}[{i}].{costs[j]} of {rows[i].name!r} must be finite and >= 0, "
            f"got {values[i, j]:g}"
        )
