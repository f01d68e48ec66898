"""Metrics of a run as rows: JSONL while it goes, CSV at its end, TensorBoard when asked.

Rows hold no clock time, so that a resumed run ends with the same file as an unbroken one.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from eejax.experiment.workdir import RunDir, finite

JSONL, CSV, EVENTS = "metrics.jsonl", "metrics.csv", "tensorboard"


class MetricWriter(NamedTuple):
    """A growing table; `open_metrics` makes one.

    Attributes:
      write: ``(phase, step, metrics)`` appends one row. Values are scalars: numbers, arrays of one
        element, booleans, strings or None. NaN and infinities are stored as null.
      position: ``() -> int``: bytes of ``metrics.jsonl`` so far, once the disk has them; belongs
        into the checkpoint.
    """

    write: Callable[[str, int, Mapping[str, Any]], None]
    position: Callable[[], int]


@contextmanager
def open_metrics(
    workdir: RunDir, position: int = 0, *, tensorboard: bool = False
) -> Iterator[MetricWriter]:
    """Opens ``metrics.jsonl`` for appending and writes ``metrics.csv`` when it closes.

    Args:
      workdir: the run folder.
      position: bytes to keep, as the checkpoint tells; what was written after it is cut off.
      tensorboard: also writes events to the folder ``tensorboard``, those of the kept rows first.

    Yields:
      The writer.

    Raises:
      ValueError: the file is shorter than ``position``.
      ImportError: tensorboardX is not installed.
    """
    path = workdir.path(JSONL)
    size = path.stat().st_size if path.exists() else 0
    if size < position:
        raise ValueError(f"{path} has {size} bytes but the checkpoint knows of {position}; "
                         "restore the file, or start in a new folder")  # fmt: skip
    with open(path, "ab") as file, _events(workdir, tensorboard) as add_event:
        file.truncate(position)
        for row in read_metrics(workdir):
            add_event(row)

        def write(phase: str, step: int, metrics: Mapping[str, Any]) -> None:
            row = finite({"phase": phase, "step": int(step)} | _scalars(metrics))
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            add_event(row)

        def byte_position() -> int:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

        try:
            yield MetricWriter(write, byte_position)
        finally:
            workdir.write_text(CSV, to_csv(read_metrics(workdir)))


def read_metrics(workdir: RunDir) -> list[dict[str, Any]]:
    """Reads the rows of ``metrics.jsonl``.

    Args:
      workdir: the run folder.

    Returns:
      One flat dict for each row.
    """
    lines = workdir.path(JSONL).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Lays rows of different keys out as one table.

    Args:
      rows: flat dicts.

    Returns:
      CSV with every key that occurs, in order of appearance; absent values and null are empty.

    Example:
      >>> print(to_csv([{"step": 1, "loss": 0.5}, {"step": 2, "bytes": 8}]), end="")
      step,loss,bytes
      1,0.5,
      2,,8
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _scalars(metrics: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for name, value in metrics.items():
        if name in ("phase", "step"):
            raise ValueError(f"metric may not be named {name!r}: every row has that column")
        if getattr(value, "size", None) == 1:
            value = value.item()
        if not isinstance(value, bool | int | float | str | None):
            shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
            raise ValueError(f"metric {name!r} must be a scalar, not {type(value).__name__}{shape}")
        row[name] = value
    return row


@contextmanager
def _events(workdir: RunDir, wanted: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Gives a function that turns a row into TensorBoard events, or into nothing."""
    if not wanted:
        yield lambda row: None
        return
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ImportError(
            "TensorBoard events need tensorboardX: pip install 'eejax[tensorboard]'"
        ) from None
    folder = workdir.path(EVENTS)
    # The events are a view of the rows; those of rows that a resumed run cuts off must go.
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:

        def add_event(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    writer.add_scalar(f"{row['phase']}/{name}", value, row["step"])

        yield add_event
