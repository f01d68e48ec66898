"""AlexNet in its form with one tower."""

import flax.linen as nn
import jax

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, MaxPool


class AlexNet(nn.Module):
    """Five convolutions and three dense layers, as Krizhevsky gave them for one tower.

    This is the form that torchvision has, with 61.10 million parameters. The network of 2012 has
    96, 256, 384, 384 and 256 channels, half of the layers in two groups for two GPUs, local
    response normalisation, and 60.97 million. Dropout, which does nothing in inference, is left
    out.

    Attributes:
      classes: number of logits.

    References:
      Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
      Networks, 2012. Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks,
      2014.
    """

    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, 224, 224, 3]`` to logits ``[batch, classes]``."""
        x = ConvLayer(64, 11, strides=4, padding=2, norm=None, name="conv1")(to_float(x))
        x = MaxPool(name="pool1")(x)
        x = MaxPool(name="pool2")(ConvLayer(192, 5, norm=None, name="conv2")(x))
        for i, features in enumerate((384, 256, 256), 3):
            x = ConvLayer(features, norm=None, name=f"conv{i}")(x)
        x = MaxPool(name="pool5")(x)
        x = nn.relu(nn.Dense(4096, name="fc6")(x.reshape(x.shape[0], -1)))
        x = nn.relu(nn.Dense(4096, name="fc7")(x))
        return nn.Dense(self.classes, name="fc8")(x)
