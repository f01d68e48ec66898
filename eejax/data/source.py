"""What a data set is: arrays with their labels, and where they come from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Info(NamedTuple):
    """What is known about a data set.

    Attributes:
      name: the name it is loaded by.
      classes: names of the classes; a label is a position in it.
      image_shape: ``(height, width, channels)``.
      source: where these arrays were read from.
      licence: as its authors state it.
      citation: authors, title, year.
      sha256: `trees.sha256` of the arrays of the whole set, before any split or slice; None when
        it was not computed.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    source: str
    licence: str
    citation: str
    sha256: str | None = None


class DataSource(NamedTuple):
    """Labelled images in memory.

    Attributes:
      info: what is known about the set they come from.
      images: uint8 ``[n, height, width, channels]``.
      labels: int32 ``[n]``.
    """

    info: Info
    images: np.ndarray
    labels: np.ndarray


class Pool(NamedTuple):
    """A data set on this machine that has not been read yet.

    Attributes:
      info: what is known about it.
      sizes: samples of each split.
      read: ``(split, start, stop) -> (images, labels)``.
    """

    info: Info
    sizes: dict[str, int]
    read: Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]


def subset(source: DataSource, indices: Any) -> DataSource:
    """Picks samples.

    Args:
      source: where to pick from.
      indices: positions ``[m]``, in the wanted order, or a mask ``[n]`` of bools.

    Returns:
      A source of the picked samples, with the same ``info``.

    Example:
      >>> info = Info("toy", ("a", "b"), (1, 1, 1), "made up", "none", "none")
      >>> toy = DataSource(info, np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 1, 0], np.int32))
      >>> subset(toy, [2, 1]).labels.tolist(), subset(toy, toy.labels == 0).labels.tolist()
      ([0, 1], [0, 0])
    """
    indices = np.asarray(indices)
    return source._replace(images=source.images[indices], labels=source.labels[indices])
