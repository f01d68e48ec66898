"""Shapes of all values of an ONNX file, told from those of its inputs."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

_READABLE, _FEW = 1024, 16  # Elements of constant integers and floats that may matter to shapes.
_FLOATS = {1, 10, 11, 16}  # float32, float16, float64 and bfloat16 in ONNX.


def name_of(node: Any) -> str:
    """Names a node: by its own name, or by its first output."""
    return node.name or next(filter(None, node.output), node.op_type)


def infer_shapes(
    proto: Any, nodes: Sequence[Any], constants: set[str]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Infers shapes node by node.

    ONNX's own inference of a whole file stops at shapes that the file computes. Here small
    constants, to which computed shapes belong, are computed on the way.

    Args:
      proto: an ``onnx.ModelProto`` with closed input shapes; not changed.
      nodes: its nodes in an order in which they can run.
      constants: names of all values that do not depend on the inputs.

    Returns:
      Shape and dtype by name; without those that cannot be told.

    Raises:
      ValueError: attributes or shapes do not fit an operator; names the node.
    """
    import onnx

    graph, imports = proto.graph, list(proto.opset_import)
    versions = {entry.domain: entry.version for entry in imports}
    told = {value.name: value.type for value in graph.value_info}
    types = {value.name: value.type for value in graph.input}  # All of them closed.
    data = {}
    for t in graph.initializer:
        types[t.name] = onnx.helper.make_tensor_type_proto(t.data_type, list(t.dims))
        if t.data_location != onnx.TensorProto.EXTERNAL and _is_small(types[t.name]):
            data[t.name] = t
    for node in nodes:
        inputs = list(filter(None, node.input))
        outputs = list(filter(None, node.output))
        try:
            version = versions.get(node.domain, 1)
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            if types.keys() >= set(inputs):
                inferred = onnx.shape_inference.infer_node_outputs(
                    schema,
                    node,
                    {name: types[name] for name in inputs},
                    {name: data[name] for name in inputs if name in data},
                    opset_imports=imports,
                    ir_version=proto.ir_version,
                )
                types |= {k: v for k, v in inferred.items() if _is_closed(v)}
        except onnx.defs.SchemaError:
            pass  # An operator of another domain, for which the file may tell the shape.
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            what = f"{node.op_type} {name_of(node)!r}"
            raise ValueError(f"attributes or shapes do not fit at the {what}: {error}") from error
        for name in outputs:
            if name not in types and name in told and _is_closed(told[name]):
                types[name] = told[name]
        if constants.issuperset(outputs) and all(_is_small(types.get(name)) for name in outputs):
            try:
                results = _compute(onnx, node, types, data, imports)
            except Exception:  # The evaluator lacks versions of operators, and raises anything.
                results = {}  # Whoever needs the value finds its shape open.
            data |= {k: onnx.numpy_helper.from_array(v, k) for k, v in results.items()}

    def value_of(kind: Any) -> jax.ShapeDtypeStruct:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
        return jax.ShapeDtypeStruct(_dims(kind), dtype)

    return {name: value_of(kind) for name, kind in types.items()}


def _compute(onnx: Any, node: Any, types: dict, data: dict, imports: list) -> dict:
    """Computes a constant, where what it needs is known: shapes, and small constants."""
    if node.op_type in ("Shape", "Size"):
        if node.input[0] not in types:
            return {}
        dims = _dims(types[node.input[0]])
        ends = {a.name: a.i for a in node.attribute}
        shape = dims[ends.get("start") : ends.get("end")]
        value = shape if node.op_type == "Shape" else math.prod(dims)
        return {node.output[0]: np.array(value, np.int64)}
    inputs = list(filter(None, node.input))
    loops = any(a.HasField("g") or a.graphs for a in node.attribute)
    if loops or not data.keys() >= set(inputs):
        return {}
    from onnx.reference import ReferenceEvaluator

    names = list(filter(None, node.output))
    feeds = {name: onnx.numpy_helper.to_array(data[name]) for name in inputs}
    # A function, because a node alone would run at the newest version of its type.
    function = onnx.helper.make_function("eejax", "constant", inputs, names, [node], imports)
    results = ReferenceEvaluator(function).run(names, feeds, {})
    return dict(zip(names, map(np.asarray, results)))


def _dims(kind: Any) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in kind.tensor_type.shape.dim)


def _is_closed(kind: Any) -> bool:
    tensor = kind.tensor_type
    known = tensor.elem_type and tensor.HasField("shape")
    dims = tensor.shape.dim
    return bool(known) and all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims)


def _is_small(kind: Any) -> bool:
    """Tells whether a constant may be a shape, an index, or a factor of a resize."""
    if kind is None:
        return False
    size = math.prod(_dims(kind))
    return size <= (_FEW if kind.tensor_type.elem_type in _FLOATS else _READABLE)
