"""Clipping codec: no upload is longer than a bound, so no user counts more than that."""

from typing import Any

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import Codec

PyTree = Any


def clip(bound: float) -> Codec:
    """Cuts the L2 norm of a whole tree to a bound, on its way in and again on its way out.

    What a lossy codec behind it in a chain adds to the norm, the receiver cuts off:
    ``chain(clip(1.0), affine(8))`` decodes to a norm of at most 1. Only floating leaves count and
    change; the bound holds up to the rounding of their dtype. See `clip_by_norm` for NaN.

    Args:
      bound: longest norm S.

    Returns:
      A stateless codec.

    Raises:
      ValueError: the bound is not positive and finite.

    References:
      McMahan et al., Learning Differentially Private Recurrent Language Models, 2018.

    Example:
      >>> codec = clip(1.0)
      >>> _, payload = codec.encode((), {"w": jnp.array([3.0, 4.0])}, None)
      >>> [round(x, 3) for x in codec.decode(payload)["w"].tolist()], codec.nbytes(payload)
      ([0.6, 0.8], 8)
    """
    check_bound(bound)

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        del key
        return state, clip_by_norm(tree, bound)[0]

    def decode(payload):
        return clip_by_norm(payload, bound)[0]

    return Codec(init, encode, decode, trees.nbytes)


def clip_by_norm(tree: PyTree, bound: Any) -> tuple[PyTree, jax.Array]:
    """Scales the floating leaves so that their joint L2 norm is at most a bound.

    A norm that is NaN or infinite is an upload without sense: all becomes 0, whose norm is within
    any bound.

    Args:
      tree: a pytree of arrays.
      bound: longest norm.

    Returns:
      The tree, and the norm that it had.

    Example:
      >>> clipped, norm = clip_by_norm(jnp.array([3.0, jnp.nan]), 1.0)
      >>> clipped.tolist()
      [0.0, 0.0]
    """
    floats = [x for x in jax.tree.leaves(tree) if _floating(x)]
    squares = [(jnp.asarray(x).astype(jnp.float32) ** 2).sum() for x in floats]
    norm = jnp.sqrt(jnp.asarray(sum(squares), jnp.float32))
    scale = bound / jnp.maximum(norm, bound)
    known = jnp.isfinite(norm)

    def cut(x):
        if not _floating(x):
            return x
        shorter = (x.astype(jnp.float32) * scale).astype(x.dtype)
        # Left as it is when short enough: a second clipping changes nothing.
        return jnp.where(known, jnp.where(norm > bound, shorter, x), 0).astype(x.dtype)

    return jax.tree.map(cut, tree), norm


def check_bound(bound: float) -> None:
    """Refuses a bound that is not positive and finite."""
    if not 0 < bound < float("inf"):
        raise ValueError(f"bound must be above 0 and finite, got {bound!r}")


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
