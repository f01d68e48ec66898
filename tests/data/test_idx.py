"""IDX files: every spelling is read, every kind of damage is named."""

import gzip
import struct

import numpy as np
import pytest

from eejax import trees
from eejax.data import idx, import_idx, load
from eejax.data.catalogue import KNOWN

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte")  # fmt: skip


def encode(array, magic=None):
    header = struct.pack(">I", magic or 0x800 + array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(np.uint8).tobytes()


def arrays(train=6, test=4, size=(3, 5), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for n in (train, test):
        labels = np.arange(n) % classes
        out += [rng.integers(0, 256, (n, *size)), labels]
    return out


def write(folder, contents=None, spell=str, pack=bytes):
    folder.mkdir(exist_ok=True)
    for name, array in zip(NAMES, contents or arrays()):
        (folder / spell(name)).write_bytes(pack(encode(array)))
    return folder


@pytest.mark.parametrize(
    ("spell", "pack"),
    [
        (str, bytes),
        (lambda name: name + ".gz", gzip.compress),
        (lambda name: name + ".gz", bytes),  # A browser that unpacked but kept the name.
        (lambda name: name.replace("-idx", ".idx"), bytes),
        (lambda name: "emnist-digits-" + name.replace("t10k", "test") + ".gz", gzip.compress),
    ],
)
def test_round_trip(tmp_path, spell, pack):
    images, labels, test_images, test_labels = arrays()
    message = import_idx("toy", write(tmp_path / "files", spell=spell, pack=pack))
    assert message == (
        f"imported toy: 6 train and 4 test images of 3x5 in 3 classes, into {tmp_path / 'data/toy'}"
    )
    train, test = load("toy"), load("toy", "test")
    for source, x, y in ((train, images, labels), (test, test_images, test_labels)):
        np.testing.assert_array_equal(source.images, x[..., None].astype(np.uint8), strict=True)
        np.testing.assert_array_equal(source.labels, y.astype(np.int32), strict=True)
    assert train.info[:3] == ("toy", ("0", "1", "2"), (3, 5, 1))
    stored = {"train": train[1:], "test": test[1:]}
    assert train.info.sha256 == trees.sha256(stored)


def test_importing_again_replaces(tmp_path):
    import_idx("toy", write(tmp_path / "old"), tmp_path / "sets")
    import_idx("toy", write(tmp_path / "new", arrays(9)), tmp_path / "sets")
    assert len(load("toy", data_dir=tmp_path / "sets").labels) == 9


def test_a_known_set_brings_its_classes_and_must_be_whole(tmp_path, monkeypatch):
    files = write(tmp_path / "files", arrays(size=(28, 28)))
    with pytest.raises(ValueError, match="is not fashion_mnist: it has 10 images"):
        import_idx("fashion_mnist", files)
    with pytest.raises(ValueError, match="is not fashion_mnist"):
        import_idx("fashion_mnist", write(tmp_path / "small", arrays(70_000, 10)))
    known = KNOWN["fashion_mnist"]
    monkeypatch.setitem(KNOWN, "fashion_mnist", known._replace(samples=10))
    import_idx("fashion_mnist", files)
    info = load("fashion_mnist").info
    assert info.classes[9] == "Ankle boot"
    assert (info.licence, info.source) == ("MIT", "IDX files, imported")
    write(tmp_path / "files", arrays(11, size=(28, 28), classes=11))
    with pytest.raises(ValueError, match=r"train-labels.* has the label 10; .* has 10 classes"):
        import_idx("fashion_mnist", files)


def test_one_of_several_sets_is_chosen_by_name(tmp_path):
    files = tmp_path / "gzip"
    for part, n in (("digits", 7), ("letters", 8)):
        write(files, arrays(n), lambda name, part=part: f"emnist-{part}-{name}")
    import_idx("emnist_letters", files)
    assert len(load("emnist_letters").labels) == 8
    with pytest.raises(ValueError, match=r"several sets \(emnist-digits, emnist-letters\)"):
        import_idx("toy", files)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "is that of an embedded set"),
        ("../digits", "name must be of a-z"),
        ("a/b/c", "name must be of a-z"),
        ("MNIST", "name must be of a-z"),
        ("", "name must be of a-z"),
    ],
)
def test_names_that_cannot_be_taken(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        import_idx(name, write(tmp_path / "files"))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*/files'"):
        import_idx("toy", tmp_path / "files")
    files = write(tmp_path / "files")
    (files / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match="files has no file t10k-labels-idx1-ubyte"):
        import_idx("toy", files)


GOOD = {name: encode(array) for name, array in zip(NAMES, arrays())}
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES
HUGE = struct.pack(">4I", 0x803, 2**31, 2**31, 2**31)
LARGE = struct.pack(">4I", 0x803, 2**20, 2**5, 2**5)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (IMAGES, b"", "is cut short: it has no whole header"),
        (IMAGES, GOOD[IMAGES][:15], "is cut short: it has no whole header"),
        (IMAGES, GOOD[IMAGES][:-1], r"is cut short: its header says \[6, 3, 5\], 90 bytes"),
        (IMAGES, GOOD[IMAGES] + b"\0", "has trailing bytes"),
        (IMAGES, GOOD[LABELS], "magic number 0x00000801; .* in 3 dimensions have 0x00000803"),
        (LABELS, GOOD[IMAGES], "magic number 0x00000803; .* in 1 dimensions have 0x00000801"),
        (IMAGES, encode(arrays()[0], magic=0x803 << 16), "magic number 0x08030000"),
        (IMAGES, encode(np.zeros((6, 0, 5))), r"is empty: its header says \[6, 0, 5\]"),
        (IMAGES, HUGE, "is too large: 9903520314283042199192993792 bytes"),
        (IMAGES, LARGE, "is cut short: its header says .* 1073741824 bytes"),
        (IMAGES, gzip.compress(HUGE, mtime=0), "is too large"),
        (IMAGES, gzip.compress(LARGE, mtime=0), "is cut short"),
        (IMAGES, gzip.compress(GOOD[IMAGES], mtime=0)[:-9], "is a damaged gzip file"),
        (IMAGES, gzip.compress(GOOD[IMAGES], mtime=0)[:-4] + b"1234", "is a damaged gzip file"),
        (
            IMAGES,
            gzip.compress(GOOD[IMAGES], mtime=0)[:10] + b"\xff" * 99,
            "is a damaged gzip file",
        ),
        (IMAGES, gzip.compress(GOOD[IMAGES] + b"\0", mtime=0), "has trailing bytes"),
        (IMAGES, gzip.compress(GOOD[IMAGES], mtime=0) + b"junk", "is a damaged gzip file"),
        (LABELS, encode(np.arange(5)), "images-idx3-ubyte has 6 images, but .* has 5 labels"),
        (TEST_LABELS, encode(np.array([0, 1, 2, 3])), "has the label 3; toy has 3 classes"),
        (TEST_IMAGES, encode(np.zeros((4, 5, 3))), r"of \(5, 3, 1\), but .* of \(3, 5, 1\)"),
    ],
)
def test_damage_is_named_and_nothing_is_stored(tmp_path, name, data, message):
    files = write(tmp_path / "files")
    (files / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        import_idx("toy", files)
    assert name in str(error.value)
    assert not (tmp_path / "data").exists()


def test_a_header_alone_allocates_nothing(tmp_path, monkeypatch):
    """What is asked of the file never exceeds what it can hold."""
    asked = []

    class File:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def read(self, size):
            asked.append(size)
            return self.file.read(size)

    real = gzip.open
    monkeypatch.setattr(idx.gzip, "open", lambda *args: File(real(*args)))
    files = write(tmp_path / "files")
    (files / IMAGES).write_bytes(gzip.compress(LARGE))
    with pytest.raises(ValueError, match="is cut short"):
        import_idx("toy", files)
    assert max(asked) < 100_000
