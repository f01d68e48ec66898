"""Cast: golden values, dtypes that travel unchanged, special values."""

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.wire import cast, serialize


def round_trip(codec, tree):
    _, payload = codec.encode(codec.init(tree), tree, None)
    return payload, codec.decode(payload)


def test_rounds_to_nearest_even():
    # bfloat16 has 8 significant bits: the neighbours of 1 are 1 - 1/256 and 1 + 1/128.
    x = np.array([1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 128, 1 - 1 / 512], np.float32)
    _, y = round_trip(cast(jnp.bfloat16), x)
    assert y.tolist() == [1.0, 1 + 2 / 128, 1 + 1 / 128, 1.0]


def test_only_wider_floating_leaves_are_cast():
    tree = {
        "f32": np.ones(3, np.float32),
        "f16": np.ones(3, np.float16),
        "i8": np.ones(3, np.int8),
        "i64": np.array([2**40]),
        "complex": np.ones(3, np.complex64),
    }
    payload, back = round_trip(cast(jnp.bfloat16), tree)
    assert payload.leaves["f32"].dtype == jnp.bfloat16
    assert all(payload.leaves[name] is tree[name] for name in ("f16", "i8", "i64", "complex"))
    assert back["f32"].dtype == np.float32
    assert back["i64"] is tree["i64"]
    assert cast(jnp.bfloat16).nbytes(payload) == 6 + 6 + 3 + 8 + 24


def test_four_bit_floats_count_half_a_byte():
    x = np.array([0.5, 6.0, -1.0], np.float32)
    payload, y = round_trip(cast(jnp.float4_e2m1fn), x)
    assert cast(jnp.float4_e2m1fn).nbytes(payload) == len(serialize(payload)) == 2
    np.testing.assert_array_equal(y, x)


def test_numpy_float64_comes_back_as_jax_holds_it():
    _, back = round_trip(cast(jnp.float16), np.array([0.5]))
    assert back.dtype == np.float32
    assert back.tolist() == [0.5]


@pytest.mark.parametrize(
    ("dtype", "overflow"),
    [(jnp.float16, np.inf), (jnp.bfloat16, np.inf), (jnp.float8_e4m3fn, np.nan)],
)
def test_special_values(dtype, overflow):
    big = np.finfo(np.float32).max
    _, y = round_trip(cast(dtype), np.array([np.nan, big, -big, 0.0], np.float32))
    np.testing.assert_array_equal(y, np.array([np.nan, overflow, -overflow, 0.0], np.float32))


def test_refuses_a_dtype_that_is_not_floating():
    with pytest.raises(ValueError, match=r"dtype must be floating.*got int8"):
        cast(jnp.int8)
