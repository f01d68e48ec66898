import numpy as np
import pytest

from eejax.data import Info, load, store
from eejax.data.catalogue import GROUPED, KNOWN
from eejax.data.load import names, parse_split

SIZES = {"train": 200, "test": 30}


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        ("train", [("train", 0, 200)]),
        ("train[:]", [("train", 0, 200)]),
        ("train[:80%]", [("train", 0, 160)]),
        ("train[80%:]", [("train", 160, 200)]),
        ("train[100:150]", [("train", 100, 150)]),
        ("train[1_00:15_0]", [("train", 100, 150)]),
        ("train[-10:]", [("train", 190, 200)]),
        ("train[-10%:-5%]", [("train", 180, 190)]),
        ("test[33%:66%]", [("test", 10, 20)]),
        ("train+test", [("train", 0, 200), ("test", 0, 30)]),
        ("test[:1] + train[:2]", [("test", 0, 1), ("train", 0, 2)]),
    ],
)
def test_splits(split, parts):
    assert parse_split(split, SIZES) == parts


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", "cannot read ''; allowed are NAME and NAME"),
        ("train[", r"cannot read 'train\['"),
        ("train[5]", r"cannot read 'train\[5\]'"),
        ("train[_:5]", r"cannot read 'train\[_:5\]'"),
        ("train[0.5:]", r"cannot read 'train\[0.5:\]'"),
        ("train+", "cannot read ''"),
        ("val", "'val' is none of train, test"),
        ("train+val", r"split 'train\+val': 'val' is none"),
        ("train[:201]", "is out of range; train has 200"),
        ("train[:101%]", "is out of range"),
        ("test[-31:]", "is out of range; test has 30"),
        ("train[5:5]", "is empty"),
        ("train[:0]", "is empty"),
    ],
)
def test_split_errors(split, message):
    with pytest.raises(ValueError, match=message):
        parse_split(split, SIZES)


def test_parts_are_slices_of_the_whole():
    train, test = load("digits"), load("digits", "test")
    both = load("digits", "test[-5:]+train[10:20]")
    np.testing.assert_array_equal(both.labels, [*test.labels[-5:], *train.labels[10:20]])
    np.testing.assert_array_equal(both.images[5:], train.images[10:20])


def test_imported_comes_before_prepared_and_the_data_dir_before_that_of_tfds(
    prepared, tmp_path, monkeypatch, no_network
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert load("toy").info.source == "TFDS toy/1.9.0"
    assert len(load("toy", "train[:5]").labels) == 5
    info = Info("toy", ("a",), (1, 1, 1), "imported", "none", "none")
    arrays = np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32)
    store.write(tmp_path / "data/toy", info, {"train": arrays})
    assert load("toy").info.source == "imported"
    assert load("toy", data_dir=tmp_path / "elsewhere").info.source == "TFDS toy/1.9.0"
    assert names() == ["mnist_5k", "digits", "toy", "toy_tensor", *KNOWN, *GROUPED]


@pytest.mark.parametrize("name", KNOWN)
def test_a_missing_set_is_an_error_with_the_command_to_get_it(name, no_network):
    with pytest.raises(FileNotFoundError, match=f"`eejax data prepare {name}` ") as error:
        load(name)
    text = str(error.value)
    assert (f"`eejax data import {name} DIR`" in text) == ("cifar" not in name)
    assert ("mnist_5k" in text) == (name == "mnist")


def test_the_command_names_the_data_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"prepare mnist --data-dir {tmp_path}`"):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "near"),
    [("mnist5k", "mnist_5k"), ("Digits", "digits"), ("fashion-mnist", "fashion_mnist")],
)
def test_an_unknown_name_is_an_error_with_the_nearest_name(name, near):
    with pytest.raises(ValueError, match=f"is none of mnist_5k, .*; did you mean '{near}'"):
        load(name)
