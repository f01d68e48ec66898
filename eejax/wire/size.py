"""What a payload is on the wire: its bytes, and their number from shapes alone.

A serialised payload is the bytes of its leaves in tree order, without names, shapes or dtypes: both
ends know the model and the codec, hence the structure. Only a leaf of host codecs, whose length
depends on data, is preceded by its length in 4 bytes. Bytes are in the order of the machine, which
is little-endian wherever JAX runs today.
"""

import math
from typing import Any

import jax
import numpy as np

from eejax import trees
from eejax.core import Codec

PyTree = Any

LENGTH_PREFIX_BYTES = 4


def abstract_payload(codec: Codec, tree: PyTree) -> PyTree:
    """Traces a codec, without computing anything.

    Args:
      codec: a codec that runs under tracing.
      tree: what is sent, as arrays or abstract arrays.

    Returns:
      The payload with ``jax.ShapeDtypeStruct`` leaves.
    """

    def payload(tree, key):
        return codec.encode(codec.init(tree), tree, key)[1]

    return jax.eval_shape(payload, tree, jax.eval_shape(lambda: jax.random.key(0)))


def abstract_nbytes(codec: Codec, tree: PyTree) -> int:
    """Counts the bytes of a transfer from shapes alone, so that counting costs no run time.

    Args:
      codec: a codec whose payload size does not depend on data, so not `deflate`.
      tree: what is sent, as arrays or abstract arrays.

    Returns:
      ``codec.nbytes`` of the payload of any tree of these shapes and dtypes.

    Raises:
      TypeError: the codec runs on the host; its size depends on data.
      ValueError: a leaf has a dtype that JAX would narrow, such as float64 outside x64 mode, so
        that its size in NumPy is another than in JAX.

    Example:
      >>> from eejax.wire.affine import affine
      >>> features = jax.ShapeDtypeStruct((32, 128), np.float32)
      >>> abstract_nbytes(affine(bits=8), features)  # Codes, scale and zero point.
      4101
    """
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        narrow = jax.dtypes.canonicalize_dtype(x.dtype)
        if narrow != x.dtype:
            raise ValueError(
                f"leaf {trees.path_name(path)!r} is {x.dtype}, which JAX holds as {narrow}; "
                f"convert it to {narrow} before it is sent"
            )
    return codec.nbytes(abstract_payload(codec, tree))


def serialize(payload: PyTree) -> bytes:
    """Writes a payload as the bytes that cross the link.

    Args:
      payload: the payload of any codec; leaves are arrays or ``bytes``.

    Returns:
      As many bytes as ``codec.nbytes(payload)`` says.

    Example:
      >>> serialize({"a": np.array([1, 2], np.uint8), "b": b"xyz"}).hex()
      '01020300000078797a'
    """

    def write(leaf):
        if isinstance(leaf, bytes):
            return len(leaf).to_bytes(LENGTH_PREFIX_BYTES, "little") + leaf
        return leaf_to_bytes(leaf)

    return b"".join(write(leaf) for leaf in jax.tree.leaves(payload))


def deserialize(data: bytes, like: PyTree) -> PyTree:
    """Reads a payload from the bytes that crossed the link.

    Args:
      data: the result of `serialize`.
      like: a payload of the same structure, shapes and dtypes, whose values are ignored: an
        `abstract_payload`, or for host codecs the payload of any tree of the same shapes.

    Returns:
      The payload; its arrays are read-only NumPy arrays.

    Raises:
      ValueError: there are too few or too many bytes for this structure.
    """
    leaves, structure = jax.tree.flatten(like)
    start, read = 0, []

    def take(count):
        nonlocal start
        if start + count > len(data):
            raise ValueError(f"payload is cut short: {len(data)} bytes, {start + count} needed")
        start += count
        return data[start - count : start]

    for leaf in leaves:
        if isinstance(leaf, bytes):
            read.append(take(int.from_bytes(take(LENGTH_PREFIX_BYTES), "little")))
        else:
            read.append(bytes_to_leaf(take(trees.nbytes(leaf)), leaf))
    if start != len(data):
        raise ValueError(f"payload is too long: {len(data)} bytes, {start} needed")
    return structure.unflatten(read)


def leaf_to_bytes(leaf: Any) -> bytes:
    """Writes an array in row-major order, dtypes below a byte packed from the low bit on.

    Args:
      leaf: an array.

    Returns:
      ``trees.nbytes(leaf)`` bytes.
    """
    array = np.ascontiguousarray(leaf)
    bits = jax.dtypes.itemsize_bits(array.dtype)
    if bits >= 8:
        return array.tobytes()
    column = array.reshape(-1, 1).view(np.uint8)
    return np.packbits(
        np.unpackbits(column, axis=1, count=bits, bitorder="little"), bitorder="little"
    ).tobytes()


def bytes_to_leaf(data: bytes, like: Any) -> np.ndarray:
    """Reads an array that `leaf_to_bytes` wrote.

    Args:
      data: ``trees.nbytes(like)`` bytes.
      like: an array or abstract array of the same shape and dtype.

    Returns:
      The array.
    """
    bits = jax.dtypes.itemsize_bits(like.dtype)
    if bits >= 8:
        return np.frombuffer(data, like.dtype).reshape(like.shape)
    size = math.prod(like.shape)
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=size * bits, bitorder="little")
    column = np.packbits(flat.reshape(size, bits), axis=1, bitorder="little")
    return column.view(like.dtype).reshape(like.shape)
