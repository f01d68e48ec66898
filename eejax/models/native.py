"""Layers of published networks that only answer: native convolutions, normalisation by statistics.

These networks are traced to be cut, not trained on clients. So their convolutions are
``conv_general_dilated``, whose FLOPs and bytes are those of the layer in a paper or a profile: the
patches of `eejax.models.conv` would count as memory that no other framework moves. Batch
normalisation uses its running averages, which a compiler folds into the convolution. Padding is
symmetric, as where the published weights were trained.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax

batch_norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)
"""Normalisation by the mean and variance of training, kept apart from the parameters."""


class ConvLayer(nn.Module):
    """A square convolution with what runs in the same kernel: normalisation and activation.

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      strides: the same along height and width.
      padding: rows and columns of zeros on every side; ``(kernel_size - 1) // 2`` by default.
      groups: of channels that are convolved apart.
      norm: a normalisation, or None for a bias in its place.
      activation: a function, or None.

    Example:
      >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
      >>> layer = ConvLayer(64, 7, strides=2)
      >>> y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
      >>> y.shape, sorted(variables), sorted(variables["params"])
      ((1, 112, 112, 64), ['batch_stats', 'params'], ['conv', 'norm'])
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    groups: int = 1
    norm: Callable[..., nn.Module] | None = batch_norm
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height', width', features]``."""
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            self.strides,
            padding=(self.kernel_size - 1) // 2 if self.padding is None else self.padding,
            feature_group_count=self.groups,
            use_bias=self.norm is None,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        x = x if self.norm is None else self.norm(name="norm")(x)
        return x if self.activation is None else self.activation(x)


class MaxPool(nn.Module):
    """The maximum over windows; a module, so that the layer has a name of its own.

    Attributes:
      window: height and width.
      strides: the same along height and width.
      padding: ``"VALID"`` drops what fills no window, ``"SAME"`` fills up at the end first, and a
        number adds as many rows and columns on every side.

    Example:
      >>> x = jax.ShapeDtypeStruct((1, 112, 112, 64), "float32")
      >>> [
      ...     jax.eval_shape(MaxPool(padding=padding).apply, {}, x).shape[1]
      ...     for padding in ("VALID", "SAME", 1)
      ... ]
      [55, 56, 56]
    """

    window: int = 3
    strides: int = 2
    padding: Literal["VALID", "SAME"] | int = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, channels]`` to fewer rows and columns."""
        pads = self.padding if isinstance(self.padding, str) else [(self.padding,) * 2] * 2
        return nn.max_pool(x, (self.window,) * 2, (self.strides,) * 2, pads)


class GlobalMean(nn.Module):
    """The mean over height and width; a module for the same reason."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, channels]`` to ``[batch, channels]``."""
        return x.mean((1, 2))
