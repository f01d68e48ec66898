"""Affine codec: floating leaves travel as 8- or 4-bit integers with a scale and a zero point."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import Codec

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AffinePayload:
    """What crosses the link; a value is ``(code - zero_point) * scale``.

    Attributes:
      codes: the tree, its floating leaves as uint8: of the leaf's shape for 8 bits, shaped
        ``[ceil(size / 2)]`` for 4 bits, the even element in the low half of a byte.
      scales: for every leaf in tree order its step, size 1 along the reduced axes; None if the leaf
        travels unchanged.
      zero_points: for every leaf the uint8 code of 0.0, shaped as its scale, or None.
      likes: for every leaf the shape and dtype to restore, or None; static, so it costs no bytes.
      bits: 8 or 4; static.
    """

    codes: PyTree
    scales: tuple[jax.Array | None, ...]
    zero_points: tuple[jax.Array | None, ...]
    likes: tuple[jax.ShapeDtypeStruct | None, ...] = dataclasses.field(metadata={"static": True})
    bits: int = dataclasses.field(metadata={"static": True})


def affine(bits: Literal[8, 4] = 8, *, axis: int | None = None, stochastic: bool = False) -> Codec:
    """Ships floating leaves as unsigned integers over their range, which is made to hold 0.

    With ``low <= 0 <= high`` the range of a leaf or channel, the step is ``(high - low) /
    (2**bits - 1)`` and the zero point an integer, so 0.0 is exact and any other value is at most
    half a step off. Stochastic rounding is unbiased, less than one step off, and has one step fewer
    in its range so that rounding up never clips. Both hold up to float32 arithmetic. Leaves whose
    elements are all equal, and empty ones, are exact; XLA on CPU flushes subnormal numbers to 0.

    A leaf or channel that holds NaN or infinity comes back as NaN throughout: a range does not
    exist, and a broken update is to stay visible. Leaves that are not floating (images in uint8,
    labels) travel unchanged. Each leaf or channel costs 5 bytes for scale and zero point, or 9 if
    it is float64.

    Args:
      bits: 8, or 4 packed two to a byte.
      axis: channel axis; every channel of a leaf has its own range. Leaves of less than two axes,
        and all leaves if None, have one range.
      stochastic: round up with the probability that makes the expectation exact; ``encode`` then
        needs a key.

    Returns:
      A stateless codec.

    Raises:
      ValueError: ``bits`` is not 8 or 4; in ``encode``, a leaf has no such axis, or the key is
        missing.

    References:
      Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
      Only Inference, 2018. Stochastic rounding: Alistarh et al., QSGD: Communication-Efficient SGD
      via Gradient Quantization and Encoding, 2017, which scales by the norm instead of the range.

    Example:
      >>> codec = affine(bits=4)
      >>> _, payload = codec.encode((), {"x": jnp.array([-5.0, 0.0, 10.0])}, None)
      >>> codec.nbytes(payload)  # Two bytes of codes, four of scale, one of zero point.
      7
      >>> codec.decode(payload)["x"].tolist()
      [-5.0, 0.0, 10.0]
    """
    if bits not in (8, 4):
        raise ValueError(f"bits must be 8 or 4; got {bits!r}")

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        if stochastic and key is None:
            raise ValueError("affine(stochastic=True) needs a key; got None")
        named, structure = jax.tree_util.tree_flatten_with_path(tree)
        rows = []
        for i, (path, x) in enumerate(named):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                rows.append((x, None, None, None))
                continue
            leaf_key = jax.random.fold_in(key, i) if stochastic else None
            x = jnp.asarray(x)
            axes = _reduced_axes(trees.path_name(path), x.ndim, axis)
            codes, scale, zero_point = _quantise(x, bits, axes, leaf_key)
            codes = _pack(codes) if bits == 4 else codes
            rows.append((codes, scale, zero_point, jax.ShapeDtypeStruct(x.shape, x.dtype)))
        codes, scales, zero_points, likes = zip(*rows) if rows else ((), (), (), ())
        return state, AffinePayload(structure.unflatten(codes), scales, zero_points, likes, bits)

    return Codec(init, encode, _decode, trees.nbytes)


def _reduced_axes(name: str, ndim: int, channel: int | None) -> tuple[int, ...]:
    if channel is None or ndim < 2:
        return tuple(range(ndim))
    if not -ndim <= channel < ndim:
        raise ValueError(f"axis {channel} is out of range for leaf {name!r} of {ndim} axes")
    return tuple(i for i in range(ndim) if i != channel % ndim)


def _quantise(
    x: jax.Array, bits: int, axes: tuple[int, ...], key: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # No jnp.promote_types, which refuses dtypes of 8 bits.
    x = x if jax.dtypes.itemsize_bits(x.dtype) >= 32 else x.astype(jnp.float32)
    levels = 2**bits - 1
    steps = levels if key is None else levels - 1
    low = jnp.min(x, axes, keepdims=True, initial=jnp.inf)
    high = jnp.max(x, axes, keepdims=True, initial=-jnp.inf)
    bottom, top = jnp.minimum(low, 0), jnp.maximum(high, 0)
    # Equal elements lie exactly one step from zero. Halves keep the widest ranges finite.
    scale = jnp.where(low == high, jnp.abs(low), (top / 2 - bottom / 2) / (steps / 2))
    scale = jnp.where(jnp.isfinite(scale), scale, jnp.nan)
    step = jnp.where(scale > 0, scale, 1)
    # XLA may multiply by a reciprocal, which can underflow; for equal elements 1 is to be exact.
    ratio = jnp.where(low == high, jnp.sign(x), x / step)
    if key is None:
        zero_point = jnp.round(-bottom / step)
        codes = jnp.round(ratio) + zero_point
    else:
        # Rounding the zero point up leaves the spare step above the range, none of it below.
        zero_point = jnp.ceil(-bottom / step)
        floor = jnp.floor(ratio)
        up = jax.random.uniform(key, x.shape, x.dtype) < ratio - floor
        codes = floor + up + zero_point
    codes, zero_point = (jnp.clip(a, 0, levels).astype(jnp.uint8) for a in (codes, zero_point))
    return codes, scale, zero_point


def _pack(codes: jax.Array) -> jax.Array:
    flat = codes.ravel()
    pairs = jnp.pad(flat, (0, flat.size % 2)).reshape(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _unpack(packed: jax.Array, shape: tuple[int, ...], size: int) -> jax.Array:
    return jnp.stack([packed & 15, packed >> 4], axis=-1).ravel()[:size].reshape(shape)


def _decode(payload: AffinePayload) -> PyTree:
    def restore(codes, scale, zero_point, like):
        if like is None:
            return codes
        codes, scale = jnp.asarray(codes), jnp.asarray(scale)
        if payload.bits == 4:
            codes = _unpack(codes, like.shape, like.size)
        return ((codes.astype(scale.dtype) - zero_point.astype(scale.dtype)) * scale).astype(
            like.dtype
        )

    leaves, structure = jax.tree.flatten(payload.codes)
    columns = (leaves, payload.scales, payload.zero_points, payload.likes)
    return structure.unflatten([restore(*row) for row in zip(*columns)])
