"""A partition in a file, so that others train on the same clients: readable, and checked."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eejax.data.feature_skew import FeatureSkew
from eejax.data.feature_skew import from_name as feature_skew_from_name
from eejax.data.partitioners import partition_by
from eejax.data.parts import Indices

_FORMAT = "eejax partition 1"


class Partition(NamedTuple):
    """The samples of each client, and all that is needed to make them again.

    Attributes:
      name: of the partitioner, as for `partition_by`.
      seed: of the partition and of the feature skew.
      features: name of the feature skew, such as ``noise:25``; empty if images stay as they are.
      labels_sha256: of the labels that it was made for.
      indices: positions of the samples of each client.
    """

    name: str
    seed: int
    features: str
    labels_sha256: str
    indices: Indices


def make_partition(
    name: str, labels: Any, clients: int, seed: int, groups: Any = None, features: str = ""
) -> Partition:
    """Spreads samples over clients, and notes how.

    Args:
      name: as for `partition_by`.
      labels: int ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      groups: ``[n]``, the natural group of each sample; only for ``natural``.
      features: name of a feature skew, as for `feature_skew_from_name`, or empty.

    Returns:
      The partition.

    Raises:
      ValueError: as `partition_by` and `feature_skew_from_name`.

    Example:
      >>> partition = make_partition("iid", np.arange(100), 5, seed=0, features="noise:20")
      >>> len(partition.indices), features_of(partition).parameters["sd"].tolist()
      (5, [0.0, 5.0, 10.0, 15.0, 20.0])
    """
    if features:
        feature_skew_from_name(features)(clients, seed)
    indices = partition_by(name, labels, clients, seed, groups)
    return Partition(name, seed, features, labels_sha256(labels), indices)


def features_of(partition: Partition) -> FeatureSkew | None:
    """Makes the feature skew of a partition again; None if it has none."""
    if not partition.features:
        return None
    make = feature_skew_from_name(partition.features)
    return make(len(partition.indices), partition.seed)


def save_partition(path: str | Path, partition: Partition) -> None:
    """Writes a partition as JSON, one line a client; equal partitions are equal files.

    Args:
      path: is replaced, at once or not at all.
      partition: from `make_partition`.

    Raises:
      OSError: the file cannot be written.
    """
    path = Path(path)
    head = {"format": _FORMAT, **partition._asdict(), "sha256": _digest(partition)}
    rows = head.pop("indices")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    clients = ",\n".join(json.dumps(row.tolist()) for row in rows)
    text = "{" + ",\n".join([*lines, f'"indices": [\n{clients}\n]']) + "}\n"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def load_partition(path: str | Path, labels: Any) -> Partition:
    """Reads a partition, for the labels it was made for and no others.

    Args:
      path: of the file.
      labels: int ``[n]``.

    Returns:
      The partition.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or of another data set.
    """
    try:
        table = json.loads(Path(path).read_text())
        if table.pop("format") != _FORMAT:
            raise ValueError(f"format must be {_FORMAT!r}")
        rows = [np.array(row, np.int64).reshape(-1) for row in table.pop("indices")]
        digest = table.pop("sha256")
        partition = Partition(**table, indices=rows)
        if digest != _digest(partition):
            raise ValueError("what it holds does not have its sha256")
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} is no partition, or a damaged one: {error!r}") from error
    if partition.labels_sha256 != labels_sha256(labels):
        raise ValueError(
            f"labels: {path} was made for other labels than these {len(labels)}; load the data set "
            "and the split that it was made for"
        )
    return partition


def labels_sha256(labels: Any) -> str:
    """Digests labels, whatever their integer type."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def _digest(partition: Partition) -> str:
    digest = hashlib.sha256(json.dumps(partition[:-1]).encode())
    for row in partition.indices:
        digest.update(f"{len(row)};".encode() + row.astype("<i8").tobytes())
    return digest.hexdigest()
