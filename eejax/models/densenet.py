"""DenseNet-121."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.flax_stage import to_float
from eejax.models.native import ConvLayer, GlobalMean, MaxPool, batch_norm


class DenseLayer(nn.Module):
    """Adds channels to its input: a 1 x 1 and a 3 x 3 convolution, activated before.

    Attributes:
      growth: channels to add.
    """

    growth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height, width, in + growth]``."""
        y = nn.relu(batch_norm(name="norm")(x))
        y = ConvLayer(4 * self.growth, 1, name="conv1")(y)
        # What normalises and activates this is in the layers that read it.
        y = nn.Conv(self.growth, (3, 3), padding=1, use_bias=False, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
    """Halves the channels, the height and the width."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height / 2, width / 2, in / 2]``."""
        x = nn.relu(batch_norm(name="norm")(x))
        x = nn.Conv(x.shape[-1] // 2, (1, 1), use_bias=False, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """Blocks in which every layer reads the outputs of all layers before.

    Attributes:
      blocks: layers of each block; those of DenseNet-121 by default.
      growth: channels that a layer adds.
      classes: number of logits.

    References:
      Huang, Liu, van der Maaten and Weinberger, Densely Connected Convolutional Networks, 2017.
    """

    blocks: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to logits ``[batch, classes]``."""
        x = ConvLayer(2 * self.growth, 7, strides=2, name="conv1")(to_float(x))
        x = MaxPool(padding=1, name="pool1")(x)
        for block, layers in enumerate(self.blocks, 1):
            if block > 1:
                x = Transition(name=f"transition{block - 1}")(x)
            for i in range(1, layers + 1):
                x = DenseLayer(self.growth, name=f"dense{block}_{i}")(x)
        x = nn.relu(batch_norm(name="norm")(x))
        return nn.Dense(self.classes, name="fc")(GlobalMean(name="pool")(x))
