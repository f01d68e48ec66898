"""The operators of an ONNX file with what each costs, from shapes alone: nothing is run."""

import graphlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eejax import trees
from eejax.names import suggest
from eejax.partition.onnx_flops import RULES, Array, Rule, is_parameter, operator_work
from eejax.partition.onnx_shapes import infer_shapes, name_of


class Operator(NamedTuple):
    """An operator that runs for every sample.

    Attributes:
      name: of the node, or of its first output when it has none.
      kind: its type, such as ``"Conv"``.
      reads: names of the tensors it reads that depend on the input of the model.
      makes: names of the tensors it makes that something reads.
      constants: names of its parameters.
      flops: floating-point operations; a multiply-add counts as two.
      bytes_moved: bytes read and written.
      parameter_bytes: bytes of its parameters in memory.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    constants: tuple[str, ...]
    flops: float
    bytes_moved: float
    parameter_bytes: int


class OnnxModel(NamedTuple):
    """What an ONNX file tells about costs.

    Attributes:
      operators: in an order in which they can run.
      inputs: names of the inputs of the model.
      outputs: names of its outputs.
      values: shape and dtype by the name of each input, constant and tensor.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Array]


def read_onnx(
    path: str | os.PathLike,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> OnnxModel:
    """Reads the operators of an ONNX file.

    What depends on constants alone, or on shapes, is done once and is no operator; what no output
    needs is left out. Weights count by their shape: data outside of the file are never opened. A
    constant that two operators read is a parameter of both.

    Args:
      path: path of the file.
      shapes: shape by input name, where the file leaves it open; an open batch becomes 1.
      rules: FLOP of types of operators that are not in `onnx_flops.RULES`, in the same form.

    Returns:
      The operators, and all shapes.

    Raises:
      ImportError: the package onnx is missing.
      FileNotFoundError: there is no such file.
      ValueError: the file is no ONNX model, has a cycle, has operators without a rule (lists them
        with their numbers), or leaves a shape open.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(f"{error}; ONNX files need it: pip install 'eejax[onnx]'") from error

    try:
        proto = onnx.load(os.fspath(path), format="protobuf", load_external_data=False)
        return _read(onnx, proto, shapes or {}, {**RULES, **(rules or {})})
    except DecodeError as error:
        raise ValueError(f"{os.fspath(path)} is no ONNX file: {error}") from error
    except (ValueError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _read(onnx: Any, proto: Any, shapes: Mapping, rules: Mapping[str, Rule]) -> OnnxModel:
    graph = proto.graph
    if not graph.node:
        raise ValueError("no ONNX file, or one without operators")
    weights = {t.name for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = tuple(value.name for value in graph.output)
    _close_inputs(inputs, shapes)
    nodes = _needed(_in_order(graph), outputs)
    constants = _constants(nodes, weights)
    unknown = Counter(
        node.op_type
        for node in nodes
        if node.op_type not in rules and not constants.issuperset(node.output)
    )
    if unknown:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(unknown.items()))
        raise ValueError(f"operators of unknown cost: {kinds}; give rules={{type: FLOP}}")

    values = infer_shapes(proto, nodes, constants)
    stored = _stored(nodes, weights, values)
    read = {name for node in nodes for name in _reads(node)} | set(outputs)
    operators = []
    for node in nodes:
        if constants.issuperset(node.output):
            continue
        makes = tuple(name for name in node.output if name in read)
        for name in (*_reads(node), *makes):
            if name not in values:
                raise ValueError(
                    f"the shape of {name!r} at the {node.op_type} {name_of(node)!r} does "
                    "not follow from those of the inputs; the operator may depend on data"
                )
        parameters = {
            name: stored[name]
            for i, name in enumerate(node.input)
            if name in constants and is_parameter(node.op_type, i)
        }
        work = operator_work(
            node.op_type,
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            [values[name] if name else None for name in node.input],
            [values[name] for name in makes],
            rules,
        )
        reads = tuple(name for name in _reads(node) if name not in constants)
        operators.append(
            Operator(
                name=name_of(node),
                kind=node.op_type,
                reads=reads,
                makes=makes,
                constants=tuple(parameters),
                flops=work.flops,
                bytes_moved=work.bytes_moved,
                parameter_bytes=sum(parameters.values()),
            )
        )
    if not operators:
        raise ValueError("no output depends on an input")
    return OnnxModel(tuple(operators), tuple(i.name for i in inputs), outputs, values)


def _reads(node: Any) -> list[str]:
    """Names what a node reads, and what graphs inside of it read from outside."""
    names = list(filter(None, node.input))
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            made = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                names += [name for name in _reads(inner) if name not in made]
                made.update(inner.output)
            names += [v.name for v in graph.output if v.name not in made]
    return names


def _close_inputs(inputs: list, shapes: Mapping[str, Sequence[int]]) -> None:
    """Writes the given shapes, and batch 1, into the inputs."""
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise ValueError(
                f"shapes: {name!r} is none of the inputs {', '.join(names)}{suggest(name, names)}"
            )
    # A number, or the name of an open dimension; one name means one number, in all inputs.
    found = [
        [
            d.dim_value if d.dim_value > 0 else d.dim_param or "?"
            for d in v.type.tensor_type.shape.dim
        ]
        for v in inputs
    ]
    sizes: dict[str, int] = {dims[0]: 1 for dims in found if dims and isinstance(dims[0], str)}
    for value, dims in zip(inputs, found):
        sizes |= {d: n for d, n in zip(dims, shapes.get(value.name, ())) if isinstance(d, str)}
    for value, dims in zip(inputs, found):
        known = [1 if d == "?" and i == 0 else d for i, d in enumerate(dims)]
        known = [d if d == "?" else sizes.get(d, d) for d in known]
        given = list(shapes.get(value.name, known))
        fits = value.type.tensor_type.HasField("shape") and len(given) == len(dims)
        if not fits or not all(
            isinstance(size, int | np.integer)
            and size > 0
            and (isinstance(old, str) or old == size)
            for size, old in zip(given, dims)
        ):
            raise ValueError(
                f"input {value.name!r} has the shape ({', '.join(map(str, dims))}); "
                f"shapes={{{value.name!r}: ...}} must give a number > 0 for each that is open, and "
                f"agree with the others, got {given}"
            )
        for dim, size in zip(value.type.tensor_type.shape.dim, given):
            dim.dim_value = size


def _in_order(graph: Any) -> list:
    """Orders the nodes so that they can run, as in the file if that is such an order."""
    known = {"", *(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    producer: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        if not all(
            isinstance(t, str) for t in (node.op_type, node.name, *node.input, *node.output)
        ):
            raise ValueError(f"a name of node {i} is no UTF-8 text")
        for name in filter(None, node.output):
            if name in known or name in producer:
                raise ValueError(f"{name!r} is made twice")
            producer[name] = i
    for value in graph.output:
        if value.name not in known and value.name not in producer:
            raise ValueError(f"nothing makes the output {value.name!r}")
    needs: dict[int, set[int]] = {}
    for i, node in enumerate(graph.node):
        for name in _reads(node):
            if name not in known and name not in producer:
                what = f"{node.op_type} {name_of(node)!r}"
                raise ValueError(f"the {what} reads {name!r}, which nothing makes")
        needs[i] = {producer[name] for name in _reads(node) if name in producer}
    if all(max(need, default=-1) < i for i, need in needs.items()):
        return list(graph.node)
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        cycle = " -> ".join(name_of(graph.node[i]) for i in error.args[1])
        raise ValueError(f"the operators form a cycle: {cycle}") from error
    return [graph.node[i] for i in order]


def _needed(nodes: list, outputs: Iterable[str]) -> list:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(_reads(node))
            kept.append(node)
    return kept[::-1]


def _constants(nodes: list, weights: Iterable[str]) -> set[str]:
    """Names all values that no input can change; shapes are among them."""
    constants = {"", *weights}
    for node in nodes:
        if node.op_type in ("Shape", "Size") or constants.issuperset(_reads(node)):
            constants.update(node.output)
    return constants


def _stored(nodes: list, weights: Iterable[str], values: Mapping[str, Array]) -> dict[str, int]:
    """Counts the bytes of constants: as computed once, but quantised ones as they are."""
    stored = {"": 0} | {name: trees.nbytes(values[name]) for name in weights if name in values}
    for node in nodes:
        for name in node.output:
            if node.op_type == "DequantizeLinear":
                stored[name] = sum(stored.get(i, 0) for i in node.input)
            elif name in values:
                stored[name] = trees.nbytes(values[name])
    return stored
