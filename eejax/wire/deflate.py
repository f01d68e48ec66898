"""Deflate codec: lossless compression by zlib, on the host."""

import dataclasses
import zlib
from typing import Any

import jax

from eejax import trees
from eejax.core import Codec
from eejax.wire.size import LENGTH_PREFIX_BYTES, bytes_to_leaf, leaf_to_bytes

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeflatePayload:
    """What crosses the link.

    Attributes:
      streams: the tree with a zlib stream (``bytes``) for each leaf.
      likes: shape and dtype of every leaf, in tree order; static, so it costs no bytes.
    """

    streams: PyTree
    likes: tuple[jax.ShapeDtypeStruct, ...] = dataclasses.field(metadata={"static": True})


def deflate(level: int = 6) -> Codec:
    """Ships each leaf as a zlib stream; ``decode`` restores every bit, as NumPy arrays.

    Runs on the host, so outside of jit, vmap and their like, and as the last of a chain. Its size
    depends on the data: ``nbytes`` needs a real payload, and counts a length of 4 bytes for each
    leaf, which the receiver needs to tell the streams apart. A leaf that does not compress grows by
    these and by the frame of zlib. Trained float32 weights hardly compress; quantised features
    with many zeros do.

    Args:
      level: effort, from 0 (stored) to 9 (smallest).

    Returns:
      A stateless codec.

    Raises:
      ValueError: ``level`` is out of range; in ``decode``, a stream is corrupt or of another
        length than its leaf.
      TypeError: in ``encode``, a leaf is a tracer; in ``nbytes``, the payload is abstract.

    References:
      Deutsch and Gailly, ZLIB Compressed Data Format Specification (RFC 1950), 1996.

    Example:
      >>> import numpy as np
      >>> codec = deflate()
      >>> _, payload = codec.encode((), {"x": np.zeros(1000, np.float32)}, None)
      >>> codec.nbytes(payload) < 40, codec.decode(payload)["x"].shape
      (True, (1000,))
    """
    if level not in range(10):
        raise ValueError(f"level must be an integer from 0 to 9; got {level!r}")

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        del key
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
            raise TypeError(
                "deflate runs on the host and its size depends on the data: encode arrays outside "
                "of jit, vmap, scan and eval_shape, and put it last in a chain"
            )
        streams = jax.tree.map(lambda x: zlib.compress(leaf_to_bytes(x), level), tree)
        likes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.tree.leaves(tree))
        return state, DeflatePayload(streams, likes)

    return Codec(init, encode, _decode, _nbytes)


def _decode(payload: DeflatePayload) -> PyTree:
    streams, structure = jax.tree.flatten(payload.streams)
    return structure.unflatten(
        [bytes_to_leaf(_inflate(s, trees.nbytes(x)), x) for s, x in zip(streams, payload.likes)]
    )


def _inflate(stream: bytes, size: int) -> bytes:
    # One byte more than due is enough to tell a stream that is too long, and no bomb can unfold.
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(stream, size + 1)
    except zlib.error as error:
        raise ValueError(f"zlib stream is corrupt: {error}") from error
    if len(data) != size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"zlib stream does not hold exactly the {size} bytes of its leaf")
    return data


def _nbytes(payload: DeflatePayload) -> int:
    streams = jax.tree.leaves(payload)
    if not all(isinstance(s, bytes) for s in streams):
        raise TypeError("the size of a deflate payload depends on the data: encode real arrays")
    return sum(LENGTH_PREFIX_BYTES + len(s) for s in streams)
