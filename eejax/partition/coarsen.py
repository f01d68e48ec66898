"""Fewer and larger layers: the blocks between the places where a single tensor is alive."""

from eejax.partition.graph import Layer, LayerGraph, check


def to_blocks(graph: LayerGraph) -> LayerGraph:
    """Joins the layers between two places where a single tensor is alive.

    The result is a chain, unless the model reads its input late or has several, so that searches
    for chains take models with branches. Costs are the sums of those of the layers.

    Args:
      graph: a graph.

    Returns:
      A graph whose layers bear the name of their first layer.

    Raises:
      ValueError: the graph has a fault.

    Example:
      >>> from eejax.partition.graph import Tensor
      >>> names = ("stem", "left", "right", "join")
      >>> layers = tuple(Layer(name, 1e6, 1e4, 100) for name in names)
      >>> tensors = (
      ...     Tensor("image", -1, (0,), 784),
      ...     Tensor("a", 0, (1, 2), 64),
      ...     Tensor("b", 1, (3,), 64),
      ...     Tensor("c", 2, (3,), 64),
      ... )
      >>> graph = to_blocks(LayerGraph(layers, tensors, "layer"))
      >>> [layer.name for layer in graph.layers], [tensor.name for tensor in graph.tensors]
      (['stem', 'left'], ['image', 'a'])
    """
    check(graph)
    count = len(graph.layers)
    alive = [0] * (count + 1)  # After each layer, as differences.
    for tensor in graph.tensors:
        if tensor.consumers:
            alive[max(tensor.producer, 0)] += 1
            alive[max(tensor.consumers)] -= 1
    block, running, starts = [], 0, [0]
    for i in range(count):
        block.append(len(starts) - 1)
        running += alive[i]
        if running == 1 and i + 1 < count:
            starts.append(i + 1)

    layers = []
    for start, end in zip(starts, [*starts[1:], count]):
        rows = graph.layers[start:end]
        layers.append(Layer(rows[0].name, *map(sum, zip(*(row[1:] for row in rows)))))
    tensors = []
    for tensor in graph.tensors:
        producer = block[tensor.producer] if tensor.producer >= 0 else -1
        consumers = tuple(sorted({block[i] for i in tensor.consumers} - {producer}))
        if consumers or producer < 0:
            tensors.append(tensor._replace(producer=producer, consumers=consumers))
    return check(LayerGraph(tuple(layers), tuple(tensors), f"block of: {graph.granularity}"))
