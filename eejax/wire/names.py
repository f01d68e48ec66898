"""Codecs by name, for configs and the command line."""

import jax.numpy as jnp

from eejax.core import Codec
from eejax.names import suggest
from eejax.wire.affine import affine
from eejax.wire.cast import cast
from eejax.wire.chain import chain
from eejax.wire.deflate import deflate
from eejax.wire.identity import identity
from eejax.wire.topk import topk

_FORMS = ("identity", "bf16", "f16", "int8", "int4", "topk:FRACTION", "zlib", "zlib:LEVEL")


def from_name(text: str) -> Codec:
    """Makes the codec that a config names.

    Args:
      text: one of ``identity``, ``bf16``, ``f16``, ``int8``, ``int4``, ``topk:FRACTION``, ``zlib``
        and ``zlib:LEVEL``, or several joined by ``+``, which are chained from left to right.

    Returns:
      The codec.

    Raises:
      ValueError: a name is unknown (tells the nearest one), or its argument is missing, needless,
        no number or out of range.

    Example:
      >>> import numpy as np
      >>> codec = from_name("topk:0.1+int8")
      >>> update = np.arange(100, dtype=np.float32)
      >>> codec.nbytes(codec.encode(codec.init(update), update, None)[1])
      25
    """
    codecs = [_one(part.strip(), text) for part in text.split("+")]
    return codecs[0] if len(codecs) == 1 else chain(*codecs)


def _one(part: str, text: str) -> Codec:
    name, colon, argument = part.partition(":")
    try:
        match name, argument if colon else None:
            case "identity", None:
                return identity()
            case "bf16", None:
                return cast(jnp.bfloat16)
            case "f16", None:
                return cast(jnp.float16)
            case "int8", None:
                return affine(bits=8)
            case "int4", None:
                return affine(bits=4)
            case "topk", str(fraction):
                return topk(float(fraction))
            case "zlib", None:
                return deflate()
            case "zlib", str(level):
                return deflate(int(level))
    except ValueError as error:
        raise ValueError(f"codec {part!r} in {text!r}: {error}") from error
    hint = suggest(name, _FORMS)
    raise ValueError(f"codec {part!r} in {text!r} is none of {', '.join(_FORMS)}{hint}")
