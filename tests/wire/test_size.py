"""Bytes of a payload: golden layout, sub-byte dtypes, lengths that do not fit."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from eejax.wire import abstract_nbytes, abstract_payload, deserialize, identity, serialize, topk


def test_layout_is_leaf_bytes_in_tree_order():
    payload = {"b": np.array([1.0], np.float32), "a": np.array([[1, -2]], np.int16), "c": b"\x09"}
    assert serialize(payload).hex(" ") == "01 00 fe ff 00 00 80 3f 01 00 00 00 09"


@pytest.mark.parametrize(
    ("dtype", "values", "data"),
    [
        (ml_dtypes.int4, [-1, 7, -8], "7f 08"),
        (ml_dtypes.uint4, [15, 1, 2, 3], "1f 32"),
        (ml_dtypes.int2, [1, -1, 0, -2, 1], "8d 01"),
        (ml_dtypes.float4_e2m1fn, [0.5, 6.0, -1.0], "71 0a"),
    ],
)
def test_dtypes_below_a_byte_are_packed(dtype, values, data):
    array = np.array(values, dtype)
    assert serialize(array).hex(" ") == data
    assert identity().nbytes(array) == len(serialize(array))
    back = deserialize(serialize(array), jax.ShapeDtypeStruct(array.shape, dtype))
    assert back.dtype == array.dtype
    assert back.astype(np.float32).tolist() == values


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, np.float32])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0)])
def test_scalar_and_empty_leaves(dtype, shape):
    array = np.ones(shape, dtype)
    back = deserialize(serialize(array), array)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(back, array)


def test_an_abstract_payload_is_enough_to_read():
    codec = topk(0.5)
    g = jnp.array([1.0, -2.0, 3.0, 0.0])
    _, payload = codec.encode(codec.init(g), g, None)
    like = abstract_payload(codec, jax.ShapeDtypeStruct((4,), np.float32))
    assert codec.decode(deserialize(serialize(payload), like)).tolist() == [0.0, -2.0, 3.0, 0.0]


def test_counting_reads_no_data():
    # 4 TB, which no test machine could hold.
    huge = jax.ShapeDtypeStruct((10**6, 10**6), np.float32)
    assert abstract_nbytes(identity(), huge) == 4 * 10**12


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0" * 13])
def test_wrong_length_is_refused(data):
    like = {"x": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=f"{len(data)} bytes, .* needed"):
        deserialize(data, like)


def test_a_length_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="cut short: 6 bytes, 259 needed"):
        deserialize(b"\xff\0\0\0ab", b"")


def test_a_size_that_numpy_and_jax_disagree_on_is_refused():
    with pytest.raises(ValueError, match="leaf 'x' is float64, which JAX holds as float32"):
        abstract_nbytes(identity(), {"x": np.zeros(3)})
