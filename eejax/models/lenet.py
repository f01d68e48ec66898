"""LeNet-5 in its modern form: the small CNN of many federated studies, cut into stages."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.core import Exit, StagedModel
from eejax.models.blocks import fan_in_normal
from eejax.models.conv import conv
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.mlp import DenseStage, Linear
from eejax.models.staged import staged


class PooledConv(nn.Module):
    """A 5 x 5 convolution without padding, pooled, with ReLU.

    Attributes:
      features: channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, (height - 4) // 2, ..., features]``."""
        del train
        x = to_float(x)
        kernel = self.param("kernel", fan_in_normal(2.0), (5, 5, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Pooling after bias and ReLU gives the same, and they would have four times the work.
        return nn.relu(conv_max_pool(x, kernel) + bias[None, None, None])


def conv_max_pool(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves without padding and takes the maximum over windows of 2 x 2, in one convolution.

    The four answers of a window are four channels of a convolution with stride 2, and so of one
    with stride 1 over images whose blocks of 2 x 2 pixels are channels. Its patches are few and
    wide, and those of a 5 x 5 kernel over one channel, which `conv` gathers on CPU, many and thin:
    a training step of `lenet` takes about half as long as by `conv` and `max_pool` (one core, 64
    images, in a scan).

    Args:
      x: ``[batch, height, width, in]``.
      kernel: ``[kh, kw, in, out]``, of odd height and width.

    Returns:
      ``[batch, (height - kh + 1) // 2, (width - kw + 1) // 2, out]``.

    Example:
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> conv_max_pool(x, jnp.ones((3, 3, 1, 1))).ravel()  # Of 45, 54, 81 and 90.
      Array([90.], dtype=float32)
    """
    places = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    four = jnp.concatenate([jnp.pad(kernel, place) for place in places], axis=-1)
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    y = conv(_blocks(x), _blocks(four.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0), padding="VALID")
    return y.reshape(*y.shape[:3], 4, -1).max(3)


def _blocks(x: jax.Array) -> jax.Array:
    """Makes channels of blocks: ``[n, 2 h, 2 w, channels]`` to ``[n, h, w, 4 channels]``."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height // 2, width // 2, 4 * channels)


def lenet(
    classes: int = 10, channels: tuple[int, int] = (6, 16), hidden: tuple[int, int] = (120, 84)
) -> StagedModel:
    """Makes LeNet-5 with ReLU and maximum pooling, without normalisation, one layer a stage.

    LeCun et al. pool by trainable means, connect the second convolution to some of the channels
    only, squash by tanh, and end in radial basis functions; this is the form that took its name
    later. With the defaults, for one 28 x 28 x 1 image, the exit included; FLOPs are those of
    `conv_max_pool`, 1.44 times as many as of convolving and then pooling:

    ======= ======= ========== ============ =====================
    stage   MFLOP   parameters output       output as float32
    ======= ======= ========== ============ =====================
    stage1  0.26    156        12 x 12 x 6  3,456 bytes
    stage2  0.44    2,416      4 x 4 x 16   1,024 bytes
    stage3  0.06    30,840     120          480 bytes
    stage4  0.02    11,014     84           336 bytes
    ======= ======= ========== ============ =====================

    Args:
      classes: number of classes.
      channels: of the two convolutions.
      hidden: widths of the two dense layers.

    Returns:
      Stages ``"stage1"`` to ``"stage4"`` and the head ``"exit"``, a linear layer, for images
      ``[batch, height, width, channels]`` of at least 16 x 16, uint8 or floats near [-1, 1].

    Raises:
      ValueError: ``channels`` or ``hidden`` are not two positive numbers.

    References:
      LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition,
      1998.

    Example:
      >>> from eejax import trees
      >>> from eejax.models import init
      >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), "uint8")
      >>> shapes = jax.eval_shape(lambda key: init(lenet(), key, images), jax.random.key(0))
      >>> sorted(shapes), trees.size(shapes)
      (['exit', 'stage1', 'stage2', 'stage3', 'stage4'], 44426)
    """
    for name, widths in (("channels", channels), ("hidden", hidden)):
        if len(widths) != 2 or any(width < 1 for width in widths):
            raise ValueError(f"{name} must be two positive numbers, got {widths!r}")
    modules = [*map(PooledConv, channels), *(DenseStage(width, dropout=0.0) for width in hidden)]
    stages = tuple(linen_stage(f"stage{i}", module) for i, module in enumerate(modules, 1))
    return staged(stages, (Exit("stage4", linen_stage("exit", Linear(classes))),))
