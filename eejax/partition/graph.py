"""A model as a graph of layers and the tensors between them: what every partitioner reads.

Costs are those of one sample, so a graph knows neither tiers nor batches.
"""

import math
from typing import NamedTuple


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
        names = [row.name for row in rows]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"{field}[{i}].name {name!r} is used before already")
    for i, layer in enumerate(graph.layers):
        for field in ("flops", "bytes_moved", "parameter_bytes"):
            _check_cost(f"layers[{i}].{field} of {layer.name!r}", getattr(layer, field))
    for i, tensor in enumerate(graph.tensors):
        where = f"tensors[{i}] {tensor.name!r}"
        _check_cost(f"tensors[{i}].nbytes of {tensor.name!r}", tensor.nbytes)
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


def _check_cost(where: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{where} must be finite and >= 0, got {value}")
