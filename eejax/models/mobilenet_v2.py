"""MobileNetV2."""

import flax.linen as nn
import jax

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, GlobalMean

GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Columns t, c, n and s of table 2 of the paper: expansion, channels, blocks, first strides."""


class InvertedResidual(nn.Module):
    """Expands the channels, convolves each alone, and projects them without activation.

    Attributes:
      features: output channels.
      strides: of the convolution of single channels.
      expansion: factor of the channels between; 1 leaves out the first convolution.
    """

    features: int
    strides: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height', width', features]``."""
        y, hidden = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = ConvLayer(hidden, 1, activation=nn.relu6, name="expand")(y)
        y = ConvLayer(
            hidden, 3, self.strides, groups=hidden, activation=nn.relu6, name="depthwise"
        )(y)
        y = ConvLayer(self.features, 1, activation=None, name="project")(y)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """A convolution, 17 `InvertedResidual` blocks, a convolution and a dense layer.

    Its width is 1.0 and its image size 224, with 3.50 million parameters. Dropout, which does
    nothing in inference, is left out.

    Attributes:
      classes: number of logits.

    References:
      Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2: Inverted Residuals and Linear
      Bottlenecks, 2018.
    """

    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to logits ``[batch, classes]``."""
        x = ConvLayer(32, 3, strides=2, activation=nn.relu6, name="conv1")(to_float(x))
        for group, (expansion, features, blocks, strides) in enumerate(GROUPS, 1):
            for i in range(1, blocks + 1):
                block = InvertedResidual(
                    features, strides if i == 1 else 1, expansion, name=f"bottleneck{group}_{i}"
                )
                x = block(x)
        x = ConvLayer(1280, 1, activation=nn.relu6, name="conv2")(x)
        return nn.Dense(self.classes, name="fc")(GlobalMean(name="pool")(x))
