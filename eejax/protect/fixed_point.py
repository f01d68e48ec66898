"""Fixed-point codec: uploads as integers, whose sum is exact and may wear masks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import Codec

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FixedPointPayload:
    """What crosses the link; a value is ``code * step``.

    Attributes:
      codes: the tree as int32, which modulo 2^32 is what secure aggregation masks.
      dtypes: for every leaf in tree order the dtype to restore; static.
    """

    codes: PyTree
    dtypes: tuple[Any, ...] = dataclasses.field(metadata={"static": True})


def fixed_point(limit: float, clients: int, levels: int = 2**22) -> Codec:
    """Rounds values in ``[-limit, limit]`` to integers in ``[-levels, levels]``.

    Elements outside are cut to the limit, NaN becomes 0: the server, which sees only a sum, cannot
    tell who sent it. Every client uses the same step, ``limit / levels``, so the sum of the codes
    times the step is the sum of the values, at most half a step per client off.

    Args:
      limit: largest magnitude of an element.
      clients: most uploads that are summed; ``clients * levels`` must stay below 2^31.
      levels: codes on either side of 0.

    Returns:
      A stateless codec.

    Raises:
      ValueError: a number is out of range; in ``encode``, a leaf is not floating.

    References:
      Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, 2017.

    Example:
      >>> codec = fixed_point(limit=1.0, clients=10, levels=100)
      >>> _, payload = codec.encode((), jnp.array([0.257, -3.0]), None)
      >>> payload.codes.tolist(), codec.decode(payload).round(2).tolist(), codec.nbytes(payload)
      ([26, -100], [0.25999999046325684, -1.0], 8)
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit must be above 0 and finite, got {limit!r}")
    if clients < 1 or not 1 <= levels <= (2**31 - 1) // clients:
        raise ValueError(
            f"the sum of clients={clients!r} codes of up to levels={levels!r} must stay below "
            f"2**31: levels is at most {(2**31 - 1) // max(1, clients)}"
        )

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        del key
        leaves, structure = jax.tree.flatten(tree)
        for x in leaves:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"fixed_point needs floating leaves, got {x.dtype}")
        codes = [_round(jnp.asarray(x), limit, levels) for x in leaves]
        return state, FixedPointPayload(structure.unflatten(codes), tuple(x.dtype for x in leaves))

    def decode(payload):
        codes, structure = jax.tree.flatten(payload.codes)
        return structure.unflatten(
            [
                (c.astype(jnp.float32) * jnp.float32(limit / levels)).astype(d)
                for c, d in zip(codes, payload.dtypes)
            ]
        )

    return Codec(init, encode, decode, trees.nbytes)


def _round(x: jax.Array, limit: float, levels: int) -> jax.Array:
    share = jnp.clip(x.astype(jnp.float32) / limit, -1, 1)
    # Above 2^24 the product may round up beyond the last level, hence the second clip.
    codes = jnp.round(jnp.nan_to_num(share) * levels).astype(jnp.int32)
    return jnp.clip(codes, -levels, levels)
