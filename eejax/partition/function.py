"""The layer graph of any JAX function, and what is needed to cut the function along it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from eejax import trees
from eejax.partition.flops import RULES, Rule, count
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.partition.grouping import Grouping, group
from eejax.partition.trace import Equation, Program, closure, depends, makers, shared, trace

PyTree = Any


class Parts(NamedTuple):
    """A function divided into layers.

    Attributes:
      program: the function, flat.
      data: by value, whether it depends on the data.
      grouping: the layers.
      params: path by the number of each value that is a parameter.
      inputs: name by the number of each value that is data.
      tensors: name by the number of each value that passes between layers or into them.
      consumers: indices of the layers that read it, by the number of each such value.
      outputs: path by the place of each output of the model.
      out: the outputs, abstract.
    """

    program: Program
    data: list[bool]
    grouping: Grouping
    params: dict[int, str]
    inputs: dict[int, str]
    tensors: dict[int, str]
    consumers: dict[int, tuple[int, ...]]
    outputs: tuple[str, ...]
    out: PyTree


class Traced(NamedTuple):
    """A function, ready to be planned and sliced.

    Attributes:
      graph: its layers and tensors.
      unknown: how often a primitive occurs of which no rule tells the FLOP, by name: it is counted
        as one operation by output; and ``"while"``, whose rounds are unknown and counted as one.
      parts: the function, divided into the layers of ``graph``.
      retrace: ``(example) -> Parts`` for other abstract data, such as with an open batch.
      example: the data, abstract.
      samples: in ``example``.
    """

    graph: LayerGraph
    unknown: dict[str, int]
    parts: Parts
    retrace: Callable[[PyTree], Parts]
    example: PyTree
    samples: int


def from_function(
    apply: Callable[[PyTree, PyTree], PyTree],
    params: PyTree,
    example: PyTree,
    *,
    depth: int | None = None,
    samples: int | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> Traced:
    """Traces a function into a graph of layers, without compiling or running it.

    See `grouping.group` for what a layer is, and `flops.count` for what it costs. Costs are those
    of one sample in a batch of one: what depends on the data is divided by the samples in
    ``example``; parameters are read, and what depends on them alone is computed, for each. A
    parameter that several layers read counts for each, and constants that the function closes over
    count as parameters.

    Args:
      apply: ``(params, example) -> outputs``, traceable by JAX and free of side effects. Outputs
        may hold collections that the call updates, such as running means.
      params: all that every tier may hold: parameters, running means, random keys.
      example: the data, one or several arrays ``[batch, ...]``, concrete or abstract, in the dtype
        in which they leave the sensor: images as uint8 cost one byte a value.
      depth: how deep the modules lie that are layers, >= 1; None for one layer for each
        convolution, matrix product, loop, and look-up in parameters.
      samples: in ``example``; the size of the first axis of all its arrays if None. 1 for a
        function of a single sample without a batch.
      rules: FLOP of primitives that this package does not know, by name, as in `flops.RULES`.

    Returns:
      The graph and what `slice_tiers` needs.

    Raises:
      ValueError: an argument is out of range, the function has side effects, or its outputs do not
        depend on the data.

    Example:
      >>> import jax.numpy as jnp
      >>> def mlp(params, x):
      ...     x = jax.nn.relu(x / 255 @ params["hidden"]["w"])
      ...     return x @ params["answer"]["w"]
      >>> params = {"hidden": {"w": jnp.ones((784, 16))}, "answer": {"w": jnp.ones((16, 10))}}
      >>> graph, *_ = from_function(mlp, params, jnp.ones((32, 784), jnp.uint8))
      >>> [(layer.name, layer.flops, layer.parameter_bytes) for layer in graph.layers]
      [('hidden', 26672.0, 50176), ('answer', 320.0, 640)]
      >>> [(tensor.name, tensor.consumers, tensor.nbytes) for tensor in graph.tensors]
      [('input', (0,), 784.0), ('hidden', (1,), 64.0)]
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth must be >= 1, or None for operators, got {depth}")
    params, example = jax.eval_shape(lambda *args: args, params, example)
    samples = _checked_samples(example, samples)

    def retrace(example: PyTree) -> Parts:
        return _divide(apply, params, example, depth)

    parts = retrace(example)
    graph, unknown = _price(parts, samples, {**RULES, **(rules or {})})
    return Traced(graph, unknown, parts, retrace, example, samples)


def param_names(params: PyTree) -> tuple[str, ...]:
    """Names the leaves of parameters by their paths.

    Args:
      params: a tree.

    Returns:
      Slash-joined paths; ``"params"`` for a tree that is a single leaf.
    """
    return tuple(name or "params" for name in _names(params, ""))


