"""GoogLeNet, the first Inception network."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, GlobalMean, MaxPool, batch_norm

conv_layer = partial(ConvLayer, norm=partial(batch_norm, epsilon=1e-3))

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Columns #1x1 to pool proj of table 1 of the paper."""


class Inception(nn.Module):
    """Four branches that read the same features and are concatenated.

    Attributes:
      widths: channels of the convolutions, in the order of the paper's table.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to the channels of all branches."""
        one, reduce3, three, reduce5, five, project = self.widths
        branches = [
            conv_layer(one, 1, name="conv1x1")(x),
            conv_layer(three, 3, name="conv3x3")(conv_layer(reduce3, 1, name="reduce3x3")(x)),
            conv_layer(five, 3, name="conv5x5")(conv_layer(reduce5, 1, name="reduce5x5")(x)),
            conv_layer(project, 1, name="project")(MaxPool(3, 1, "SAME", name="pool")(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(nn.Module):
    """Three convolutions and nine `Inception` modules, without the auxiliary heads of training.

    This is the form that torchvision has, with 6.62 million parameters: batch normalisation, and
    3 x 3 kernels in the branch that has 5 x 5 ones in the paper. Dropout, which does nothing in
    inference, is left out.

    Attributes:
      classes: number of logits.

    References:
      Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich, Going Deeper
      with Convolutions, 2015.
    """

    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to logits ``[batch, classes]``."""
        x = conv_layer(64, 7, strides=2, name="conv1")(to_float(x))
        x = MaxPool(padding="SAME", name="pool1")(x)
        x = conv_layer(192, name="conv3")(conv_layer(64, 1, name="conv2")(x))
        x = MaxPool(padding="SAME", name="pool2")(x)
        for name, widths in MODULES.items():
            x = Inception(widths, name=f"inception_{name}")(x)
            if name == "3b":
                x = MaxPool(padding="SAME", name="pool3")(x)
            if name == "4e":
                x = MaxPool(2, padding="SAME", name="pool4")(x)
        return nn.Dense(self.classes, name="fc")(GlobalMean(name="pool5")(x))
