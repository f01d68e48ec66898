"""Residual networks: B-ResNet for small images, in stages with exits, and those for ImageNet."""

import flax.linen as nn
import jax

from eejax.core import Exit, StagedModel
from eejax.models.blocks import GROUPS, Dense, GroupNorm
from eejax.models.conv import Conv
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.native import ConvLayer, GlobalMean, MaxPool
from eejax.models.staged import staged


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input passes unchanged.

    Where the shape changes, a 1 x 1 convolution projects the input (option B of He et al.).

    Attributes:
      features: output channels.
      strides: of the first convolution and the projection.
    """

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features ``[batch, height, width, in]`` to features."""
        y = Conv(self.features, strides=self.strides, use_bias=False, name="conv1")(x)
        y = nn.relu(GroupNorm(name="norm1")(y))
        y = GroupNorm(name="norm2")(Conv(self.features, use_bias=False, name="conv2")(y))
        if x.shape != y.shape:
            x = Conv(self.features, 1, self.strides, use_bias=False, name="project")(x)
            x = GroupNorm(name="project_norm")(x)
        return nn.relu(x + y)


class ResidualStage(nn.Module):
    """A group of blocks of equal width.

    Attributes:
      features: channels of all blocks.
      blocks: their number.
      first: whether this stage takes the image; if not, it halves height and width.
    """

    features: int
    blocks: int
    first: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images or features ``[batch, height, width, in]`` to features."""
        del train
        if self.first:
            x = Conv(self.features, use_bias=False, name="stem")(to_float(x))
            x = nn.relu(GroupNorm(name="stem_norm")(x))
        for i in range(1, self.blocks + 1):
            strides = 1 if self.first or i > 1 else 2
            x = BasicBlock(self.features, strides, name=f"block{i}")(x)
        return x


class PooledLinear(nn.Module):
    """An exit: the mean over height and width, and a dense layer.

    Attributes:
      classes: number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps features ``[batch, height, width, channels]`` to logits ``[batch, classes]``."""
        del train
        return Dense(self.classes, name="dense")(x.mean((1, 2)))


def resnet(
    classes: int = 10, blocks: int = 1, widths: tuple[int, ...] = (16, 32, 64)
) -> StagedModel:
    """Makes a residual network as He et al. did for CIFAR-10, with an exit after every stage.

    With the three default widths its depth is ``6 * blocks + 2``: ResNet-8, ResNet-20 with 3
    blocks, ResNet-56 with 9. Other than in the paper, the normalisation is by groups, since batch
    statistics do not carry over between clients; and other than in BranchyNet, early exits have no
    convolutions but are as the last one.

    Args:
      classes: number of classes.
      blocks: residual blocks of each stage.
      widths: channels of the stages, multiples of 4.

    Returns:
      Stages ``"stage1"``, ``"stage2"``, ... and heads ``"exit1"``, ``"exit2"``, ... for images
      ``[batch, height, width, channels]``, uint8 or floats in [-1, 1].

    Raises:
      ValueError: there are no blocks or widths, or a width is no multiple of 4.

    References:
      He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016. Wu and He, Group
      Normalization, 2018. Teerapittayanon, McDanel and Kung, BranchyNet: Fast Inference via Early
      Exiting from Deep Neural Networks, 2016.

    Example:
      >>> from eejax import trees
      >>> from eejax.models import init
      >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), "uint8")
      >>> trees.size(jax.eval_shape(lambda key: init(resnet(), key, images), jax.random.key(0)))
      78542
    """
    if blocks < 1:
        raise ValueError(f"blocks must be >= 1, got {blocks}")
    if not widths or any(width < 1 or width % GROUPS for width in widths):
        raise ValueError(f"widths must be multiples of {GROUPS}, got {widths!r}")
    stages = tuple(
        linen_stage(f"stage{i}", ResidualStage(width, blocks, first=i == 1))
        for i, width in enumerate(widths, 1)
    )
    exits = tuple(
        Exit(stage.name, linen_stage(f"exit{i}", PooledLinear(classes)))
        for i, stage in enumerate(stages, 1)
    )
    return staged(stages, exits)


class ResidualBlock(nn.Module):
    """A block of the networks for ImageNet, with batch normalisation.

    Attributes:
      features: channels of the 3 x 3 convolutions.
      strides: of the first of them, and of the projection.
      bottleneck: two 1 x 1 convolutions around one 3 x 3, the last with four times the channels;
        else two 3 x 3 ones.
    """

    features: int
    strides: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features ``[batch, height, width, in]`` to features."""
        if self.bottleneck:
            y = ConvLayer(self.features, 1, name="conv1")(x)
            y = ConvLayer(self.features, 3, self.strides, name="conv2")(y)
            y = ConvLayer(4 * self.features, 1, activation=None, name="conv3")(y)
        else:
            y = ConvLayer(self.features, 3, self.strides, name="conv1")(x)
            y = ConvLayer(self.features, 3, activation=None, name="conv2")(y)
        if x.shape != y.shape:
            x = ConvLayer(y.shape[-1], 1, self.strides, activation=None, name="project")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A network of He et al. for ImageNet, as published, to be traced and cut anywhere.

    Bottlenecks have their strides in the 3 x 3 convolution, as in torchvision: 4.09 instead of 3.8
    billion multiply-adds for ResNet-50 at the same number of parameters.

    Attributes:
      blocks: of the four layers: ``(2, 2, 2, 2)`` is ResNet-18, ``(3, 4, 6, 3)`` ResNet-34, and
        ResNet-50 with bottlenecks.
      bottleneck: the kind of all blocks, as for `ResidualBlock`.
      classes: number of logits.

    References:
      He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, height, width, 3]`` to logits ``[batch, classes]``."""
        x = ConvLayer(64, 7, strides=2, name="conv1")(to_float(x))
        x = MaxPool(padding=1, name="pool1")(x)
        for layer, blocks in enumerate(self.blocks, 1):
            for i in range(blocks):
                strides = 2 if layer > 1 and i == 0 else 1
                block = ResidualBlock(
                    32 * 2**layer, strides, self.bottleneck, name=f"layer{layer}_{i}"
                )
                x = block(x)
        return nn.Dense(self.classes, name="fc")(GlobalMean(name="pool")(x))
