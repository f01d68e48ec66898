"""Clients whose images look different: turned, noisy, or written by another hand.

Who has which samples is another matter: any partition can be combined with any of these.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from eejax.data import drift
from eejax.data.parts import positive
from eejax.names import suggest


class FeatureSkew(NamedTuple):
    """How each client sees its samples.

    Attributes:
      parameters: ``{name: [clients]}``, in the unit that the function that made it states.
      apply: ``(images, client) -> images``, uint8 ``[n, height, width, channels]``, deterministic.
    """

    parameters: dict[str, np.ndarray]
    apply: Callable[[np.ndarray, int], np.ndarray]


def skew_features(
    images: np.ndarray, indices: Sequence[np.ndarray], skew: FeatureSkew
) -> np.ndarray:
    """Shows each client its own samples as it sees them.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      indices: positions of the samples of each client, no sample at two clients.
      skew: of as many clients.

    Returns:
      Images of the same shape; those of no client are as they were.

    Raises:
      ValueError: the images are not uint8, or the numbers of clients differ.

    Example:
      >>> images = np.full((2, 1, 1, 1), 100, np.uint8)
      >>> twice = FeatureSkew({"factor": np.array([1, 2])}, lambda x, client: x * (client + 1))
      >>> skew_features(images, [np.array([1]), np.array([0])], twice).ravel().tolist()
      [200, 100]
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8; got {images.dtype}")
    clients = len(next(iter(skew.parameters.values())))
    if len(indices) != clients:
        raise ValueError(f"indices are of {len(indices)} clients, but skew is of {clients}")
    out = images.copy()
    for client, row in enumerate(indices):
        out[row] = skew.apply(images[row], client)
    return out


def rotation_skew(clients: int, seed: int, angles: Any = (0.0, 90.0, 180.0, 270.0)) -> FeatureSkew:
    """Turns the images of each client by one angle.

    Args:
      clients: how many.
      seed: of `numpy.random.default_rng`; deals the angles.
      angles: degrees anticlockwise, dealt so that the numbers of clients of two angles differ by
        at most one. ``np.linspace(-45, 45, clients)`` gives each client its own.

    Returns:
      The skew, with ``degrees`` of each client.

    Raises:
      ValueError: there is no client, or no angle.

    References:
      Ghosh, Chung, Yin and Ramchandran, An Efficient Framework for Clustered Federated Learning,
      2020 (rotated MNIST).

    Example:
      >>> rotation_skew(5, seed=0, angles=[0, 90]).parameters["degrees"].tolist()
      [0.0, 0.0, 90.0, 0.0, 90.0]
    """
    rng, angles = _start(clients, seed), np.asarray(angles, float)
    if angles.ndim != 1 or not len(angles):
        raise ValueError(f"angles must be a list of at least one angle; got {angles.tolist()!r}")
    degrees = rng.permutation(np.resize(rng.permutation(angles), clients))
    return FeatureSkew(
        {"degrees": degrees}, lambda images, client: drift.rotate(images, degrees[client])
    )


