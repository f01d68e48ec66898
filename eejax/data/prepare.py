"""Download and preparation by TFDS, without TensorFlow; the only user of the network."""

import contextlib
import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from eejax.data import store
from eejax.data.catalogue import GROUPED, KNOWN
from eejax.data.embedded import EMBEDDED
from eejax.data.load import find, how_to_import, unknown
from eejax.data.tfds_source import import_tfds

_RETRIES = 3  # TFDS tries ten times, which takes minutes to say that there is no network.


def prepare(name: str, data_dir: str | Path | None = None) -> str:
    """Downloads a data set and prepares it in array_record format, which `load` reads.

    The builder is that of TFDS, with its checksums. TensorFlow, which some builders use to open
    files and to encode images, is replaced while they run.

    Args:
      name: such as ``mnist``, ``fashion_mnist``, ``emnist/digits`` or ``cifar10``.
      data_dir: folder of data sets; see `load`.

    Returns:
      A message of what was done.

    Raises:
      ImportError: tensorflow-datasets is not installed, or laid out otherwise than expected.
      OSError: the download failed.
      ValueError: no set of this name can be prepared.
    """
    if name in EMBEDDED:
        return f"{name} is embedded; nothing to do"
    if (pool := find(name, data_dir)) is not None:
        return f"{name} is ready ({pool.info.source}); nothing to do"
    if name in GROUPED:
        option = store.command_option(data_dir)
        raise ValueError(f"name {name!r} is no set of TFDS; {how_to_import(name, option)}")
    if name not in KNOWN:
        raise unknown(name, [*EMBEDDED, *KNOWN])
    tfds = import_tfds()
    root = store.data_dir(data_dir)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder = tfds.builder(name, data_dir=str(root), file_format="array_record")
    with _without_tensorflow(tfds):
        try:
            builder.download_and_prepare(download_config=config)
        except (OSError, *_download_errors()) as error:
            option = store.command_option(data_dir)
            ways = f"try again, or `eejax data import {name} DIR{option}` takes in its IDX files"
            hint = ways if KNOWN[name].idx else "try again"
            raise OSError(f"cannot prepare {name}: {error}; {hint}") from error
    count = sum(split.num_examples for split in builder.info.splits.values())
    return f"prepared {name}: {count:,} samples in {builder.data_path}"


def _download_errors() -> tuple[type[Exception], ...]:
    module = "tensorflow_datasets.core.download"
    return tuple(
        getattr(importlib.import_module(f"{module}.{file}"), error)
        for file, error in (
            ("util", "DownloadError"),
            ("download_manager", "NonMatchingChecksumError"),
            ("extractor", "ExtractError"),
        )
    )


def _encode_image(encoder: Any, image: np.ndarray) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(data, encoder.encoding_format)
    return data.getvalue()


def _patches() -> list[tuple[str, str, Any]]:
    """Names ``(object, attribute, replacement)`` of what TFDS 4.9 needs TensorFlow for."""
    tf = SimpleNamespace(
        io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)),
        compat=SimpleNamespace(as_text=str),
    )
    return [
        ("core.features.image_feature:_ImageEncoder", "_encode_image", _encode_image),
        ("core.download.downloader:", "MAX_RETRIES", _RETRIES),
        ("core.download.extractor:", "tf", tf),
        ("image_classification.mnist:", "tf", tf),
        ("image_classification.cifar:", "tf", tf),
    ]


@contextlib.contextmanager
def _without_tensorflow(tfds: Any) -> Iterator[None]:
    """Patches the private names of TFDS for as long as its builder runs."""
    patched = []
    for place, attribute, replacement in _patches():
        module, _, name = place.partition(":")
        try:
            owner = importlib.import_module(f"tensorflow_datasets.{module}")
            owner = getattr(owner, name) if name else owner
            patched.append((owner, attribute, getattr(owner, attribute), replacement))
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"tensorflow-datasets {tfds.__version__} has no {place}{attribute}; "
                "pip install tensorflow-datasets==4.9.10, which has it"
            ) from error
    for owner, attribute, _, replacement in patched:
        setattr(owner, attribute, replacement)
    yield
    # Not after an error: threads of TFDS go on with the other files, and would need TensorFlow.
    for owner, attribute, old, _ in patched:
        setattr(owner, attribute, old)
