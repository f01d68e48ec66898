"""How many bytes are alive between the layers of a model: what a cut there sends."""

import numpy as np

from eejax.experiment.runs.partition.source import Source
from eejax.experiment.tables import Table, si
from eejax.partition import LayerGraph


def alive(graph: LayerGraph) -> np.ndarray:
    """Adds up what crosses when the first ``i`` layers run below and the others above.

    Args:
      graph: the model.

    Returns:
      Bytes of one sample, ``[layers]``; the first is the input.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> layers = (Layer("a", 1, 1, 0), Layer("b", 1, 1, 0), Layer("c", 1, 1, 0))
      >>> tensors = (Tensor("x", -1, (0, 2), 8), Tensor("u", 0, (1,), 2), Tensor("v", 1, (2,), 1))
      >>> alive(LayerGraph(layers, tensors, "layer")).tolist()
      [8.0, 10.0, 9.0]
    """
    change = np.zeros(len(graph.layers) + 1)
    for tensor in graph.tensors:
        if tensor.consumers:
            change[tensor.producer + 1] += tensor.nbytes
            change[max(tensor.consumers) + 1] -= tensor.nbytes
    return change.cumsum()[:-1]


def crossing(source: Source) -> list[tuple[str, float, dict[str, float]]]:
    """Lists the places where fewer bytes cross than at any before.

    Args:
      source: the model.

    Returns:
      The layer before each, the bytes, and by what share these are less than the raw input, by the
      dtype of images; a negative share is more.
    """
    counts = alive(source.graph)
    raw = source.raw or {"raw": counts[0]}
    found: list[tuple[str, float, dict[str, float]]] = []
    for i, count in enumerate(counts.tolist()[1:]):
        if not found or count < found[-1][1]:
            less = {dtype: 1 - count / size for dtype, size in raw.items() if size}
            found.append((source.graph.layers[i].name, count, less))
    return found


def crossing_table(source: Source) -> Table:
    """Lays out `crossing` as a table."""
    rows = crossing(source)
    dtypes = list(rows[0][2]) if rows else []
    return Table(
        "Places where a cut sends less than any before; beside it, how much less than the raw "
        "input that is (below 0: more).",
        ["after", "bytes", *(f"less than {dtype} input" for dtype in dtypes)],
        [[n, si(c, "B"), *(f"{100 * less[d]:.1f} %" for d in dtypes)] for n, c, less in rows],
    )
