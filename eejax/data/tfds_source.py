"""Data sets prepared by TensorFlow Datasets in array_record format, read without TensorFlow."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np

from eejax.data import store
from eejax.data.catalogue import KNOWN
from eejax.data.source import Info, Pool

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 4096  # Records held as Python objects at a time.


def roots(data_dir: str | Path | None = None) -> list[Path]:
    """Lists the folders where prepared sets are looked for.

    Args:
      data_dir: folder of data sets; see `store.data_dir`.

    Returns:
      ``data_dir``, then ``TFDS_DATA_DIR`` or else ``~/tensorflow_datasets``.
    """
    tfds_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return [store.data_dir(data_dir), Path(tfds_dir).expanduser()]


def find(name: str, data_dir: str | Path | None = None) -> Pool | None:
    """Opens a prepared data set without reading its records; never uses the network.

    Args:
      name: TFDS name, with its config if it has several, such as ``emnist/digits``.
      data_dir: folder of data sets; see `store.data_dir`.

    Returns:
      The set in its newest version, or None if it is not prepared in array_record format.

    Raises:
      ImportError: it is prepared, but tensorflow-datasets is not installed.
      ValueError: it is not one of images of equal shape, each with one label.
    """
    for root in roots(data_dir):
        versions = [path.parent for path in (root / name).glob("*/dataset_info.json")]
        ready = [folder for folder in versions if _is_array_record(folder)]
        if ready:
            newest = max(ready, key=lambda folder: [int(part) for part in folder.name.split(".")])
            return _open(name, newest)
    return None


def find_names(data_dir: str | Path | None = None) -> list[str]:
    """Lists the names of all prepared data sets, without importing tensorflow-datasets."""
    names = set()
    for root in roots(data_dir):
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
            for path in root.glob(pattern):
                if _is_array_record(path.parent):
                    names.add(path.parent.parent.relative_to(root).as_posix())
    return sorted(names)


def import_tfds():
    """Imports tensorflow-datasets.

    Returns:
      The module.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import array_record  # noqa: F401
        import importlib_resources  # noqa: F401
        import PIL  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'eejax[tfds]'") from error
    return tfds


def _is_array_record(folder: Path) -> bool:
    if not _VERSION.fullmatch(folder.name):
        return False
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
    except ValueError:
        return False
    return info.get("fileFormat") == "array_record"


def _open(name: str, folder: Path) -> Pool:
    tfds = import_tfds()
    builder = tfds.builder_from_directory(str(folder))
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    shape = getattr(image, "shape", ())
    if (
        not isinstance(label, tfds.features.ClassLabel)
        or len(shape) != 3
        or None in shape
        or image.np_dtype != np.uint8
    ):
        raise ValueError(
            f"{folder} has no uint8 'image' of a fixed shape with a 'label': "
            f"{', '.join(f'{k} {v}' for k, v in features.items())}"
        )
    source = f"TFDS {builder.info.full_name}"
    if name in KNOWN:
        info = KNOWN[name].info._replace(source=source)
    else:
        licence = getattr(builder.info.redistribution_info, "license", None) or "not known"
        citation = builder.info.citation or "not known"
        info = Info(name, tuple(label.names), tuple(shape), source, licence, citation)
    # TFDS decodes one image at a time, and recommends another library while it does.
    encoded = isinstance(image, tfds.features.Image)
    decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None

    def read(split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        part = tfds.core.ReadInstruction(split, from_=start, to=stop, unit="abs")
        records = builder.as_data_source(split=part, decoders=decoders)
        images = np.empty((len(records), *shape), np.uint8)
        labels = np.empty(len(records), np.int32)
        for first in range(0, len(records), _CHUNK):
            positions = range(first, min(first + _CHUNK, len(records)))
            for i, record in zip(positions, records.__getitems__(positions)):
                pixels = _decode(record["image"]) if encoded else record["image"]
                images[i] = pixels.reshape(shape)
                labels[i] = record["label"]
        return images, labels

    return Pool(info, {k: v.num_examples for k, v in builder.info.splits.items()}, read)


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))
