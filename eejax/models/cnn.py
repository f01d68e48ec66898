"""B-LeNet-style networks: convolutions cut into stages, with an exit after each."""

import flax.linen as nn
import jax

from eejax.core import Exit, StagedModel
from eejax.models.blocks import GROUPS, Dense, GroupNorm
from eejax.models.conv import Conv, max_pool
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.staged import staged


class ConvStage(nn.Module):
    """Convolutions with normalisation and ReLU, pooled after the first.

    Attributes:
      features: channels of every convolution.
      depth: number of convolutions.
      pool: whether to halve height and width.
    """

    features: int
    depth: int
    pool: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images or features ``[batch, height, width, in]`` to features."""
        del train
        x = to_float(x)
        for i in range(1, self.depth + 1):
            x = Conv(self.features, use_bias=False, name=f"conv{i}")(x)
            # Before the normalisation, which then has a quarter of the work.
            x = max_pool(x) if self.pool and i == 1 else x
            x = nn.relu(GroupNorm(name=f"norm{i}")(x))
        return x


class ConvBranch(nn.Module):
    """Early exit: a convolution with stride 2 and a dense layer.

    Attributes:
      classes: number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps features ``[batch, height, width, channels]`` to logits ``[batch, classes]``."""
        del train
        x = Conv(x.shape[-1], strides=2, use_bias=False, name="conv")(x)
        x = nn.relu(GroupNorm(name="norm")(x))
        return Dense(self.classes, name="dense")(x)


class DenseBranch(nn.Module):
    """Final exit: pooling and two dense layers.

    Attributes:
      classes: number of logits.
      hidden: width of the first layer.
      dropout: share of its outputs to drop in training.
    """

    classes: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps features ``[batch, height, width, channels]`` to logits ``[batch, classes]``."""
        x = nn.relu(Dense(self.hidden, gain=2.0, name="hidden")(max_pool(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.classes, name="dense")(x)


def branchy_cnn(
    classes: int = 10,
    widths: tuple[int, ...] = (8, 16, 32),
    *,
    hidden: int = 128,
    dropout: float = 0.0,
) -> StagedModel:
    """Makes a small CNN with an exit after every stage, in the manner of B-LeNet.

    Stage 1 is light, for an end device: one convolution. Later stages have two. All convolutions
    are 3 x 3, and all stages but the last halve height and width. Early exits have a convolution
    and a dense layer, the last exit has two dense layers.

    With the defaults, for one 28 x 28 x 1 image, exits included:

    ======= ======= ========== ============ =====================
    stage   MFLOP   parameters output       output as float32
    ======= ======= ========== ============ =====================
    stage1  0.20    4,610      14 x 14 x 8  6,272 bytes
    stage2  0.77    8,426      7 x 7 x 16   3,136 bytes
    stage3  1.45    52,234     7 x 7 x 32   6,272 bytes
    ======= ======= ========== ============ =====================

    Args:
      classes: number of classes.
      widths: channels of the stages, multiples of 4; their number is that of the exits.
      hidden: width of the hidden layer of the last exit.
      dropout: share of that layer to drop in training, which then needs a key.

    Returns:
      Stages ``"stage1"``, ``"stage2"``, ... and heads ``"exit1"``, ``"exit2"``, ... for images
      ``[batch, height, width, channels]``, uint8 or floats in [-1, 1].

    Raises:
      ValueError: there are no widths, or one is no multiple of 4.

    References:
      Teerapittayanon, McDanel and Kung, BranchyNet: Fast Inference via Early Exiting from Deep
      Neural Networks, 2016.

    Example:
      >>> from eejax import trees
      >>> from eejax.models import init
      >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), "uint8")
      >>> shapes = jax.eval_shape(lambda key: init(branchy_cnn(), key, images), jax.random.key(0))
      >>> sorted(shapes), trees.size(shapes)
      (['exit1', 'exit2', 'exit3', 'stage1', 'stage2', 'stage3'], 65270)
    """
    if not widths or any(width < 1 or width % GROUPS for width in widths):
        raise ValueError(f"widths must be multiples of {GROUPS}, got {widths!r}")
    last = len(widths) - 1
    stages = [
        linen_stage(f"stage{i + 1}", ConvStage(width, depth=min(i + 1, 2), pool=i < last))
        for i, width in enumerate(widths)
    ]
    branches = [ConvBranch(classes)] * last + [DenseBranch(classes, hidden, dropout)]
    exits = [
        Exit(stage.name, linen_stage(f"exit{i}", branch))
        for i, (stage, branch) in enumerate(zip(stages, branches), 1)
    ]
    return staged(tuple(stages), tuple(exits))
