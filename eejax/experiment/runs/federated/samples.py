"""The samples of a federated run: who has which, and how clients see them."""

from typing import NamedTuple

import numpy as np

from eejax import data
from eejax.cotrain.skew import hold_out
from eejax.experiment.runs.federated.config import Federated


class Samples(NamedTuple):
    """All samples, of which clients have some.

    Attributes:
      arrays: ``{"x": float32 [n, ...], images in [0, 1], "y": int32 [n]}``.
      classes: how many.
      test: positions of the test split; none when clients hold out their own.
      nbytes: bytes of one raw sample with its label.
      groups: natural group of each sample, int32 ``[n]``; None where the set has none.
    """

    arrays: dict[str, np.ndarray]
    classes: int
    test: np.ndarray
    nbytes: int
    groups: np.ndarray | None


class Split(NamedTuple):
    """Who trains and tests on what; shaped alike for all partitions and seeds.

    Attributes:
      train: samples of each client.
      test: samples that models are tested on: one row a client, or a single one for all.
      shared: positions of the samples that were set aside to be shared.
    """

    train: data.ClientIndex
    test: data.ClientIndex
    shared: np.ndarray


def load_samples(config: Federated) -> Samples:
    """Loads the data set.

    Args:
      config: the fields.

    Returns:
      The samples.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a name or slice is wrong.
    """
    fields = config.data
    pools = [
        data.load(fields.name, f"{split}{part}", fields.directory)
        for split, part in (("train", fields.train), ("test", fields.test))
    ]
    images = np.concatenate([pool.images for pool in pools])
    labels = np.concatenate([pool.labels for pool in pools]).astype(np.int32)
    groups = None if pools[0].groups is None else np.concatenate([p.groups for p in pools])
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    trained = len(labels) if fields.held_out else len(pools[0].labels)
    return Samples(
        {"x": images.astype(np.float32) / scale, "y": labels},
        len(pools[0].info.classes),
        np.arange(trained, len(labels)),
        images[0].nbytes + 1,
        groups,
    )


def split_samples(
    config: Federated, samples: Samples, partition: str, seed: int, validate: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Deals the samples to the clients.

    Args:
      config: the fields.
      samples: all samples.
      partition: how to deal them.
      seed: of the partition.
      validate: whether to hold out training samples, in place of test samples, to choose by.

    Returns:
      Positions of the training samples of each client, those to test by, of each client or one
      array for all, and those set aside to be shared.

    Raises:
      ValueError: the partitioner is unknown, a client has too few samples, or the set has no
        natural groups.
    """
    labels, groups = samples.arrays["y"], samples.groups
    pool = len(labels) - len(samples.test)
    try:
        shared, rest = hold_out(labels[:pool], config.data.shared, seed)
        groups = None if groups is None else groups[rest]
        parts = data.partition_by(partition, labels[rest], config.data.clients, seed, groups)
    except ValueError as error:
        raise ValueError(f"data.partitions: {error}") from error
    train, test = [rest[part] for part in parts], [samples.test]
    if config.data.held_out:
        train, test = _cut(train, config.data.held_out)
    if validate:
        train, test = _cut(train, config.validation)
    return train, test, shared


def pack_wide(parts: list[np.ndarray], width: int) -> data.ClientIndex:
    """Packs samples into a table of a given width, so that programs compile once."""
    table, counts = data.pack(parts)
    return data.ClientIndex(np.pad(table, ((0, 0), (0, width - table.shape[1])), "edge"), counts)


def see(config: Federated, images: np.ndarray, split: Split, seed: int) -> np.ndarray:
    """Shows each client its samples as it sees them, where the config says so.

    Args:
      config: the fields.
      images: float32 ``[n, height, width, channels]`` in [0, 1].
      split: who has which.
      seed: of the feature skew.

    Returns:
      Images of all samples; those of the common test split are as they were.

    Raises:
      ValueError: the name is unknown, or its argument is wrong.
    """
    if not config.data.features:
        return images
    skew = feature_skew_of(config, seed)
    rows = [split.train, split.test] if len(split.test.counts) > 1 else [split.train]
    parts = [
        np.concatenate([table[client][: counts[client]] for table, counts in rows])
        for client in range(config.data.clients)
    ]
    seen = data.skew_features((images * 255).round().astype(np.uint8), parts, skew)
    return seen.astype(np.float32) / np.float32(255)


def feature_skew_of(config: Federated, seed: int) -> data.FeatureSkew:
    """Makes the feature skew that the config names."""
    try:
        return data.feature_skew_from_name(config.data.features)(config.data.clients, seed)
    except ValueError as error:
        raise ValueError(f"data.features: {error}") from error


def _cut(parts: list[np.ndarray], share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits each client's samples, which are in random order; both sides get some if they can."""
    keep = [min(max(1, round((1 - share) * len(part))), max(len(part) - 1, 1)) for part in parts]
    return (
        [part[:n] for part, n in zip(parts, keep)],
        [part[n:] for part, n in zip(parts, keep)],
    )
