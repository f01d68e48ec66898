"""Fewer ONNX operators: what vanishes when a model is used, and what a compiler runs as one."""

from collections import Counter

import jax

from eejax import trees
from eejax.partition.onnx_flops import FOLLOWERS, NOTHING
from eejax.partition.onnx_model import OnnxModel, Operator

_WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}  # Axis of the channels.
_SHIFTS = {"Add", "BatchNormalization", "Sub"}


def drop_nothing(model: OnnxModel) -> OnnxModel:
    """Takes out Identity and Dropout, which do nothing when a model is used.

    Args:
      model: the operators of a file.

    Returns:
      The model without them; others read what they read.
    """
    alias: dict[str, str] = {}
    kept = []
    for operator in model.operators:
        reads = tuple(alias.get(name, name) for name in operator.reads)
        if operator.kind in NOTHING:
            alias |= dict.fromkeys(operator.makes, reads[0])
        else:
            kept.append(operator._replace(reads=reads))
    outputs = tuple(alias.get(name, name) for name in model.outputs)
    return model._replace(operators=tuple(kept), outputs=outputs)


def fold_batch_norm(model: OnnxModel) -> OnnxModel:
    """Folds constant scales and shifts by channel into the operator before them.

    These are batch normalisation, and additions and multiplications with one constant by channel.
    They vanish into the weights of a convolution or product that nothing else reads, which gains a
    bias where it had none; otherwise into the batch normalisation before, of which two numbers by
    channel stay.

    Args:
      model: the operators of a file.

    Returns:
      The same function in fewer operators; a folded one bears the name of the convolution or
      product.
    """
    readers = _readers(model)
    folded: dict[str, Operator] = {}  # By what they make.
    with_bias = set()
    for operator in model.operators:
        makes, read = operator.makes[0], operator.reads[0]
        source = folded.get(read)
        if source and readers[read] == 1 and _folds(source, operator, model):
            extra = 0
            if operator.kind in _SHIFTS and source.kind in _WEIGHTED and read not in with_bias:
                extra = _channel_bytes(model, makes, _WEIGHTED[source.kind])
            if extra or read in with_bias:
                with_bias.add(makes)
            del folded[read]
            operator = source._replace(
                makes=(makes,),
                bytes_moved=source.bytes_moved + extra,
                parameter_bytes=source.parameter_bytes + extra,
            )
        elif operator.kind == "BatchNormalization":  # Four numbers by channel become two.
            held = 2 * _channel_bytes(model, makes, 1)
            operator = operator._replace(
                bytes_moved=operator.bytes_moved - operator.parameter_bytes + held,
                parameter_bytes=held,
            )
        elif len(operator.constants) > 1:
            with_bias.add(makes)
        folded[makes] = operator
    return model._replace(operators=tuple(folded.values()))


def fuse_followers(model: OnnxModel) -> OnnxModel:
    """Joins an operator with those of one element each that alone read it.

    What lies between them is neither written to memory nor read from it.

    Args:
      model: the operators of a file.

    Returns:
      The model; a joined operator bears name and kind of the first.
    """
    readers = _readers(model)
    fused: dict[str, Operator] = {}  # By the first tensor they make.
    made = {name: i for i, o in enumerate(model.operators) for name in o.makes}
    for operator in model.operators:
        # The latest alone: what the others make has to be in memory by then.
        latest = max(operator.reads, key=lambda name: made.get(name, -1))
        source = fused.get(latest)
        if (
            source
            and operator.kind in FOLLOWERS
            and readers[latest] == 1
            and sum(map(readers.__getitem__, source.makes)) == 1
        ):
            between = trees.nbytes(model.values[latest])
            spared = 2 * between if source.bytes_moved and operator.bytes_moved else 0
            del fused[latest]
            operator = source._replace(
                reads=source.reads + tuple(n for n in operator.reads if n != latest),
                makes=operator.makes,
                constants=source.constants + operator.constants,
                flops=source.flops + operator.flops,
                bytes_moved=source.bytes_moved + operator.bytes_moved - spared,
                parameter_bytes=source.parameter_bytes + operator.parameter_bytes,
            )
        fused[operator.makes[0]] = operator
    return model._replace(operators=tuple(fused.values()))


def _readers(model: OnnxModel) -> Counter:
    """How often each tensor is read, as an output of the model as well."""
    return Counter(name for o in model.operators for name in o.reads) + Counter(model.outputs)


def _channel_bytes(model: OnnxModel, tensor: str, axis: int) -> int:
    value = model.values[tensor]
    return trees.nbytes(jax.ShapeDtypeStruct((value.shape[axis],), value.dtype))


def _folds(source: Operator, operator: Operator, model: OnnxModel) -> bool:
    """Tells whether an operator scales and shifts, by channel, what the source makes."""
    weighted = source.kind in _WEIGHTED and source.constants
    if len(operator.reads) != 1 or not (weighted or source.kind == "BatchNormalization"):
        return False
    axis = _WEIGHTED.get(source.kind, 1)
    if operator.kind == "BatchNormalization":
        return axis == 1
    if operator.kind not in ("Add", "Mul", "Sub") or len(operator.constants) != 1:
        return False
    shape = model.values[operator.makes[0]].shape
    constant = model.values[operator.constants[0]].shape
    if model.values[operator.reads[0]].shape != shape or len(constant) > len(shape):
        return False
    constant = (1,) * (len(shape) - len(constant)) + constant
    return all(n == 1 or i == axis % len(shape) for i, n in enumerate(constant))
