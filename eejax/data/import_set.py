"""Import of data sets from the files of their authors."""

from pathlib import Path

import numpy as np

from eejax.data import store
from eejax.data.catalogue import GROUPED
from eejax.data.har import read_har
from eejax.data.idx import import_idx
from eejax.data.newsgroups import read_newsgroups
from eejax.data.watch import read_watch

_READERS = {"har": read_har, "watch": read_watch, "20newsgroups": read_newsgroups}


def import_set(name: str, path: str | Path, data_dir: str | Path | None = None) -> str:
    """Takes a data set into the folder of data sets, where `load` finds it.

    Args:
      name: ``har`` (groups are subjects), ``watch`` (subjects) or ``20newsgroups`` (hierarchies of
        newsgroups), whose samples have natural groups; any other name is of IDX files, see
        `import_idx`.
      path: the files of the set: see `read_har`, `read_watch`, `read_newsgroups`; or the folder of
        the IDX files.
      data_dir: folder of data sets; see `load`.

    Returns:
      A message of what was imported, and where to.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the name cannot be taken, or a file is damaged or does not fit the others.
    """
    if name not in _READERS:
        return import_idx(name, path, data_dir)
    groups, splits = _READERS[name](path)
    info = GROUPED[name].info._replace(source="files of its authors, imported", groups=groups)
    folder = store.data_dir(data_dir) / name
    store.write(folder, info, splits)
    train, test = (len(splits[split][1]) for split in ("train", "test"))
    present = len(np.unique(np.concatenate([arrays[2] for arrays in splits.values()])))
    return (
        f"imported {name}: {train:,} train and {test:,} test samples of {present} groups in "
        f"{len(info.classes)} classes, into {folder}"
    )
