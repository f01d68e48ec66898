"""The folder of one run: one writer at a time, atomic files, and no path that leads outside."""

import datetime
import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

LOCK = ".lock"


class RunDir(NamedTuple):
    """A run folder; `open_run_dir` makes one.

    Attributes:
      root: absolute path of the folder.
    """

    root: Path

    def path(self, name: str) -> Path:
        """Finds the place of an artefact.

        Args:
          name: relative path inside the folder, such as ``"plots/accuracy.png"``.

        Returns:
          Its absolute path, links resolved.

        Raises:
          ValueError: the name is empty or absolute, holds ``..``, or passes a link out of the
            folder.
        """
        relative = Path(name)
        if not relative.parts or relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"artefact {name!r} must be a relative path without '..'")
        full = (self.root / relative).resolve()
        if not full.is_relative_to(self.root.resolve()):
            raise ValueError(f"artefact {name!r} leads out of the run folder, to {full}")
        return full

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Writes a file whole or not at all, whenever the process is killed.

        Args:
          name: relative path inside the folder.
          data: the content.

        Returns:
          The path of the file.
        """
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")
        write_durable(temporary, data)
        replace_durable(temporary, path)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """Writes text as UTF-8, see `write_bytes`."""
        return self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> Path:
        """Writes indented JSON, see `write_bytes` and `finite`."""
        return self.write_text(name, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON cannot say, by None.

    Args:
      value: nested dicts, lists and tuples of JSON scalars.

    Returns:
      The same with every float finite.

    Example:
      >>> finite({"loss": float("nan"), "accuracy": (0.5, float("inf"))})
      {'loss': None, 'accuracy': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_durable(path: Path, data: bytes) -> None:
    """Writes a file and waits until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_path(path: Path) -> None:
    """Waits until the disk has a file's content or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durable(source: Path, target: Path) -> None:
    """Renames in one step and waits until the disk has the new name."""
    os.replace(source, target)
    fsync_path(target.parent)


def launched_root(name: str, runs: Path = Path("runs")) -> Path:
    """Names the folder of a run that `launch` has started; the same after a restart.

    Args:
      name: name of the config.
      runs: folder of all runs.

    Returns:
      ``runs/<name>/<local date and time>_<launcher>``; if nobody launched this process, that of
      `new_root`.
    """
    started = os.environ.get("EEJAX_STARTED")
    return runs / name / started if started else new_root(name, runs)


def new_root(name: str, runs: Path = Path("runs")) -> Path:
    """Chooses a folder for a new run.

    Args:
      name: name of the config.
      runs: folder of all runs.

    Returns:
      ``runs/<name>/<local date and time>``, with a counter if that exists.
    """
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    root, count = runs / name / stamp, 1
    while root.exists():
        count += 1
        root = runs / name / f"{stamp}_{count}"
    return root


def newest_root(name: str, runs: Path = Path("runs")) -> Path:
    """Finds the newest run of a config.

    Args:
      name: name of the config.
      runs: folder of all runs.

    Returns:
      Its folder.

    Raises:
      FileNotFoundError: there is none.
    """
    folder = runs / name
    roots = sorted(path for path in folder.glob("*") if path.is_dir())
    if not roots:
        raise FileNotFoundError(f"no run in {folder} to resume; start one without --resume")
    return roots[-1]


@contextmanager
def open_run_dir(root: Path | str, *, resume: bool = False) -> Iterator[RunDir]:
    """Makes or reopens a run folder and holds its lock.

    The lock is `fcntl.flock`, which the system drops when the process ends, however it ends. It
    needs Linux or macOS.

    Args:
      root: the folder.
      resume: whether the folder may hold an earlier run.

    Yields:
      The folder, whose only writer is this process.

    Raises:
      FileExistsError: the folder holds something and ``resume`` is false, or is a file.
      BlockingIOError: another process writes there.
    """
    root = Path(root).absolute()
    if root.exists() and not root.is_dir():
        raise FileExistsError(f"run folder {root} is a file")
    root.mkdir(parents=True, exist_ok=True)
    if not resume and any(path.name != LOCK for path in root.iterdir()):
        raise FileExistsError(
            f"run folder {root} is not empty; add --resume to go on with the run in it, "
            "or choose another --workdir"
        )
    with open(root / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process is writing in run folder {root}") from None
        yield RunDir(root)