def input_names(example: PyTree) -> tuple[str, ...]:
    """Names the arrays of data.

    Args:
      example: a tree.

    Returns:
      ``"input"`` for a single array, or ``"input/"`` and the path of each.
    """
    return _names(example, "input")


def _divide(apply: Callable, params: PyTree, example: PyTree, depth: int | None) -> Parts:
    program, out = trace(apply, params, example)
    own = dict(zip(program.inputs, param_names(params)))
    inputs = dict(zip(program.inputs[len(own) :], input_names(example)))
    data = depends(program, inputs)
    if not any(data[i] for i in program.outputs):
        raise ValueError("no output of the function depends on the example")
    made = makers(program)

    def name_of(row: Equation) -> str:
        _, leaves = closure(program, made, row.reads, data)
        names = [own[i].removeprefix("params/").split("/") for i in leaves if i in own]
        path = shared(names)
        return "/".join(path[:-1] or path if len(names) == 1 else path)

    grouping = group(program, data, depth, name_of)
    consumers: dict[int, set[int]] = defaultdict(set)
    origin = dict.fromkeys(inputs, -1)
    for row, g in zip(program.equations, grouping.layer):
        for i in row.reads:
            if g >= 0 and data[i] and origin[i] != g:
                consumers[i].add(g)
        origin |= dict.fromkeys(row.makes, g)

    tensors = {i: name for i, name in inputs.items() if consumers[i]}
    outputs = _names(out, "output")
    makes = defaultdict(list)
    for i in sorted(consumers):
        if origin[i] >= 0:
            makes[origin[i]].append(i)
    taken = {*inputs.values(), *outputs}
    for g, values in sorted(makes.items()):
        name = grouping.names[g]
        alone = len(values) == 1 and name not in taken
        tensors |= zip(values, [name] if alone else [f"{name}:{k}" for k in range(len(values))])
    readers = {i: tuple(sorted(consumers[i])) for i in tensors}
    return Parts(program, data, grouping, own, inputs, tensors, readers, outputs, out)


def _price(
    parts: Parts, samples: int, rules: Mapping[str, Rule]
) -> tuple[LayerGraph, dict[str, int]]:
    program, data, grouping = parts.program, parts.data, parts.grouping
    made = makers(program)
    members: list[list[int]] = [[] for _ in grouping.names]
    for e, g in enumerate(grouping.layer):
        if g >= 0:
            members[g].append(e)

    layers, unknown, done = [], defaultdict(int), set()
    leaving = {*parts.tensors, *program.outputs}
    for name, own in zip(grouping.names, members):
        reads = {i for e in own for i in program.equations[e].reads}
        prepare, leaves = closure(program, made, reads, data)
        # What several layers prepare from parameters is counted once.
        equations = sorted((prepare - done).union(own))
        done |= prepare
        work, names = count(program, equations, leaving, data, samples, rules)
        for primitive, times in names.items():
            unknown[primitive] += times
        held = [program.values[i] for i in leaves if not _is_literal(program, i)]
        layers.append(Layer(name, *work, sum(map(_nbytes, held))))

    origin = {i: g for row, g in zip(program.equations, grouping.layer) for i in row.makes}
    tensors = tuple(
        Tensor(name, origin.get(i, -1), parts.consumers[i], _nbytes(program.values[i]) / samples)
        for i, name in parts.tensors.items()
    )
    return check(LayerGraph(tuple(layers), tensors, grouping.granularity)), dict(unknown)


def _names(tree: PyTree, prefix: str) -> tuple[str, ...]:
    paths = [trees.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return tuple("/".join(filter(None, (prefix, path))) for path in paths)


def _is_literal(program: Program, i: int) -> bool:
    return i in program.constants and not program.values[i].shape


def _nbytes(value: Any) -> int:
    return value.size * value.dtype.itemsize


def _checked_samples(example: PyTree, samples: int | None) -> int:
    leaves = jax.tree.leaves(example)
    if not leaves:
        raise ValueError("example must hold at least one array")
    if samples is None:
        shapes = dict(zip(_names(example, "example"), (leaf.shape for leaf in leaves)))
        sizes = {shape[:1] for shape in shapes.values()}
        if len(sizes) > 1 or sizes == {()}:
            raise ValueError(
                f"the arrays of example must have one first axis, the batch, got {shapes}; "
                "tell how many samples they hold as samples=..."
            )
        ((samples,),) = sizes
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    return samples
