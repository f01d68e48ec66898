"""Arrays in a folder: an npz for every split, and a manifest with their sha256 written last."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eejax import trees
from eejax.data.source import Info, Pool

_MANIFEST = "manifest.json"

Splits = Mapping[str, tuple[np.ndarray, ...]]
_ARRAYS = ("images", "labels", "groups")


def data_dir(given: str | Path | None = None) -> Path:
    """Finds the folder of prepared and imported data sets.

    Args:
      given: wins over all else.

    Returns:
      ``given``, or the environment variable ``EEJAX_DATA``, or ``~/.local/share/eejax/datasets``.
    """
    default = os.environ.get("EEJAX_DATA") or "~/.local/share/eejax/datasets"
    return Path(default if given is None else given).expanduser()


def command_option(data_dir: str | Path | None) -> str:
    """Spells ``data_dir`` as the command line takes it, to end a suggested command."""
    return "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"


def cache_dir() -> Path:
    """Finds the folder of what can be rebuilt: ``EEJAX_CACHE``, or ``~/.cache/eejax``."""
    return Path(os.environ.get("EEJAX_CACHE") or "~/.cache/eejax").expanduser()


def write(folder: Path, info: Info, splits: Splits) -> Info:
    """Stores a data set; a reader sees the old one or the new one, never half of each.

    Args:
      folder: made if missing; a set that is there is replaced.
      info: what is known about the set.
      splits: ``{split: (images, labels)}``, or with the groups as a third.

    Returns:
      ``info`` with its ``sha256``.

    Raises:
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = info._replace(sha256=trees.sha256(dict(splits)))
    manifest = {"info": info._asdict(), "splits": {}}
    for split, arrays in splits.items():
        temporary = folder / f"{split}.{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, **dict(zip(_ARRAYS, arrays)))
        digest = _digest(temporary)
        # The name holds the digest, so the files of a set that is being replaced stay whole.
        file = f"{split}-{digest[:16]}.npz"
        os.replace(temporary, folder / file)
        manifest["splits"][split] = {"samples": len(arrays[1]), "file": file, "sha256": digest}
    temporary = folder / f"{_MANIFEST}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(temporary, folder / _MANIFEST)
    kept = {row["file"] for row in manifest["splits"].values()}
    for path in folder.glob("*.npz"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
    return info


def find(folder: Path) -> Pool | None:
    """Opens a stored data set without reading its arrays.

    Args:
      folder: as given to `write`.

    Returns:
      The set, or None if the folder holds none. Its ``read`` raises ValueError when a file does not
      have the sha256 of the manifest.

    Raises:
      ValueError: the manifest is damaged.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
        info = Info(**manifest["info"])
        tuples = {"classes": info.classes, "image_shape": info.image_shape, "groups": info.groups}
        info = info._replace(**{name: tuple(value) for name, value in tuples.items()})
        rows = {split: (row["file"], row["sha256"]) for split, row in manifest["splits"].items()}
        sizes = {split: int(row["samples"]) for split, row in manifest["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error

    def read(split: str, start: int, stop: int) -> tuple[np.ndarray, ...]:
        file, digest = rows[split]
        if _digest(folder / file) != digest:
            raise ValueError(f"{folder / file} is damaged: its sha256 is not that of {path}")
        with np.load(folder / file, allow_pickle=False) as arrays:
            return tuple(arrays[name][start:stop] for name in _ARRAYS if name in arrays)

    return Pool(info, sizes, read)


def find_names(folder: Path) -> list[str]:
    """Lists the sub-folders that hold a data set, such as ``mnist`` and ``emnist/digits``."""
    paths = [*folder.glob(f"*/{_MANIFEST}"), *folder.glob(f"*/*/{_MANIFEST}")]
    return sorted(path.parent.relative_to(folder).as_posix() for path in paths)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
