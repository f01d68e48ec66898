"""Chain codec: the payload of one codec is what the next one sends."""

import jax

from eejax.core import Codec
from eejax.wire.size import abstract_payload


def chain(*codecs: Codec) -> Codec:
    """Encodes from left to right and decodes from right to left.

    ``chain(topk(0.1), affine(8))`` quantises the values of a sparse update and leaves its indices,
    which are integers, alone; ``chain(affine(8), deflate())`` compresses codes, scales and zero
    points. A codec that works on floating leaves also sees the scales of an `affine` before it, so
    `affine` goes after `cast` and `topk`.

    Args:
      *codecs: at least one; a host codec such as `deflate` only as the last.

    Returns:
      A codec whose state is the tuple of their states, whose size is that of the last payload, and
      which gives each codec a key of its own.

    Raises:
      ValueError: no codec is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from eejax.wire.affine import affine
      >>> from eejax.wire.topk import topk
      >>> codec = chain(topk(k=2), affine(bits=8))
      >>> gradient = {"w": jnp.array([0.0, 4.0, 1.0, -1.0, 2.0])}
      >>> state, payload = codec.encode(codec.init(gradient), gradient, None)
      >>> codec.nbytes(payload)  # Two codes, two indices, scale and zero point.
      9
    """
    if not codecs:
        raise ValueError("chain needs at least one codec; see eejax.wire.identity")

    def init(tree):
        states = []
        for i, codec in enumerate(codecs):
            states.append(codec.init(tree))
            # Not traced for the last, which may run on the host.
            if i + 1 < len(codecs):
                tree = abstract_payload(codec, tree)
        return tuple(states)

    def encode(state, tree, key):
        keys = [None] * len(codecs) if key is None else jax.random.split(key, len(codecs))
        states = []
        for codec, codec_state, codec_key in zip(codecs, state, keys, strict=True):
            codec_state, tree = codec.encode(codec_state, tree, codec_key)
            states.append(codec_state)
        return tuple(states), tree

    def decode(payload):
        for codec in reversed(codecs):
            payload = codec.decode(payload)
        return payload

    return Codec(init, encode, decode, codecs[-1].nbytes)
