"""Human activity recognition of UCI: a phone at the waist of 30 subjects, from its text files."""

from pathlib import Path

import numpy as np

from eejax.data.catalogue import GROUPED

_SIGNALS = [
    f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in ("x", "y", "z")
]


def read_har(directory: str | Path) -> tuple[tuple[str, ...], dict]:
    """Reads the windows of 2.56 s at 50 Hz; a group is a subject, and no subject is in both splits.

    Args:
      directory: ``UCI HAR Dataset``, or the folder that holds it.

    Returns:
      The names of the groups, and ``{split: (signals, labels, groups)}`` with signals float32
      ``[n, 128, 1, 9]``: acceleration without gravity, angular velocity, acceleration, of x, y, z.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged or does not fit the others.
    """
    root = Path(directory).expanduser()
    root = root / "UCI HAR Dataset" if (root / "UCI HAR Dataset").is_dir() else root
    steps, _, _ = GROUPED["har"].info.image_shape
    raw = {}
    for split in ("train", "test"):
        labels = _column(root / split / f"y_{split}.txt", 6)
        files = [root / split / "Inertial Signals" / f"{name}_{split}.txt" for name in _SIGNALS]
        signals = np.stack([_table(path, len(labels), steps) for path in files], -1)
        subjects = _column(root / split / f"subject_{split}.txt", None)
        if len(subjects) != len(labels):
            raise ValueError(
                f"{root / split / f'subject_{split}.txt'} has {len(subjects)} lines for "
                f"{len(labels)} windows"
            )
        raw[split] = signals[:, :, None], labels - 1, subjects
    everyone = np.unique(np.concatenate([subjects for _, _, subjects in raw.values()]))
    splits = {
        split: (signals, labels, np.searchsorted(everyone, subjects).astype(np.int32))
        for split, (signals, labels, subjects) in raw.items()
    }
    return tuple(f"subject {i}" for i in everyone), splits


def _column(path: Path, most: int | None) -> np.ndarray:
    values = _parse(path, np.int32).reshape(-1)
    if values.min() < 1 or (most and values.max() > most):
        allowed = f"1..{most}" if most else "at least 1"
        raise ValueError(f"{path}: all values must be {allowed}")
    return values


def _table(path: Path, rows: int, columns: int) -> np.ndarray:
    table = _parse(path, np.float32)
    if table.shape != (rows, columns):
        raise ValueError(f"{path} is {table.shape}, but must be {(rows, columns)}")
    if not np.isfinite(table).all():
        raise ValueError(f"{path} has values that are not finite")
    return table


def _parse(path: Path, dtype: type) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}; it is one of 'UCI HAR Dataset'")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    try:
        return np.loadtxt(path, dtype, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
