"""Import of IDX files, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from eejax.data import store
from eejax.data.catalogue import KNOWN
from eejax.data.embedded import EMBEDDED
from eejax.data.source import Info

_FILE = re.compile(r"(?:(.+)-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)?")
_MAX_BYTES = 2**31
_DEFLATE_AT_BEST = 1032  # A compressed byte never becomes more bytes than this.


def import_idx(name: str, directory: str | Path, data_dir: str | Path | None = None) -> str:
    """Takes four IDX files into the folder of data sets, where `load` finds them.

    The files are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same with
    ``t10k`` or ``test``, gzipped or not, spelt ``.idx3`` or not, with a prefix such as
    ``emnist-digits-`` or none. Pixels and labels are stored as they are: the images of EMNIST are
    published transposed and stay so.

    Args:
      name: the name to load the set by, such as ``fashion_mnist`` or ``emnist/digits``. If it is
        the name of a published set, classes and sizes must be those of that set.
      directory: folder of the files. Of several sets in it the one whose prefix is the name is
        taken.
      data_dir: folder of data sets; see `store.data_dir`.

    Returns:
      A message of what was imported, and where to.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the name cannot be taken, or a file is damaged or does not fit the others.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name must be of a-z, 0-9, _ and -, with at most one / between; got {name!r}"
        )
    if name in EMBEDDED:
        raise ValueError(f"name {name!r} is that of an embedded set; choose another")
    files = _find_files(name, Path(directory).expanduser())
    splits = {}
    for split in ("train", "test"):
        images, labels = _read(files[split, "images"], 3), _read(files[split, "labels"], 1)
        if len(images) != len(labels):
            raise ValueError(
                f"{files[split, 'images']} has {len(images)} images, but "
                f"{files[split, 'labels']} has {len(labels)} labels"
            )
        splits[split] = images[..., None], labels.astype(np.int32)
    folder = store.data_dir(data_dir) / name
    info = store.write(folder, _info(name, splits, files), splits)
    train, test = (len(splits[split][1]) for split in ("train", "test"))
    height, width, _ = info.image_shape
    return (
        f"imported {name}: {train:,} train and {test:,} test images of {height}x{width} in "
        f"{len(info.classes)} classes, into {folder}"
    )


def _find_files(name: str, directory: Path) -> dict[tuple[str, str], Path]:
    if not directory.is_dir():
        raise FileNotFoundError(f"no folder {str(directory)!r}")
    sets: dict[str, dict] = {}
    # In this order a file that is there both gzipped and not is read without gzip.
    for path in sorted(directory.iterdir(), reverse=True):
        if match := _FILE.fullmatch(path.name):
            prefix, part, kind = match.groups()
            split = "train" if part == "train" else "test"
            sets.setdefault(prefix or "", {})[split, kind] = path
    prefix = re.sub("[/_]", "-", name)
    if len(sets) > 1 and prefix not in sets:
        found = ", ".join(sorted(sets))
        raise ValueError(f"{directory} has several sets ({found}); name must be one of them")
    files = sets.get(prefix) or next(iter(sets.values()), {})
    for split, stem in (("train", "train"), ("test", "t10k")):
        for kind, dims in (("images", 3), ("labels", 1)):
            if (split, kind) not in files:
                wanted = f"{stem}-{kind}-idx{dims}-ubyte"
                raise FileNotFoundError(f"{directory} has no file {wanted}, with or without .gz")
    return files


def _read(path: Path, dims: int) -> np.ndarray:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    room = path.stat().st_size * (_DEFLATE_AT_BEST if zipped else 1)
    try:
        with (gzip.open if zipped else open)(path, "rb") as file:
            header = file.read(4 * (1 + dims))
            magic = int.from_bytes(header[:4], "big")
            if len(header) >= 4 and magic != 0x800 + dims:
                raise ValueError(
                    f"{path} has the magic number 0x{magic:08x}; IDX files of bytes in {dims} "
                    f"dimensions have 0x{0x800 + dims:08x}"
                )
            if len(header) < 4 * (1 + dims):
                raise ValueError(f"{path} is cut short: it has no whole header")
            shape = np.frombuffer(header, ">u4")[1:].tolist()
            if 0 in shape:
                raise ValueError(f"{path} is empty: its header says {shape}")
            size = int(np.prod(shape, dtype=object))
            if size > _MAX_BYTES:
                raise ValueError(f"{path} is too large: {size} bytes, more than {_MAX_BYTES}")
            # The second before the first: a header alone must not make us ask for much memory.
            data = file.read(size + 1) if size <= room else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(data) < size:
        raise ValueError(f"{path} is cut short: its header says {shape}, {size} bytes")
    if len(data) > size:
        raise ValueError(f"{path} has trailing bytes: its header says {shape}, {size} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _info(name: str, splits: dict, files: dict) -> Info:
    shapes = {split: images.shape[1:] for split, (images, _) in splits.items()}
    if shapes["train"] != shapes["test"]:
        raise ValueError(
            f"{files['test', 'images']} has images of {shapes['test']}, but "
            f"{files['train', 'images']} of {shapes['train']}"
        )
    source = "IDX files, imported"
    if name in KNOWN:
        info, samples, _ = KNOWN[name]
        count = sum(len(labels) for _, labels in splits.values())
        if shapes["train"] != info.image_shape or count < samples:
            raise ValueError(
                f"{files['train', 'images'].parent} is not {name}: it has {count:,} images of "
                f"{shapes['train']}, and {name} {samples:,} of {info.image_shape}; name the set "
                "otherwise"
            )
        info = info._replace(source=source)
    else:
        classes = tuple(str(i) for i in range(splits["train"][1].max() + 1))
        info = Info(name, classes, shapes["train"], source, "not known", "not known")
    for split, (_, labels) in splits.items():
        if labels.max() >= len(info.classes):
            raise ValueError(
                f"{files[split, 'labels']} has the label {labels.max()}; {name} has "
                f"{len(info.classes)} classes"
            )
    return info
