"""The one convolution of the code base, and pooling by reshape: both fast inside compiled loops."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.blocks import fan_in_normal

Padding = Literal["SAME", "VALID"]
Implementation = Literal["auto", "im2col", "native"]

_FEW, _CACHE = 2**22, 2**20  # Bytes of patches: kept for the backward pass; made at once.


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 1,
    padding: Padding = "SAME",
    impl: Implementation = "auto",
) -> jax.Array:
    """Convolves images with a kernel.

    XLA on CPU runs its native convolution many times slower inside a compiled loop than outside,
    and a `jax.lax.scan` over training steps is such a loop. ``"im2col"`` gathers the patches by
    slices and multiplies them by the kernel in one matrix product, which does not suffer: for a
    training step of a small network in a scan on one core, ``"native"`` takes 5 times as long
    (``scripts/bench/conv_in_scan.py``), and more with more channels. The price is memory: patches
    take ``kh * kw / strides**2`` times the bytes of ``x``, and are kept for the backward pass; from
    4 MB on they are made for a few images at a time, twice, and not kept.

    Args:
      x: ``[batch, height, width, in]``.
      kernel: ``[kh, kw, in, out]``.
      strides: the same along height and width.
      padding: ``"SAME"`` gives ``ceil(size / strides)`` rows and columns, ``"VALID"`` only those
        where the kernel fits.
      impl: ``"auto"`` is ``"im2col"`` when the default backend of JAX is the CPU, else
        ``"native"``. All give the same numbers up to rounding.

    Returns:
      ``[batch, height', width', out]``.

    Raises:
      ValueError: a name is unknown, strides are below 1, channels differ, or the kernel does not
        fit into the image.

    References:
      Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for Document
      Processing, 2006.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> conv(x, jnp.ones((2, 2, 1, 1)), padding="VALID")[0, :, :, 0]
      Array([[ 8., 12.],
             [20., 24.]], dtype=float32)
    """
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")
    if impl not in ("auto", "im2col", "native"):
        raise ValueError(f"impl must be 'auto', 'im2col' or 'native', got {impl!r}")
    if strides < 1:
        raise ValueError(f"strides must be >= 1, got {strides}")
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(f"kernel {kernel.shape} reads {kernel.shape[-2]} channels, x is {x.shape}")
    if padding == "VALID" and (kernel.shape[0] > x.shape[1] or kernel.shape[1] > x.shape[2]):
        raise ValueError(f"kernel {kernel.shape} does not fit into x {x.shape}")
    if impl == "auto":
        impl = "im2col" if jax.default_backend() == "cpu" else "native"
    if impl == "im2col":
        return _im2col(x, kernel, strides, padding)
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _im2col(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> jax.Array:
    kh, kw, channels, features = kernel.shape
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (kh, kw), (strides, strides), padding)
    batch = x.shape[0]
    rows, columns = (
        (n + sum(p) - k) // strides + 1 for n, p, k in zip(x.shape[1:3], pads, (kh, kw))
    )

    def some_images(x):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        stop = rows * strides - strides + 1, columns * strides - strides + 1
        patches = [
            x[:, i : i + stop[0] : strides, j : j + stop[1] : strides]
            for i in range(kh)
            for j in range(kw)
        ]
        patches = jnp.concatenate(patches, axis=-1).reshape(-1, kh * kw * channels)
        return jnp.inner(patches, across).reshape(-1, rows, columns, features)

    # Behind the barrier XLA keeps the product of the kernel's gradient this way round: on CPU 3 to
    # 16 % less time for a training step of small networks.
    across = jax.lax.optimization_barrier(kernel.reshape(-1, features).T)
    images = _images_at_once(batch, rows * columns * kh * kw * channels * x.dtype.itemsize)
    if images == batch:
        return some_images(x)
    # Patches are made again for the gradient, which is quicker than to fetch them from memory.
    parts = x.reshape(batch // images, images, *x.shape[1:])
    return jax.lax.map(jax.checkpoint(some_images), parts).reshape(batch, rows, columns, features)


def _images_at_once(batch: int, nbytes: int) -> int:
    """Tells for how many images patches are made at once, a divisor of the batch.

    All of them while their patches are few; beyond that as many as a cache of 1 MB holds. On one
    core, a training step of a convolution whose patches take 5 to 55 MB lasts 1.0 to 2.3 times as
    long with all at once (``scripts/bench/conv_blocks.py``).
    """
    if batch * nbytes <= _FEW:
        return batch
    return max(n for n in range(1, max(_CACHE // nbytes, 1) + 1) if batch % n == 0)


class Conv(nn.Module):
    """A square convolution with ``"SAME"`` padding, by `conv`.

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      strides: the same along height and width.
      use_bias: leave it out where a normalisation follows at once.

    Example:
      >>> params = Conv(8).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
      >>> {name: value.shape for name, value in sorted(params.items())}
      {'bias': (8,), 'kernel': (3, 3, 1, 8)}
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, height, width, in]`` to ``[batch, height', width', features]``."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        x = conv(x, self.param("kernel", fan_in_normal(2.0), shape), strides=self.strides)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x += bias[None, None, None]
        return x


def max_pool(x: jax.Array, window: int = 2) -> jax.Array:
    """Takes the maximum over windows that do not overlap.

    Rows and columns that fill no window are dropped, as with ``"VALID"`` padding.

    Args:
      x: ``[batch, height, width, channels]``.
      window: height, width and stride of the windows.

    Returns:
      ``[batch, height // window, width // window, channels]``.

    Example:
      >>> max_pool(jnp.arange(25.0).reshape(1, 5, 5, 1))[0, :, :, 0]
      Array([[ 6.,  8.],
             [16., 18.]], dtype=float32)
    """
    return _windows(x, window).max((2, 4))


def avg_pool(x: jax.Array, window: int = 2) -> jax.Array:
    """Takes the mean over windows that do not overlap; the rest is as with `max_pool`.

    Args:
      x: ``[batch, height, width, channels]``.
      window: height, width and stride of the windows.

    Returns:
      ``[batch, height // window, width // window, channels]``.

    Example:
      >>> avg_pool(jnp.arange(25.0).reshape(1, 5, 5, 1))[0, :, :, 0]
      Array([[ 3.,  5.],
             [13., 15.]], dtype=float32)
    """
    return _windows(x, window).mean((2, 4))


def _windows(x: jax.Array, window: int) -> jax.Array:
    # lax.reduce_window, like the native convolution, is slow inside a loop on CPU.
    batch, height, width, channels = x.shape
    if not 1 <= window <= min(height, width):
        raise ValueError(f"window {window} does not fit into images of {height} x {width}")
    rows, columns = height // window, width // window
    x = x[:, : rows * window, : columns * window]
    return x.reshape(batch, rows, window, columns, window, channels)
