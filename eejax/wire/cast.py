"""Cast codec: floating leaves travel at a narrower floating dtype."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eejax import trees
from eejax.core import Codec

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CastPayload:
    """What crosses the link.

    Attributes:
      leaves: the tree, its wider floating leaves narrowed.
      dtypes: for every leaf in tree order the dtype to restore, None if it travels unchanged.
        Static, so it costs no bytes.
    """

    leaves: PyTree
    dtypes: tuple[np.dtype | None, ...] = dataclasses.field(metadata={"static": True})


def cast(dtype: Any) -> Codec:
    """Ships floating leaves at ``dtype``, rounded to nearest even.

    The relative error of a value in the normal range of ``dtype`` is at most half its
    ``finfo.eps``. A value beyond the largest finite one becomes what the dtype has for overflow:
    infinity for float16 and bfloat16, NaN for dtypes without infinity such as float8_e4m3fn. NaN
    and infinities survive where the dtype has them. Leaves that are not floating, or already as
    narrow as ``dtype``, travel unchanged. To 4-bit dtypes, XLA on CPU rounds in some loops by way
    of a wider dtype, so a value next to a tie may go to the other side.

    Args:
      dtype: a floating dtype, such as ``jnp.bfloat16`` or ``jnp.float16``.

    Returns:
      A stateless codec; ``decode`` restores the original dtypes.

    Raises:
      ValueError: ``dtype`` is not floating.

    Example:
      >>> codec = cast(jnp.bfloat16)
      >>> tree = {"x": np.ones((2, 3), np.float32), "label": np.ones(2, np.int32)}
      >>> _, payload = codec.encode(codec.init(tree), tree, None)
      >>> codec.nbytes(payload), codec.decode(payload)["x"].dtype
      (20, dtype('float32'))
    """
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating, such as bfloat16 or float16; got {dtype}")

    def init(tree):
        del tree
        return ()

    def narrows(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return floating and jax.dtypes.itemsize_bits(dtype) < jax.dtypes.itemsize_bits(x.dtype)

    def encode(state, tree, key):
        del key
        leaves, structure = jax.tree.flatten(tree)
        # A NumPy float64 enters JAX, and so comes back, as float32 unless x64 is enabled.
        leaves = [jnp.asarray(x) if narrows(x) else x for x in leaves]
        dtypes = tuple(x.dtype if narrows(x) else None for x in leaves)
        narrow = [x if d is None else x.astype(dtype) for x, d in zip(leaves, dtypes)]
        return state, CastPayload(structure.unflatten(narrow), dtypes)

    return Codec(init, encode, _decode, trees.nbytes)


def _decode(payload: CastPayload) -> PyTree:
    leaves, structure = jax.tree.flatten(payload.leaves)
    return structure.unflatten(
        [x if d is None else jnp.asarray(x).astype(d) for x, d in zip(leaves, payload.dtypes)]
    )
