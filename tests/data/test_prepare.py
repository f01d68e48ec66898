"""Stock builders of TFDS, run without TensorFlow on files from a server on this machine."""

import functools
import gzip
import http.server
import importlib
import io
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar, mnist

from eejax.data import load, prepare
from eejax.data.prepare import _patches

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 28, 28, 1)).astype(np.uint8) for n in (30, 10))
COLOUR = RNG.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)


def idx(array):
    shape = np.array([0x800 + array.ndim, *array.shape], ">u4")
    return gzip.compress(shape.tobytes() + array.astype(np.uint8).tobytes())


def write_files(folder):
    files = {
        "train-images-idx3-ubyte.gz": idx(TRAIN[..., 0]),
        "train-labels-idx1-ubyte.gz": idx(np.arange(30) % 10),
        "t10k-images-idx3-ubyte.gz": idx(TEST[..., 0]),
        "t10k-labels-idx1-ubyte.gz": idx(np.arange(10)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(f"gzip/emnist-digits-{name.replace('t10k', 'test')}", data)
    parts = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    names = "airplane automobile bird cat deer dog frog horse ship truck".replace(" ", "\n")
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        members = {"batches.meta.txt": names.encode()}
        for name, images in zip(parts, np.split(COLOUR, 6)):
            rows = [bytes([i]) + x.transpose(2, 0, 1).tobytes() for i, x in enumerate(images)]
            members[name] = b"".join(rows)
        for name, data in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves small sets, and points the builders there."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "www"
    folder.mkdir()
    write_files(folder)
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_port}/"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(mnist.MNIST, "URL", url)
        monkeypatch.setattr(mnist.FashionMNIST, "URL", url)
        monkeypatch.setattr(mnist.EMNIST, "URL", f"{url}gzip.zip")
        monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 30)
        monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 10)
        for config in mnist.EMNIST.BUILDER_CONFIGS:
            monkeypatch.setattr(config, "train_examples", 30)
            monkeypatch.setattr(config, "test_examples", 10)
        files = cifar.Cifar10._cifar_info.fget
        moved = property(lambda self: files(self)._replace(url=f"{url}cifar.tar.gz"))
        monkeypatch.setattr(cifar.Cifar10, "_cifar_info", moved)
        yield folder
        httpd.shutdown()


def sorted_rows(images):
    return sorted(images.reshape(len(images), -1).tolist())


@pytest.mark.parametrize(
    ("name", "train", "test", "version"),
    [
        ("fashion_mnist", TRAIN, TEST, "fashion_mnist/3.0.1"),
        ("emnist/digits", TRAIN, TEST, "emnist/digits/3.1.0"),
        ("cifar10", COLOUR[:20], COLOUR[20:], "cifar10/3.0.2"),
    ],
)
def test_stock_builders_are_prepared_and_read_without_tensorflow(
    server, tmp_path, name, train, test, version
):
    message = prepare(name)
    count = len(train) + len(test)
    assert message == f"prepared {name}: {count} samples in {tmp_path / 'data' / version}"
    assert sorted_rows(load(name).images) == sorted_rows(train)
    assert sorted_rows(load(name, "test").images) == sorted_rows(test)
    counts = np.bincount(load(name).labels)
    assert counts.tolist() == ([5] * 4 if name == "cifar10" else [3] * 10)
    assert load(name).info.source == f"TFDS {version}"
    assert prepare(name) == f"{name} is ready (TFDS {version}); nothing to do"
    assert "tensorflow" not in sys.modules


def value(place, attribute):
    module, _, name = place.partition(":")
    owner = importlib.import_module(f"tensorflow_datasets.{module}")
    return getattr(getattr(owner, name) if name else owner, attribute)


def test_tfds_is_as_it_was_afterwards(server):
    before = [value(*patch[:2]) for patch in _patches()]
    prepare("mnist")
    after = [value(*patch[:2]) for patch in _patches()]
    assert all(a is b for a, b in zip(before, after))


def test_missing_downloads_are_named(server):
    (server / "gzip.zip").unlink()
    with pytest.raises(OSError, match=r"cannot prepare emnist/digits: .*404"):
        prepare("emnist/digits")


def test_damaged_downloads_are_refused(server):
    (server / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(
        OSError, match=r"cannot prepare mnist: Error while extracting .*; try again"
    ):
        prepare("mnist")
    with pytest.raises(FileNotFoundError, match="eejax data prepare mnist"):
        load("mnist")


def test_the_pinned_version_of_tfds_is_the_one_tested():
    """The guard: what is patched is there, in the version that the error message recommends."""
    assert tfds.__version__ == "4.9.10"
    for place, attribute, _ in _patches():
        value(place, attribute)


def test_a_tfds_of_another_layout_is_named(monkeypatch, server):
    monkeypatch.delattr("tensorflow_datasets.core.download.downloader.MAX_RETRIES")
    with pytest.raises(ImportError, match=r"no core\.download\.downloader.*tensorflow-datasets==4"):
        prepare("mnist")


def test_no_network_is_said_soon_and_with_the_other_way(monkeypatch, server):
    monkeypatch.setattr(mnist.MNIST, "URL", "http://127.0.0.1:9/")
    with pytest.raises(OSError, match=r"cannot prepare mnist: .*; .*`eejax data import mnist DIR`"):
        prepare("mnist")


def test_what_needs_no_preparation(no_network):
    assert prepare("mnist_5k") == "mnist_5k is embedded; nothing to do"


def test_unknown_names(no_network):
    with pytest.raises(ValueError, match=r"none of mnist_5k, .*; did you mean 'cifar10'"):
        prepare("cifar_10")


def test_a_missing_library_is_named(monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'eejax\[tfds\]'"):
        prepare("mnist")
