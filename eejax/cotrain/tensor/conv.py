"""Channel-parallel convolution: the primitive with another product."""

import functools
from typing import Literal

import jax
from jax.sharding import PartitionSpec as P

from eejax import models
from eejax.cotrain.tensor.layout import Plan
from eejax.cotrain.tensor.linear import linear


def conv(
    plan: Plan,
    x: jax.Array,
    kernel: jax.Array,
    b: jax.Array | None = None,
    *,
    strides: int = 1,
    padding: Literal["SAME", "VALID"] = "SAME",
) -> jax.Array:
    """Convolves images whose channels, kernels and batch are split as a plan says.

    Images take the place of tokens and channels that of features; height and width are whole.

    Args:
      plan: ``layout.up`` or ``layout.down``.
      x: ``[images, height, width, in]``, a block.
      kernel: ``[kh, kw, in, out]``, a block.
      b: ``[out]``, a block.
      strides: the same along height and width.
      padding: ``"SAME"`` or ``"VALID"``.

    Returns:
      ``[images, height', width', out]``, a block.
    """
    product = functools.partial(models.conv, strides=strides, padding=padding)
    return linear(plan, x, kernel, b, product)


def conv_specs(plan: Plan) -> dict:
    """Gives the partition specs of images ``x``, ``kernel``, ``b`` and result ``y``."""
    return {
        "x": P(plan.x[0], None, None, plan.x[1]),
        "kernel": P(None, None, *plan.w),
        "b": plan.b,
        "y": P(plan.y[0], None, None, plan.y[1]),
    }
