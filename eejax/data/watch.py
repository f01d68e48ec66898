"""Shoulder exercises of ten subjects who wear a smartwatch, from the file that seglearn carries."""

import pickletools
import zipfile
from pathlib import Path

import numpy as np

from eejax.data.catalogue import GROUPED

_MEMBER = "seglearn/data/watch_dataset.npy"
_STEP = 50
_TEST = 0.2


def read_watch(path: str | Path) -> tuple[tuple[str, ...], dict]:
    """Cuts the recordings into windows of 2 s at 50 Hz that overlap by half; a group is a subject.

    The first 80 % of each recording are for training and the rest for testing, and no window lies
    in both, so every subject has both. To leave subjects out, choose by ``groups``.

    Args:
      path: the wheel of seglearn, or its file ``watch_dataset.npy``.

    Returns:
      The names of the groups, and ``{split: (signals, labels, groups)}`` with signals float32
      ``[n, 100, 1, 6]``: acceleration and angular velocity of x, y, z.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or another one.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                data = archive.read(_MEMBER)
        else:
            data = path.read_bytes()
        table = _arrays(data)
        recordings, exercises, subjects = table["X"], table["y"][0], table["subject"][0]
        if not len(recordings) == len(exercises) == len(subjects):
            raise ValueError("its arrays differ in length")
        if not all(np.isfinite(recording).all() for recording in recordings):
            raise ValueError("it has values that are not finite")
        return _windows(recordings, exercises, subjects)
    except (ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not the watch data of seglearn, or damaged: {error}"
        ) from error


def _windows(
    recordings: list[np.ndarray], exercises: np.ndarray, subjects: np.ndarray
) -> tuple[tuple[str, ...], dict]:
    steps, _, channels = GROUPED["watch"].info.image_shape
    if not set(exercises) <= set(range(len(GROUPED["watch"].info.classes))):
        raise ValueError(f"exercises must be in 0..{len(GROUPED['watch'].info.classes) - 1}")
    people, groups = np.unique(subjects, return_inverse=True)
    rows: dict[str, list] = {"train": [], "test": []}
    for recording, exercise, group in zip(recordings, exercises, groups):
        cut = round(len(recording) * (1 - _TEST))
        for split, piece in (("train", recording[:cut]), ("test", recording[cut:])):
            for start in range(0, len(piece) - steps + 1, _STEP):
                rows[split].append((piece[start : start + steps], exercise, group))
    splits = {}
    for split, found in rows.items():
        signals, labels, who = (np.array(column) for column in zip(*found))
        signals = signals.astype(np.float32).reshape(-1, steps, 1, channels)
        splits[split] = signals, labels.astype(np.int32), who.astype(np.int32)
    return tuple(f"subject {i}" for i in people), splits


def _arrays(data: bytes) -> dict[str, list[np.ndarray]]:
    """Lists the arrays under each key of the pickled dictionary, which is never unpickled.

    Pickle would run whatever the file says. Here its steps are only read: the bytes of an array
    are a long Latin-1 text, the recordings with one channel after the other.
    """
    out: dict[str, list[np.ndarray]] = {"X": [], "y": [], "subject": [], "side": []}
    channels = GROUPED["watch"].info.image_shape[2]
    key = None
    for code, argument, _ in pickletools.genops(data[data.index(b"\x80\x02") :]):
        if code.name != "BINUNICODE":
            continue
        if argument in out:
            key = argument
        elif key and len(argument) > len("X_labels"):
            raw = argument.encode("latin-1")
            if key == "X":
                out[key].append(np.frombuffer(raw, "<f8").reshape(channels, -1).T)
            else:
                out[key].append(np.frombuffer(raw, "<i8"))
    return out
