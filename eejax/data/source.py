"""What a data set is: arrays with their labels, and where they come from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Info(NamedTuple):
    """What is known about a data set.

    Attributes:
      name: the name it is loaded by.
      classes: names of the classes; a label is a position in it.
      image_shape: ``(height, width, channels)``; ``(steps, 1, channels)`` of signals and
        ``(1, 1, words)`` of texts.
      source: where these arrays were read from.
      licence: as its authors state it.
      citation: authors, title, year.
      sha256: `trees.sha256` of the arrays of the whole set, before any split or slice; None when
        it was not computed.
      groups: names of the natural groups, such as subjects; empty when there are none.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    source: str
    licence: str
    citation: str
    sha256: str | None = None
    groups: tuple[str, ...] = ()


class DataSource(NamedTuple):
    """Labelled images, or signals or counts of words in their shape, in memory.

    Attributes:
      info: what is known about the set they come from.
      images: uint8 ``[n, height, width, channels]``; float32 if they are signals.
      labels: int32 ``[n]``.
      groups: int32 ``[n]``, positions in ``info.groups``; None when there are none.
    """

    info: Info
    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


class Pool(NamedTuple):
    """A data set on this machine that has not been read yet.

    Attributes:
      info: what is known about it.
      sizes: samples of each split.
      read: ``(split, start, stop) -> (images, labels)``, or with the groups as a third.
    """

    info: Info
    sizes: dict[str, int]
    read: Callable[[str, int, int], tuple[np.ndarray, ...]]


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
    groups = None if source.groups is None else source.groups[indices]
    return source._replace(
        images=source.images[indices], labels=source.labels[indices], groups=groups
    )
