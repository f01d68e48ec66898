"""What one ONNX operator costs: FLOP by its shapes, bytes through memory, bytes of parameters.

Conventions: a multiply-add counts as two; a bias is where its sum starts and counts nothing;
products with padding count; each of + - * /, a comparison, and an elementary function such as
``exp`` count as one. Operators that only move data have 0 FLOP but bytes; a view has neither.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from eejax import trees
from eejax.tiers.cost import Work

Array = jax.ShapeDtypeStruct

Rule = Callable[[Mapping[str, Any], Sequence[Array | None], Sequence[Array]], float]
"""``(attributes, inputs, outputs) -> FLOP``; an optional input that is left out is None."""

VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose output is the memory of their input."""

NOTHING = frozenset({"Dropout", "Identity"})
"""Operators that do nothing when a model is used."""

_LOOK_UPS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})  # Read what they write.


def _table(rows: str) -> dict[str, int]:
    return {
        kind: int(count) for count, *kinds in map(str.split, rows.splitlines()) for kind in kinds
    }


# FLOP by element, and the types.
_ELEMENTWISE = _table(
    """\
1 Abs Add And BitShift Ceil Cos Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less
1 LessOrEqual Log Mod Mul Neg Not Or Pow Reciprocal Relu Round Sign Sin Sqrt Sub Tanh
1 ThresholdedRelu Where Xor
2 BatchNormalization Clip DequantizeLinear LeakyRelu PRelu
3 Softplus Softsign
4 Elu HardSigmoid QuantizeLinear Sigmoid
5 Celu Gelu HardSwish Mish Selu Swish"""
)
_PER_OUTPUT = {
    **_ELEMENTWISE,
    **dict.fromkeys(VIEWS, 0),
    **_table(
        """\
0 Cast Concat DepthToSpace Expand Gather GatherElements GatherND OneHot Pad ReverseSequence
0 ScatterElements ScatterND Slice SpaceToDepth Split Tile Transpose Trilu
3 LpNormalization
4 RMSNormalization
5 LogSoftmax MeanVarianceNormalization Softmax
7 GroupNormalization InstanceNormalization LayerNormalization"""
    ),
}
_PER_INPUT = _table(
    """\
1 ArgMax ArgMin CumSum GlobalAveragePool GlobalMaxPool ReduceMax ReduceMean ReduceMin ReduceProd
1 ReduceSum TopK
2 Hardmax ReduceL1 ReduceL2 ReduceLogSum ReduceSumSquare
3 ReduceLogSumExp
6 DynamicQuantizeLinear"""
)

FOLLOWERS = frozenset({*_ELEMENTWISE, *VIEWS, "Cast", "Max", "Mean", "Min", "Sum"})
"""Operators that a compiler runs while it writes the output of the one before."""


def _product(attributes, inputs, outputs):
    return 2 * outputs[0].size * inputs[0].shape[-2 if attributes.get("transA") else -1]


def _convolution(weight: int) -> Rule:
    return lambda _, inputs, outputs: 2 * outputs[0].size * math.prod(inputs[weight].shape[1:])


def _transposed_convolution(_, inputs, outputs):
    del outputs
    return 2 * inputs[0].size * math.prod(inputs[1].shape[1:])


def _pool(attributes, _, outputs):
    return outputs[0].size * math.prod(attributes["kernel_shape"])


def _recurrence(_, inputs, outputs):
    del outputs
    x, weights, recurrent = inputs[:3]
    return 2 * math.prod(x.shape[:2]) * (weights.size + recurrent.size)


def _resize(attributes, _, outputs):
    mode = attributes.get("mode", b"nearest")
    taps = {b"nearest": 0, b"linear": 2, b"cubic": 4}[mode]  # By axis of a picture.
    return 2 * outputs[0].size * taps ** (len(outputs[0].shape) - 2) if taps else 0


def _per_output(count: float) -> Rule:
    return lambda _, __, outputs: count * outputs[0].size


def _per_input(count: float) -> Rule:
    return lambda _, inputs, __: count * inputs[0].size


def _join(extra: int) -> Rule:
    return lambda _, inputs, outputs: (len(inputs) - 1 + extra) * outputs[0].size


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{kind: _per_output(count) for kind, count in _PER_OUTPUT.items()},
        **{kind: _per_input(count) for kind, count in _PER_INPUT.items()},
        **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
        **dict.fromkeys(("Conv", "ConvInteger"), _convolution(1)),
        **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrence),
        **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"), _product),
        **dict.fromkeys(("Max", "Min", "Sum"), _join(0)),
        **dict.fromkeys(("Resize", "Upsample"), _resize),
        "ConvTranspose": _transposed_convolution,
        "LRN": lambda attributes, _, out: (attributes["size"] + 4) * out[0].size,
        "Mean": _join(1),
        "QLinearConv": _convolution(3),
    }
)
"""FLOP by the type of the operator. Of recurrent layers the matrix products count alone."""

ARGUMENTS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        **dict.fromkeys(("Clip", "Dropout", "Pad"), frozenset({1, 2, 3})),
        **dict.fromkeys(("Expand", "Reshape", "Squeeze", "Tile", "TopK"), frozenset({1})),
        **dict.fromkeys(("OneHot", "Slice"), frozenset({1, 2, 3, 4})),
        **dict.fromkeys(("Resize", "Upsample"), frozenset({1, 2, 3})),
        **dict.fromkeys(("CumSum", "Split", "Trilu", "Unsqueeze"), frozenset({1})),
    }
)
"""Inputs, by position, that steer an operator when they are constants, and are no parameters of the
model; those of all ``Reduce`` operators at position 1 as well."""


def operator_work(
    kind: str,
    attributes: Mapping[str, Any],
    inputs: Sequence[Array | None],
    outputs: Sequence[Array],
    rules: Mapping[str, Rule] = RULES,
) -> Work:
    """Counts what one call of an operator does.

    Args:
      kind: type of the operator, such as ``"Conv"``.
      attributes: its attributes; those with text as bytes, as ONNX stores them.
      inputs: shape and dtype of its inputs, parameters among them; None for one left out.
      outputs: shape and dtype of its outputs.
      rules: FLOP by type.

    Returns:
      FLOP, and bytes read and written: each input and output once. A view moves nothing, and a
      look-up reads no more of its table than it writes.

    Raises:
      KeyError: there is no rule for this type.

    Example:
      >>> import numpy as np
      >>> image, weights = Array((1, 3, 224, 224), np.float32), Array((64, 3, 7, 7), np.float32)
      >>> operator_work("Conv", {}, [image, weights], [Array((1, 64, 112, 112), np.float32)])
      Work(flops=236027904.0, bytes_moved=3851008.0)
    """
    flops = float(rules[kind](attributes, inputs, outputs))
    if kind in VIEWS:
        return Work(flops, 0.0)
    written = trees.nbytes(list(outputs))
    read = list(inputs[1:] if kind in _LOOK_UPS else inputs)
    return Work(flops, float(written + trees.nbytes(read) + written * (kind in _LOOK_UPS)))


def is_parameter(kind: str, position: int) -> bool:
    """Tells whether a constant that an operator reads is a parameter of the model.

    Args:
      kind: type of the operator.
      position: of the input among its inputs.

    Returns:
      False for what merely steers the operator, such as the new shape for ``"Reshape"``.

    Example:
      >>> is_parameter("Conv", 1), is_parameter("Reshape", 1), is_parameter("ReduceMean", 1)
      (True, False, False)
    """
    steers = kind.startswith("Reduce") and position == 1
    return not steers and position not in ARGUMENTS.get(kind, ())
