"""FLOP and bytes of ONNX operators, counted by hand."""

import numpy as np
import pytest

from eejax.partition.onnx_flops import (
    ARGUMENTS,
    FOLLOWERS,
    NOTHING,
    RULES,
    VIEWS,
    Array,
    is_parameter,
    operator_work,
)


def f32(*shape):
    return Array(shape, np.float32)


X = f32(1, 8, 6, 6)  # 288 elements.
HALF = f32(1, 8, 3, 3)  # 72 elements.


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs", "outputs", "flops", "nbytes"),
    [
        # Each output is a sum of 8 * 3 * 3 products; in two groups, of half as many.
        ("Conv", {}, [X, f32(4, 8, 3, 3)], [f32(1, 4, 6, 6)], 2 * 144 * 72, 4 * (288 + 288 + 144)),
        ("Conv", {}, [X, f32(4, 4, 3, 3)], [f32(1, 4, 6, 6)], 2 * 144 * 36, 4 * (288 + 144 + 144)),
        # Each input goes into 4 * 2 * 2 outputs.
        (
            "ConvTranspose",
            {},
            [X, f32(8, 4, 2, 2)],
            [f32(1, 4, 12, 12)],
            2 * 288 * 16,
            4 * (288 + 128 + 576),
        ),
        ("Gemm", {"transA": 1}, [f32(5, 2), f32(5, 3), None], [f32(2, 3)], 2 * 6 * 5, 4 * 31),
        ("MatMul", {}, [f32(2, 7, 5), f32(2, 5, 3)], [f32(2, 7, 3)], 2 * 42 * 5, 4 * 142),
        ("Relu", {}, [X], [X], 288, 8 * 288),
        ("Add", {}, [X, f32(8, 1, 1)], [X], 288, 4 * (2 * 288 + 8)),
        ("Sum", {}, [X, X, X], [X], 2 * 288, 4 * 4 * 288),
        ("Mean", {}, [X, X], [X], 2 * 288, 4 * 3 * 288),
        ("MaxPool", {"kernel_shape": [2, 2]}, [X], [HALF], 4 * 72, 4 * 360),
        ("GlobalAveragePool", {}, [X], [f32(1, 8, 1, 1)], 288, 4 * 296),
        ("LRN", {"size": 5}, [X], [X], 9 * 288, 8 * 288),
        ("Softmax", {}, [f32(1, 10)], [f32(1, 10)], 50, 80),
        ("Resize", {}, [HALF, None, f32(4)], [X], 0, 4 * (72 + 4 + 288)),
        ("Resize", {"mode": b"linear"}, [HALF, None, None], [X], 2 * 4 * 288, 4 * (72 + 288)),
        # 4 gates of 3 units over 7 steps read 5 inputs and 3 states.
        (
            "LSTM",
            {},
            [f32(7, 1, 5), f32(1, 12, 5), f32(1, 12, 3)],
            [f32(7, 1, 1, 3)],
            2 * 7 * 12 * 8,
            4 * (35 + 60 + 36 + 21),
        ),
        ("QLinearConv", {}, [X, X, X, f32(4, 8, 1, 1)], [f32(1, 4, 6, 6)], 2 * 144 * 8, None),
        # Of 1000 rows two are read; indices are int64.
        ("Gather", {}, [f32(1000, 16), Array((2,), np.int64)], [f32(2, 16)], 0, 16 + 2 * 128),
        ("Concat", {}, [X, X], [f32(1, 16, 6, 6)], 0, 4 * 4 * 288),
        ("Split", {}, [X], [f32(1, 4, 6, 6)] * 2, 0, 8 * 288),
        ("Reshape", {}, [X, Array((2,), np.int64)], [f32(1, 288)], 0, 0),
        ("Relu", {}, [Array((1, 6), np.float16)], [Array((1, 6), np.float16)], 6, 24),
    ],
)
def test_work_of_one_operator(kind, attributes, inputs, outputs, flops, nbytes):
    work = operator_work(kind, attributes, inputs, outputs)
    assert work.flops == flops
    assert nbytes is None or work.bytes_moved == nbytes


def test_all_types_exist_in_onnx():
    defs = pytest.importorskip("onnx").defs
    assert [kind for kind in RULES if not defs.has(kind)] == []
    assert FOLLOWERS | VIEWS | NOTHING | ARGUMENTS.keys() <= RULES.keys()
    for kind, positions in ARGUMENTS.items():
        newest = len(defs.get_schema(kind).inputs)
        # Up to opset 9, Slice and others took attributes, and Upsample is no more.
        assert min(positions) < newest, kind


def test_an_unknown_type_has_no_cost():
    with pytest.raises(KeyError, match="Unheard"):
        operator_work("Unheard", {}, [X], [X])


def test_what_steers_is_no_parameter():
    assert is_parameter("Gather", 0)
    assert is_parameter("Add", 1)
    assert not is_parameter("Resize", 2)
    assert not is_parameter("ReduceSum", 1)
