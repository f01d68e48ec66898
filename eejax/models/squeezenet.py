"""SqueezeNet 1.1."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, GlobalMean, MaxPool


class Fire(nn.Module):
    """Squeezes the channels by a 1 x 1 convolution and expands them by two, 1 x 1 and 3 x 3.

    Attributes:
      squeeze: channels between.
      expand: channels of each of the two.
    """

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height, width, 2 * expand]``."""
        x = ConvLayer(self.squeeze, 1, norm=None, name="squeeze")(x)
        narrow = ConvLayer(self.expand, 1, norm=None, name="expand1x1")(x)
        wide = ConvLayer(self.expand, 3, norm=None, name="expand3x3")(x)
        return jnp.concatenate([narrow, wide], axis=-1)


class SqueezeNet(nn.Module):
    """Eight `Fire` modules between two convolutions, without dense layers.

    This is version 1.1 of the authors, which pools earlier: 2.4 times less work than the network
    of the paper at the same accuracy. Dropout, which does nothing in inference, is left out.

    Attributes:
      classes: number of logits.

    References:
      Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, SqueezeNet: AlexNet-Level Accuracy with
      50x Fewer Parameters and <0.5MB Model Size, 2016.
    """

    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to logits ``[batch, classes]``."""
        x = ConvLayer(64, 3, strides=2, padding=0, norm=None, name="conv1")(to_float(x))
        x = MaxPool(name="pool1")(x)
        x = Fire(16, 64, name="fire3")(Fire(16, 64, name="fire2")(x))
        x = MaxPool(name="pool3")(x)
        x = Fire(32, 128, name="fire5")(Fire(32, 128, name="fire4")(x))
        x = MaxPool(name="pool5")(x)
        x = Fire(48, 192, name="fire7")(Fire(48, 192, name="fire6")(x))
        x = Fire(64, 256, name="fire9")(Fire(64, 256, name="fire8")(x))
        x = ConvLayer(self.classes, 1, norm=None, name="conv10")(x)
        return GlobalMean(name="pool10")(x)
