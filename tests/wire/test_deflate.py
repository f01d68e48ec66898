"""Deflate: every bit restored, honest size, damaged streams refused."""

import zlib

import jax
import numpy as np
import pytest

from eejax.wire import chain, deflate, identity
from eejax.wire.deflate import DeflatePayload


def encode(codec, tree):
    return codec.encode(codec.init(tree), tree, None)[1]


def test_restores_every_bit():
    tree = {
        "special": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "double": np.array([[1 / 3]]),
        "label": np.array([2**40, -1]),
        "strided": np.arange(12, dtype=np.int16).reshape(3, 4).T,
    }
    codec = deflate()
    back = codec.decode(encode(codec, tree))
    for name, x in tree.items():
        assert (back[name].dtype, back[name].shape) == (x.dtype, x.shape)
        assert back[name].tobytes() == x.tobytes()


def test_size_is_that_of_zlib_and_a_length_for_each_leaf():
    tree = {"zeros": np.zeros(1000, np.float32), "ramp": np.arange(100, dtype=np.uint8)}
    expected = sum(4 + len(zlib.compress(x.tobytes(), 9)) for x in tree.values())
    codec = deflate(9)
    assert codec.nbytes(encode(codec, tree)) == expected
    assert expected < 200
    # Level 0 stores: 2 bytes of header, 5 of block, 4 of checksum, and our 4 of length.
    stored = deflate(0)
    assert stored.nbytes(encode(stored, tree["ramp"])) == 100 + 2 + 5 + 4 + 4


@pytest.mark.parametrize("position", range(0, 40, 3))
def test_a_flipped_bit_is_refused(position):
    codec = deflate()
    payload = encode(codec, np.random.default_rng(0).integers(0, 5, 100, np.uint8))
    damaged = bytearray(payload.streams)
    damaged[position] ^= 1
    with pytest.raises(ValueError, match="zlib stream"):
        codec.decode(DeflatePayload(bytes(damaged), payload.likes))


@pytest.mark.parametrize("size", [0, 99, 101, 10**6])
def test_a_stream_of_another_length_is_refused(size):
    codec = deflate()
    payload = encode(codec, np.zeros(100, np.uint8))
    stream = zlib.compress(bytes(size))
    with pytest.raises(ValueError, match="exactly the 100 bytes"):
        codec.decode(DeflatePayload(stream, payload.likes))
    with pytest.raises(ValueError, match="exactly the 100 bytes"):
        codec.decode(DeflatePayload(payload.streams + b"more", payload.likes))


def test_errors():
    with pytest.raises(ValueError, match="level must be an integer from 0 to 9; got 10"):
        deflate(10)
    x = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match="put it last in a chain"):
        chain(deflate(), identity()).init(x)
    abstract = DeflatePayload(jax.ShapeDtypeStruct((3,), np.uint8), ())
    with pytest.raises(TypeError, match="size of a deflate payload depends on the data"):
        deflate().nbytes(abstract)
