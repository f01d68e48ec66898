"""The embedded sets: their numbers, their cache, and what loading them does not import."""

import csv
import gzip
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from eejax import trees
from eejax.data import embedded, load

EVERY = pytest.mark.parametrize("name", embedded.EMBEDDED)


def whole(name):
    return load(name, "train+test")


@EVERY
def test_splits_are_stratified_disjoint_and_complete(name):
    train, test = load(name), load(name, "test")
    info = embedded.EMBEDDED[name]
    assert train.info == test.info == info
    for source, split in ((train, "train"), (test, "test")):
        n = embedded.find(name).sizes[split]
        assert (source.images.shape, source.images.dtype) == ((n, *info.image_shape), np.uint8)
        assert (source.labels.shape, source.labels.dtype) == ((n,), np.int32)
    counts = np.bincount(train.labels), np.bincount(test.labels)
    assert (abs(counts[0] - 4 * counts[1]) < 5).all()
    # No two images of either set are equal, so as many differ as there are samples.
    images = whole(name).images
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert len(images) == {"mnist_5k": 5000, "digits": 1797}[name]


@EVERY
def test_splits_are_mixed_and_the_same_for_ever(name):
    golden = {
        "mnist_5k": ([2, 6, 1, 7, 3, 3, 7, 7], [7, 7, 0, 7, 0, 2, 7, 0]),
        "digits": ([4, 2, 1, 2, 9, 3, 0, 1], [3, 2, 3, 1, 4, 1, 2, 2]),
    }[name]
    assert (load(name).labels[:8].tolist(), load(name, "test").labels[:8].tolist()) == golden


def test_digits_are_those_of_the_file():
    path = Path(find_spec("sklearn").submodule_search_locations[0], "datasets/data/digits.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = [[int(value) for value in row] for row in csv.reader(file)]
    wanted = sorted((*(round(v * 255 / 16) for v in row[:-1]), row[-1]) for row in rows)
    digits = whole("digits")
    table = np.column_stack([digits.images.reshape(1797, 64), digits.labels])
    assert sorted(map(tuple, table.tolist())) == wanted
    assert np.unique(digits.images).tolist() == [round(v * 255 / 16) for v in range(17)]


def test_mnist_5k_looks_like_mnist():
    digits = whole("mnist_5k")
    assert np.bincount(digits.labels).tolist() == [500] * 10
    # The mean of all MNIST is 33.3, and of all digits 1 has the least ink and 0 the most.
    assert digits.images.mean() == pytest.approx(33.487, abs=0.001)
    ink = [digits.images[digits.labels == label].mean() for label in range(10)]
    assert (np.argmin(ink), np.argmax(ink)) == (1, 0)


def test_the_cache_is_written_once_and_used(tmp_path, monkeypatch):
    first = whole("mnist_5k")
    assert (tmp_path / "cache/mnist_5k/manifest.json").is_file()
    monkeypatch.setattr(embedded, "_parse", None)
    second = whole("mnist_5k")
    assert trees.sha256(first[1:]) == trees.sha256(second[1:])


@pytest.mark.parametrize("damage", ["arrays", "manifest", "missing", "other"])
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    first = whole("mnist_5k")
    folder = tmp_path / "cache/mnist_5k"
    (arrays,) = folder.glob("*.npz")
    match damage:
        case "arrays":
            data = bytearray(arrays.read_bytes())
            data[1000] ^= 1
            arrays.write_bytes(data)
        case "manifest":
            (folder / "manifest.json").write_text("{")
        case "missing":
            arrays.unlink()
        case "other":
            images, labels = np.zeros((5000, 28, 28, 1), np.uint8), np.zeros(5000, np.int32)
            embedded.store.write(folder, first.info, {"all": (images, labels)})
    assert trees.sha256(whole("mnist_5k")[1:]) == trees.sha256(first[1:])
    pool = embedded.store.find(folder)
    images, labels = pool.read("all", 0, None)
    assert trees.sha256({"images": images, "labels": labels}) == first.info.sha256


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EEJAX_CACHE", str(tmp_path / "file"))
    assert len(whole("mnist_5k").labels) == 5000


def test_a_changed_or_missing_package_is_said(tmp_path, monkeypatch):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    path = tmp_path / "datasets/data/digits.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"0," * 64 + b"1\n"))
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(ValueError, match="is not the digits that eejax knows"):
        load("digits")
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load("digits")


def test_loading_imports_no_large_package_and_uses_no_network():
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from eejax import data
for name in ("mnist_5k", "digits"):
    data.load(name)
data.list_datasets()
try:
    data.load("mnist")
except FileNotFoundError:
    print(*sorted(sys.modules))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    modules = output.stdout.split()
    assert "eejax.data" in modules
    for package in ("tensorflow", "tensorflow_datasets", "mlxtend", "sklearn", "pandas",
                    "matplotlib", "flax", "PIL"):  # fmt: skip
        assert package not in modules