def noise_skew(clients: int, seed: int, sd: float = 25.5) -> FeatureSkew:
    """Adds Gaussian noise that rises from none at the first client to ``sd`` at the last.

    Args:
      clients: how many, at least 2.
      seed: of `numpy.random.default_rng`, together with the client.
      sd: standard deviation at the last client, in grey levels of 0..255, > 0.

    Returns:
      The skew, with ``sd`` of each client: client i of K has ``sd * i / (K - 1)``.

    Raises:
      ValueError: there are fewer than 2 clients, or ``sd`` is not positive.

    References:
      Li, Diao, Chen and He, Federated Learning on Non-IID Data Silos: An Experimental Study, 2022
      ("noise-based feature imbalance").

    Example:
      >>> noise_skew(5, seed=0, sd=20).parameters["sd"].tolist()
      [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    if clients < 2:
        raise ValueError(f"clients must be at least 2; got {clients!r}")
    sds = np.linspace(0, positive("sd", sd), clients)
    seeds = [int(np.random.default_rng([seed, i]).integers(2**32)) for i in range(clients)]
    return FeatureSkew(
        {"sd": sds}, lambda images, client: drift.noise(images, sds[client], seeds[client])
    )


def writer_skew(clients: int, seed: int, amount: float = 1.0) -> FeatureSkew:
    """Imitates hands that differ in slant, thickness of the stroke and pressure.

    A simulation for white strokes on black, such as digits; sets with real writers are better.

    Args:
      clients: how many.
      seed: of `numpy.random.default_rng`; draws three uniform numbers for each client.
      amount: in (0, 1]; the largest slant is ``25 * amount`` degrees, and the largest change of
        thickness and brightness ``0.6 * amount`` and ``0.4 * amount``.

    Returns:
      The skew, with ``slant`` in degrees (> 0 leans to the right), ``thickness`` (1 replaces each
      pixel by the brightest of it and its four neighbours, -1 by the darkest, and values between
      are mixed with the image) and ``brightness`` (pixels are multiplied by 1 + brightness).

    Raises:
      ValueError: there is no client, or ``amount`` is out of range.

    Example:
      >>> skew = writer_skew(3, seed=0)
      >>> {name: values.round(1).tolist() for name, values in skew.parameters.items()}
      {'slant': [6.8, -11.5, -23.0], 'thickness': [-0.6, 0.4, 0.5], 'brightness': [0.1, 0.2, 0.0]}
    """
    rng = _start(clients, seed)
    if not 0 < amount <= 1:
        raise ValueError(f"amount must be in (0, 1]; got {amount!r}")
    largest = {"slant": 25.0, "thickness": 0.6, "brightness": 0.4}
    hands = {name: rng.uniform(-1, 1, clients) * amount * top for name, top in largest.items()}

    def write(images: np.ndarray, client: int) -> np.ndarray:
        slant, thickness, brightness = (hands[name][client] for name in largest)
        images = _thicken(_shear(images.astype(np.float32), slant), thickness)
        return np.rint(images * (1 + brightness)).clip(0, 255).astype(np.uint8)

    return FeatureSkew(hands, write)


_FORMS = ("rotation:DEGREES", "noise:SD", "writer:AMOUNT")


def from_name(text: str) -> Callable[[int, int], FeatureSkew]:
    """Makes the feature skew that a config names.

    Args:
      text: ``rotation:DEGREES`` (angles evenly spaced from -DEGREES to DEGREES), ``noise:SD`` (grey
        levels) or ``writer:AMOUNT`` (in (0, 1]).

    Returns:
      ``(clients, seed) -> skew``.

    Raises:
      ValueError: the name is unknown (tells the nearest one), or its argument is missing, no number
        or out of range.

    Example:
      >>> sorted(from_name("rotation:30")(4, 0).parameters["degrees"].tolist())
      [-30.0, -10.0, 10.0, 30.0]
    """
    name, _, argument = text.partition(":")
    if f"{name}:" not in [form[: len(name) + 1] for form in _FORMS] or not argument:
        forms = ", ".join(_FORMS)
        raise ValueError(f"feature skew {text!r} is none of {forms}{suggest(name, _FORMS)}")
    try:
        value = positive("its argument", float(argument))
        if name == "writer" and value > 1:
            raise ValueError(f"amount must be in (0, 1]; got {value!r}")
    except ValueError as error:
        raise ValueError(f"feature skew {text!r}: {error}") from error
    make = {
        "rotation": lambda n, seed: rotation_skew(n, seed, np.linspace(-value, value, n)),
        "noise": lambda n, seed: noise_skew(n, seed, value),
        "writer": lambda n, seed: writer_skew(n, seed, value),
    }
    return make[name]


def _start(clients: int, seed: int) -> np.random.Generator:
    if clients < 1:
        raise ValueError(f"clients must be at least 1; got {clients!r}")
    return np.random.default_rng(seed)


def _shear(images: np.ndarray, degrees: float) -> np.ndarray:
    """Moves each row sideways in proportion to its height, about the middle row."""
    _, height, width, _ = images.shape
    shift = np.tan(np.radians(degrees)) * (np.arange(height) - (height - 1) / 2)
    pad = int(np.ceil(np.abs(shift).max())) + 1
    whole = np.floor(shift)
    part = (shift - whole).astype(np.float32)[:, None, None]
    rows = np.arange(height)[:, None]
    columns = np.arange(width) + whole.astype(int)[:, None] + pad
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad + 1), (0, 0)))
    return (1 - part) * padded[:, rows, columns] + part * padded[:, rows, columns + 1]


def _thicken(images: np.ndarray, amount: float) -> np.ndarray:
    cross = ndimage.generate_binary_structure(2, 1)[None, :, :, None]
    change = ndimage.grey_dilation if amount > 0 else ndimage.grey_erosion
    return images + np.float32(abs(amount)) * (change(images, footprint=cross) - images)
