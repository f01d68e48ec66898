"""VGG-16 and VGG-19."""

import flax.linen as nn
import jax

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, MaxPool

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five groups."""


class VGG(nn.Module):
    """Five groups of 3 x 3 convolutions, each halved by pooling, and three dense layers.

    These are configurations D and E of the paper, without normalisation. Dropout, which does
    nothing in inference, is left out.

    Attributes:
      depths: convolutions of the five groups: ``(2, 2, 3, 3, 3)`` is VGG-16, ``(2, 2, 4, 4, 4)``
        VGG-19.
      classes: number of logits.

    References:
      Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
      2015.
    """

    depths: tuple[int, ...]
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, 224, 224, 3]`` to logits ``[batch, classes]``."""
        x = to_float(x)
        for group, (depth, width) in enumerate(zip(self.depths, WIDTHS, strict=True), 1):
            for i in range(1, depth + 1):
                x = ConvLayer(width, norm=None, name=f"conv{group}_{i}")(x)
            x = MaxPool(2, name=f"pool{group}")(x)
        x = nn.relu(nn.Dense(4096, name="fc6")(x.reshape(x.shape[0], -1)))
        x = nn.relu(nn.Dense(4096, name="fc7")(x))
        return nn.Dense(self.classes, name="fc8")(x)
