"""Changes of the test distribution, for uint8 images ``[n, height, width, channels]``.

Every function takes the images and a severity in its own unit, and is deterministic.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from eejax.names import suggest

Drift = Callable[[np.ndarray], np.ndarray]
"""``(images) -> images`` of the same shape and dtype."""

_AXES = (1, 2)  # Height and width.


def rotate(images: np.ndarray, degrees: float) -> np.ndarray:
    """Turns images anticlockwise about their centre, filling corners with black.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      degrees: 90 equals `numpy.rot90` if height is width.

    Returns:
      Images of the same shape, interpolated bilinearly.

    Example:
      >>> rotate(np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1), 90)[0, ..., 0].tolist()
      [[2, 4], [1, 3]]
    """
    if degrees == 0:
        return images.copy()
    turned = ndimage.rotate(_float(images), degrees, axes=_AXES, reshape=False, order=1)
    return _uint8(turned)


def translate(images: np.ndarray, pixels: float) -> np.ndarray:
    """Moves images down and to the right by ``pixels`` each, filling with black.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      pixels: negative for up and to the left; fractions are interpolated bilinearly.

    Returns:
      Images of the same shape.
    """
    return _uint8(ndimage.shift(_float(images), (0, pixels, pixels, 0), order=1))


def blur(images: np.ndarray, sd: float) -> np.ndarray:
    """Blurs images by a Gaussian.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      sd: standard deviation in pixels, >= 0.

    Returns:
      Images of the same shape.
    """
    return _uint8(ndimage.gaussian_filter(_float(images), _at_least_0("sd", sd), axes=_AXES))


def noise(images: np.ndarray, sd: float, seed: int = 0) -> np.ndarray:
    """Adds Gaussian noise to each pixel.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      sd: standard deviation in grey levels of 0..255, >= 0.
      seed: of `numpy.random.default_rng`.

    Returns:
      Images of the same shape, clipped to 0..255.
    """
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal(images.shape, np.float32)
    return _uint8(images + np.float32(_at_least_0("sd", sd)) * draws)


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Scales the differences from the mean of each image and channel.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      factor: 1 changes nothing, 0 leaves the mean, > 1 strengthens; >= 0.

    Returns:
      Images of the same shape, clipped to 0..255.
    """
    mean = images.mean(_AXES, keepdims=True, dtype=np.float32)
    return _uint8(mean + _at_least_0("factor", factor) * (images - mean))


def occlude(images: np.ndarray, pixels: int, seed: int = 0) -> np.ndarray:
    """Covers a square at a random place of each image with black.

    The square lies inside the image; in the paper it may stick out.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      pixels: side of the square, at most height and width.
      seed: of `numpy.random.default_rng`.

    Returns:
      Images of the same shape.

    References:
      DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
      2017.
    """
    n, height, width, _ = images.shape
    if not 0 <= pixels <= min(height, width) or pixels != int(pixels):
        raise ValueError(
            f"pixels must be a whole number from 0 to {min(height, width)}; got {pixels!r}"
        )
    rng = np.random.default_rng(seed)
    pixels = int(pixels)
    corners = rng.integers(0, [height - pixels, width - pixels], (n, 2), endpoint=True)
    top, left = corners.T[:, :, None, None]
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None]
    covered = (rows >= top) & (rows < top + pixels) & (columns >= left) & (columns < left + pixels)
    return np.where(covered[..., None], np.uint8(0), images)


def invert(images: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """Fades images into their negative.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      amount: in [0, 1]; 1 is the negative, 0.5 is grey all over.

    Returns:
      Images of the same shape.

    Example:
      >>> invert(np.array([0, 55, 255], np.uint8).reshape(1, 1, 3, 1)).ravel().tolist()
      [255, 200, 0]
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must be in [0, 1]; got {amount!r}")
    images = _float(images)
    return _uint8(images + amount * (255 - 2 * images))


# With the least and the largest severity.
_DRIFTS = {
    "blur": (blur, 0, np.inf),
    "contrast": (contrast, 0, np.inf),
    "invert": (invert, 0, 1),
    "noise": (noise, 0, np.inf),
    "occlude": (occlude, 0, np.inf),
    "rotate": (rotate, -360, 360),
    "translate": (translate, -np.inf, np.inf),
}
_SEEDED = ("noise", "occlude")


def from_name(name: str, severity: float, seed: int = 0) -> Drift:
    """Makes the drift that a config names.

    Args:
      name: ``rotate`` (severity in degrees), ``translate`` (pixels), ``blur`` (standard deviation
        in pixels), ``noise`` (standard deviation in grey levels), ``contrast`` (factor, 1 is none),
        ``occlude`` (side in pixels) or ``invert`` (amount in [0, 1]).
      severity: in the unit of the drift.
      seed: of ``noise`` and ``occlude``.

    Returns:
      ``(images) -> images``.

    Raises:
      ValueError: the name is unknown (tells the nearest one), or the severity out of range.

    Example:
      >>> drift = from_name("noise", severity=20, seed=1)
      >>> drift(np.full((1, 1, 4, 1), 128, np.uint8)).ravel().tolist()
      [163, 99, 149, 166]
    """
    if name not in _DRIFTS:
        known = ", ".join(_DRIFTS)
        raise ValueError(f"drift {name!r} is none of {known}{suggest(name, _DRIFTS)}")
    function, low, high = _DRIFTS[name]
    if not low <= severity <= high or not np.isfinite(severity):
        raise ValueError(
            f"severity of {name} must be finite and in [{low:g}, {high:g}]; got {severity!r}"
        )
    seeded = {"seed": seed} if name in _SEEDED else {}
    return lambda images: function(images, severity, **seeded)


def _float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32)


def _uint8(images: np.ndarray) -> np.ndarray:
    return np.rint(images).clip(0, 255).astype(np.uint8)


def _at_least_0(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0; got {value!r}")
    return value
