"""Folders of their own for every test, no network, and a small set that TFDS prepared."""

import socket

import numpy as np
import pytest

from eejax.data import load


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("EEJAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"network used: {args}")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Folder in which TFDS prepared ``toy``: 40 + 10 digits, twice, encoded and not."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class Toy(tfds.core.GeneratorBasedBuilder):
        """Fifty digits."""

        VERSION = tfds.core.Version("1.9.0")
        IMAGE = tfds.features.Image(shape=(8, 8, 1))

        def _info(self):
            features = {"image": self.IMAGE, "label": tfds.features.ClassLabel(num_classes=10)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), citation="Nobody, 1999"
            )

        def _split_generators(self, dl_manager):
            return {"train": self._rows("train[:40]"), "test": self._rows("test[:10]")}

        def _rows(self, split):
            digits = load("digits", split)
            for i, (image, label) in enumerate(zip(digits.images, digits.labels)):
                yield i, {"image": self.encode(image), "label": int(label)}

        def encode(self, image):
            return Image.fromarray(image[..., 0])

        def _generate_examples(self):
            raise NotImplementedError

    class ToyTensor(Toy):
        """The same, with the pixels as they are."""

        IMAGE = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8)

        def encode(self, image):
            return image

    root = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    for builder in (Toy, ToyTensor):
        builder(data_dir=str(root), file_format="array_record").download_and_prepare(
            download_config=config
        )
    return root
