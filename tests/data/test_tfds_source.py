"""Sets that TFDS prepared, read back without TensorFlow and without network."""

import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from eejax.data import load, tfds_source

EVERY = pytest.mark.parametrize("name", ["toy", "toy_tensor"])


@pytest.fixture
def root(prepared, monkeypatch, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    return prepared


@EVERY
@pytest.mark.parametrize("split", ["train", "train[10%:60%]", "test[-3:]+train[5:9]"])
def test_arrays_are_those_that_tfds_reads(root, name, split):
    source = load(name, split)
    records = tfds.data_source(
        name,
        split=split,
        data_dir=str(root),
        download=False,
        builder_kwargs={"file_format": "array_record"},
    )
    assert len(records) == len(source.labels)
    np.testing.assert_array_equal(source.labels, [record["label"] for record in records])
    np.testing.assert_array_equal(source.images, [record["image"] for record in records])
    assert (source.images.dtype, source.labels.dtype) == (np.uint8, np.int32)
    assert "tensorflow" not in sys.modules


@EVERY
def test_nothing_is_lost_or_made_up(root, name):
    read, digits = load(name), load("digits", "train[:40]")

    def rows(source):
        pixels = source.images.reshape(len(source.labels), -1)
        return sorted(map(tuple, np.column_stack([pixels, source.labels]).tolist()))

    assert rows(read) == rows(digits)
    assert read.info == (
        name,
        tuple("0123456789"),
        (8, 8, 1),
        f"TFDS {name}/1.9.0",
        "not known",
        "Nobody, 1999",
        None,
        (),
    )


def test_chunks_do_not_show(root, monkeypatch):
    whole = load("toy")
    monkeypatch.setattr(tfds_source, "_CHUNK", 7)
    np.testing.assert_array_equal(load("toy").images, whole.images)


def edit(folder, **fields):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_newest_version_is_taken(prepared, tmp_path):
    shutil.copytree(prepared / "toy", tmp_path / "data/toy")
    for version in ("1.10.0", "1.2.0"):
        shutil.copytree(prepared / "toy/1.9.0", tmp_path / "data/toy" / version)
        edit(tmp_path / "data/toy" / version, version=version)
    assert load("toy").info.source == "TFDS toy/1.10.0"


@pytest.mark.parametrize("why", ["tfrecord", "incomplete", "damaged"])
def test_what_cannot_be_read_is_not_prepared(prepared, tmp_path, why):
    folder = shutil.copytree(prepared / "toy/1.9.0", tmp_path / "data/toy/1.9.0")
    assert tfds_source.find_names() == ["toy"]
    match why:
        case "tfrecord":
            edit(folder, fileFormat="tfrecord")
        case "incomplete":
            folder.rename(folder.parent / "incomplete.ABC_1.9.0")
        case "damaged":
            (folder / "dataset_info.json").write_text("{")
    assert tfds_source.find_names() == []
    with pytest.raises(ValueError, match="name 'toy' is none of"):
        load("toy")


def test_a_set_of_something_else_is_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared / "toy/1.9.0", tmp_path / "data/toy/1.9.0")
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"label"', '"target"'))
    with pytest.raises(ValueError, match=r"no uint8 'image' .* 'label': .*target ClassLabel"):
        load("toy")


def test_a_missing_library_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'eejax\[tfds\]'"):
        load("toy")
    assert len(load("digits").labels) == 1437
