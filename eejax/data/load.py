"""Data sets by name: what is on this machine and nothing else."""

import re
from pathlib import Path

import numpy as np

from eejax.data import embedded, store, tfds_source
from eejax.data.catalogue import GROUPED, KNOWN
from eejax.data.source import DataSource, Pool
from eejax.names import suggest

_PART = re.compile(r"(\w+)(?:\[(-?\d+(?:_\d+)*%?)?:(-?\d+(?:_\d+)*%?)?\])?")


def load(name: str, split: str = "train", data_dir: str | Path | None = None) -> DataSource:
    """Loads a data set into memory.

    Looked for in this order: what `import_set` stored in ``data_dir``; what TFDS prepared in
    array_record format in ``data_dir``, ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``; what is
    embedded in installed packages. Nothing is downloaded, and no set stands in for another.

    Args:
      name: such as ``digits``, ``mnist_5k``, ``fashion_mnist`` or ``emnist/digits``.
      split: as in TFDS: ``train``, ``train[:80%]``, ``train[100:200]``, ``test[-50:]``, or several
        joined by ``+``. A percentage is rounded to the nearest sample.
      data_dir: folder of data sets; the environment variable ``EEJAX_DATA`` if None, or
        ``~/.local/share/eejax/datasets``.

    Returns:
      Images and labels in the order of the set, which embedded and prepared sets have shuffled.

    Raises:
      FileNotFoundError: the set is not on this machine; says how to get it.
      ImportError: the set is prepared, but tensorflow-datasets is not installed.
      ValueError: no set has this name, the split is not one of the set, or a file is damaged.

    Example:
      >>> digits = load("digits", "train[:10%]+test[:6]")
      >>> digits.images.shape, digits.images.dtype.name, digits.labels[:4].tolist()
      ((150, 8, 8, 1), 'uint8', [4, 2, 1, 2])
    """
    pool = find(name, data_dir)
    if pool is None:
        raise _missing(name, data_dir)
    parts = [pool.read(*part) for part in parse_split(split, pool.sizes)]
    arrays = (np.concatenate(pieces) if len(parts) > 1 else pieces[0] for pieces in zip(*parts))
    return DataSource(pool.info, *arrays)


def find(name: str, data_dir: str | Path | None = None) -> Pool | None:
    """Opens a data set without reading its samples.

    Args:
      name: as for `load`.
      data_dir: as for `load`.

    Returns:
      The set, or None if it is not on this machine.
    """
    return (
        store.find(store.data_dir(data_dir) / name)
        or tfds_source.find(name, data_dir)
        or embedded.find(name)
    )


def parse_split(split: str, sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    """Reads the split syntax of TFDS.

    Args:
      split: such as ``train[:80%]+test``.
      sizes: samples of each split of the set.

    Returns:
      ``(split, start, stop)`` of each part.

    Raises:
      ValueError: the text cannot be read, or a part is unknown, empty or out of range.

    Example:
      >>> parse_split("train[10%:]+test[-5:]", {"train": 60, "test": 10})
      [('train', 6, 60), ('test', 5, 10)]
    """
    return [_parse_part(part.strip(), split, sizes) for part in split.split("+")]


def _parse_part(part: str, split: str, sizes: dict[str, int]) -> tuple[str, int, int]:
    match = _PART.fullmatch(part)
    if not match:
        raise ValueError(
            f"split {split!r}: cannot read {part!r}; allowed are NAME and NAME[FROM:TO] with "
            "numbers or percentages, joined by +"
        )
    name, *bounds = match.groups()
    if name not in sizes:
        raise ValueError(f"split {split!r}: {name!r} is none of {', '.join(sizes)}")
    size = sizes[name]
    start, stop = (
        default if text is None
        else round(int(text[:-1]) * size / 100) if text.endswith("%")
        else int(text)
        for text, default in zip(bounds, (0, size))
    )  # fmt: skip
    if max(abs(start), abs(stop)) > size:
        raise ValueError(f"split {split!r}: {part!r} is out of range; {name} has {size} samples")
    start, stop = (bound + size if bound < 0 else bound for bound in (start, stop))
    if start >= stop:
        raise ValueError(f"split {split!r}: {part!r} is empty; {name} has {size} samples")
    return name, start, stop


def names(data_dir: str | Path | None = None) -> list[str]:
    """Lists the names that `load` may know: embedded, imported, prepared, or to be prepared."""
    imported = store.find_names(store.data_dir(data_dir))
    prepared = tfds_source.find_names(data_dir)
    return list(dict.fromkeys([*embedded.EMBEDDED, *imported, *prepared, *KNOWN, *GROUPED]))


def unknown(name: str, allowed: list[str]) -> ValueError:
    """Makes the error for a name that no data set has, with the nearest name in it."""
    hint = suggest(name.lower(), allowed)
    return ValueError(f"name {name!r} is none of {', '.join(allowed)}{hint}")


def how_to_import(name: str, option: str) -> str:
    """Tells which files of a naturally grouped set to get, and the command that takes them in."""
    return f"get {GROUPED[name].files}, then `eejax data import {name} PATH{option}`"


def _missing(name: str, data_dir: str | Path | None) -> Exception:
    option = store.command_option(data_dir)
    if name in GROUPED:
        return FileNotFoundError(f"{name} is not on this machine; {how_to_import(name, option)}")
    if name not in KNOWN:
        return unknown(name, names(data_dir))
    ways = [f"`eejax data prepare {name}{option}` downloads it"]
    if KNOWN[name].idx:
        ways.append(f"`eejax data import {name} DIR{option}` takes in its IDX files")
    if name == "mnist":
        ways.append("'mnist_5k', 5,000 of its digits, is embedded")
    places = ", ".join(str(root) for root in tfds_source.roots(data_dir))
    return FileNotFoundError(f"{name} is not in {places}; {'; '.join(ways)}")
