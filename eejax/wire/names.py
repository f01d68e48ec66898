"""Codecs by name, for configs and the command line."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from eejax.core import Codec
from eejax.names import suggest
from eejax.wire.affine import affine
from eejax.wire.cast import cast
from eejax.wire.chain import chain
from eejax.wire.count_sketch import count_sketch
from eejax.wire.deflate import deflate
from eejax.wire.identity import identity
from eejax.wire.topk import topk

_FORMS = (
    *("identity", "bf16", "f16", "int8", "int4", "topk:FRACTION", "sketch:FRACTION"),
    *("zlib", "zlib:LEVEL"),
)


def from_name(text: str, more: Mapping[str, Callable[[float], Codec]] | None = None) -> Codec:
    """Makes the codec that a config names.

    Args:
      text: one of ``identity``, ``bf16``, ``f16``, ``int8``, ``int4``, ``topk:FRACTION``,
        ``sketch:FRACTION`` (see `count_sketch`), ``zlib`` and ``zlib:LEVEL``, or several joined by
        ``+``, which are chained from left to right.
      more: further codecs that take one number, by their form, such as ``clip:BOUND``.

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
    codecs = [_one(part.strip(), text, more or {}) for part in text.split("+")]
    return codecs[0] if len(codecs) == 1 else chain(*codecs)


def _one(part: str, text: str, more: Mapping[str, Callable[[float], Codec]]) -> Codec:
    name, colon, argument = part.partition(":")
    further = {form.partition(":")[0]: make for form, make in more.items()}
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
            case "sketch", str(fraction):
                return count_sketch(float(fraction))
            case "zlib", None:
                return deflate()
            case "zlib", str(level):
                return deflate(int(level))
            case _, str(number) if name in further:
                return further[name](float(number))
    except ValueError as error:
        raise ValueError(f"codec {part!r} in {text!r}: {error}") from error
    forms = (*_FORMS, *more)
    hint = suggest(name, forms)
    raise ValueError(f"codec {part!r} in {text!r} is none of {', '.join(forms)}{hint}")
