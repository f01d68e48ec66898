import json
import os

import numpy as np
import pytest

from eejax import trees
from eejax.data import Info, store

INFO = Info("toy", ("a", "b"), (2, 2, 1), "made up", "none", "nobody, 1999")


def splits(seed=0):
    rng = np.random.default_rng(seed)
    return {
        split: (rng.integers(0, 256, (n, 2, 2, 1)).astype(np.uint8), np.arange(n, dtype=np.int32))
        for split, n in (("train", 5), ("test", 3))
    }


def assert_stored(folder, wanted):
    pool = store.find(folder)
    assert pool.sizes == {"train": 5, "test": 3}
    for split, arrays in wanted.items():
        for array, stored in zip(arrays, pool.read(split, 0, 5)):
            np.testing.assert_array_equal(stored, array, strict=True)


def test_what_is_written_is_found(tmp_path):
    info = store.write(tmp_path / "a" / "b", INFO, splits())
    assert info == INFO._replace(sha256=trees.sha256(splits()))
    assert_stored(tmp_path / "a" / "b", splits())
    pool = store.find(tmp_path / "a" / "b")
    assert pool.info == info
    assert [len(array) for array in pool.read("train", 1, 4)] == [3, 3]
    assert store.find(tmp_path) is None
    store.write(tmp_path / "c", INFO, splits())
    assert store.find_names(tmp_path) == ["a/b", "c"]


def test_writing_again_replaces_and_leaves_nothing_behind(tmp_path):
    store.write(tmp_path, INFO, splits(0))
    store.write(tmp_path, INFO, splits(1))
    assert_stored(tmp_path, splits(1))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_write_that_is_cut_off_leaves_the_old_set(tmp_path, monkeypatch, survived):
    store.write(tmp_path, INFO, splits(0))
    replaced = []

    def replace(old, new, real=os.replace):
        if len(replaced) == survived:
            raise OSError("no space left")
        replaced.append(new)
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no space"):
        store.write(tmp_path, INFO, splits(1))
    assert_stored(tmp_path, splits(0))


@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_damaged_arrays_are_noticed(tmp_path, damage):
    store.write(tmp_path, INFO, splits())
    (path,) = tmp_path.glob("test-*.npz")
    data = bytearray(path.read_bytes())
    data[100] ^= damage == "flip"
    path.write_bytes({"flip": data, "cut": data[:-1], "grow": data + b"x"}[damage])
    pool = store.find(tmp_path)
    pool.read("train", 0, 1)
    with pytest.raises(ValueError, match=r"test-.*npz is damaged: its sha256 is not"):
        pool.read("test", 0, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"info": {}, "splits": {}}'])
def test_a_damaged_manifest_is_noticed(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        store.find(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    store.write(tmp_path, INFO, splits())
    (path,) = tmp_path.glob("test-*.npz")
    np.savez(path, images=np.array([{}], object), labels=np.array([0]))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["splits"]["test"]["sha256"] = store._digest(path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        store.find(tmp_path).read("test", 0, 1)


def test_folders_come_from_the_argument_the_environment_or_the_home(tmp_path, monkeypatch):
    assert store.data_dir(tmp_path / "given") == tmp_path / "given"
    assert store.data_dir() == tmp_path / "data"
    assert store.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EEJAX_DATA", "EEJAX_CACHE"):
        monkeypatch.delenv(name)
    assert store.data_dir() == tmp_path / ".local/share/eejax/datasets"
    assert store.cache_dir() == tmp_path / ".cache/eejax"
    assert store.data_dir("~/x") == tmp_path / "x"


def test_the_command_option_can_be_pasted():
    assert store.command_option(None) == ""
    assert store.command_option("my data") == " --data-dir 'my data'"


def test_groups_are_stored_with_their_names(tmp_path):
    arrays = {split: (x, y, y[::-1].copy()) for split, (x, y) in splits().items()}
    info = store.write(tmp_path, INFO._replace(groups=("p", "q")), arrays)
    assert store.find(tmp_path).info == info
    assert_stored(tmp_path, arrays)
    assert len(store.find(tmp_path).read("train", 0, 5)) == 3


def test_a_manifest_from_before_there_were_groups_is_read(tmp_path):
    store.write(tmp_path, INFO, splits())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["info"]["groups"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert store.find(tmp_path).info.groups == ()
    assert_stored(tmp_path, splits())
