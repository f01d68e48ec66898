"""The layer graph of an ONNX file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from eejax import trees
from eejax.names import suggest
from eejax.partition.coarsen import to_blocks
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.partition.onnx_flops import Rule
from eejax.partition.onnx_fold import drop_nothing, fold_batch_norm, fuse_followers
from eejax.partition.onnx_model import OnnxModel, read_onnx

GRANULARITIES = ("operator", "layer", "block")
"""What one layer of the graph may be."""

_WORDS = {
    "operator": "ONNX operator",
    "layer": "ONNX operator with its followers",
    "block": "ONNX operators between single tensors",
}


def from_onnx(
    path: str | os.PathLike,
    granularity: str = "operator",
    *,
    fold: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
    input_dtype: Any = None,
    rules: Mapping[str, Rule] | None = None,
) -> LayerGraph:
    """Reads the layer graph of an ONNX file, for which nothing is run.

    Costs are those of one run of the file: of one sample, when its batch is 1 or left open. How
    FLOP are counted is told in `onnx_flops`, and what counts as an operator at `read_onnx`.

    Args:
      path: path of the file.
      granularity: what a layer is. ``"operator"``: one operator. ``"layer"``: an operator with the
        activations and other operators of one element each that alone read it, as one program, so
        that what lies between them costs no memory traffic. ``"block"``: the operators between two
        places where a single tensor is alive, with the sum of their costs; this makes a chain.
      fold: whether batch normalisation, and other constant scales and shifts by channel, go into
        the convolution or product before them, and Identity and Dropout vanish.
      shapes: shape by input name, for inputs whose shape the file leaves open; an open batch
        becomes 1.
      input_dtype: dtype of the inputs on a link, such as ``"uint8"`` for images as they leave the
        sensor; that of the file if None.
      rules: FLOP of types of operators that are not in `onnx_flops.RULES`, in the same form.

    Returns:
      The graph; its layers keep the order of the file.

    Raises:
      ImportError: the package onnx is missing.
      FileNotFoundError: there is no such file.
      ValueError: the granularity is unknown, or the file is no ONNX model, has a cycle, has
        operators without a rule (lists them with their numbers), or leaves a shape open.

    Example:
      >>> import pathlib
      >>> import onnx.backend.test
      >>> folder = pathlib.Path(onnx.backend.test.__path__[0], "data", "light")
      >>> graph = from_onnx(folder / "light_squeezenet.onnx", input_dtype="uint8")
      >>> len(graph.layers), graph.tensors[0].nbytes, graph.granularity
      (65, 150528, 'ONNX operator, batch norm folded')
    """
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"granularity {granularity!r} is none of {', '.join(GRANULARITIES)}"
            f"{suggest(granularity, GRANULARITIES)}"
        )
    model = read_onnx(path, shapes=shapes, rules=rules)
    if fold:
        model = fold_batch_norm(drop_nothing(model))
    if granularity == "layer":
        model = fuse_followers(model)
    graph = _graph(model, input_dtype)
    if granularity == "block":
        graph = to_blocks(graph)
    return graph._replace(granularity=_WORDS[granularity] + (", batch norm folded" if fold else ""))


def _graph(model: OnnxModel, input_dtype: Any) -> LayerGraph:
    names: set[str] = set()
    layers = []
    consumers: dict[str, list[int]] = {}
    for i, operator in enumerate(model.operators):
        name = operator.name
        if operator.kind.lower() not in name.lower():
            name = f"{operator.kind}_{name}"
        while name in names:
            name += "'"
        names.add(name)
        work = operator.flops, operator.bytes_moved, operator.parameter_bytes
        layers.append(Layer(name, *work))
        for tensor in dict.fromkeys(operator.reads):
            consumers.setdefault(tensor, []).append(i)

    made = [(name, -1) for name in model.inputs]
    made += [(name, i) for i, o in enumerate(model.operators) for name in o.makes]
    tensors = []
    for name, producer in made:
        if name in consumers:
            value = model.values[name]
            if producer < 0 and input_dtype is not None:
                value = jax.ShapeDtypeStruct(value.shape, input_dtype)
            tensors.append(Tensor(name, producer, tuple(consumers[name]), trees.nbytes(value)))
    return check(LayerGraph(tuple(layers), tuple(tensors), "ONNX operator"))
