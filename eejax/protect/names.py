"""Codecs of uploads by name, for configs and the command line."""

from eejax import wire
from eejax.core import Codec
from eejax.protect.clip import clip
from eejax.protect.gaussian_noise import gaussian_noise

_MORE = {"clip:BOUND": clip, "noise:STD": gaussian_noise}


def codec_from_name(text: str) -> Codec:
    """Makes the codec of uploads that a config names.

    Args:
      text: what `eejax.wire.from_name` takes, and ``clip:BOUND`` (see `clip`) and ``noise:STD``
        (see `gaussian_noise`), such as ``"clip:1.0+noise:0.1+int8"``.

    Returns:
      The codec; with noise, its ``encode`` needs a key.

    Raises:
      ValueError: a name is unknown (tells the nearest one), or its argument is missing, needless,
        no number or out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> codec = codec_from_name("clip:1.0+bf16")
      >>> _, payload = codec.encode(codec.init(jnp.ones(4)), jnp.ones(4), None)
      >>> codec.decode(payload).tolist(), codec.nbytes(payload)
      ([0.5, 0.5, 0.5, 0.5], 8)
    """
    return wire.from_name(text, _MORE)
