import json

import numpy as np
import pytest

from eejax.data import features_of, load_partition, make_partition, save_partition

LABELS = np.arange(40) % 4


def write(path, **options):
    partition = make_partition("dirichlet:0.5", LABELS, 5, seed=3, **options)
    save_partition(path, partition)
    return partition


@pytest.mark.parametrize("name", ["iid", "shards:2", "inner_dirichlet:0.3:0.5", "natural"])
def test_round_trip(tmp_path, name):
    partition = make_partition(
        name, LABELS, 4, 7, groups=LABELS if name == "natural" else None, features="noise:20"
    )
    save_partition(tmp_path / "p.json", partition)
    again = load_partition(tmp_path / "p.json", LABELS.astype(np.int32))
    assert again[:4] == partition[:4] == (name, 7, "noise:20", partition.labels_sha256)
    assert len(again.indices) == 4
    for a, b in zip(again.indices, partition.indices):
        np.testing.assert_array_equal(a, b, strict=True)
    images = np.full((1, 4, 4, 1), 99, np.uint8)
    skews = features_of(again), features_of(partition)
    np.testing.assert_array_equal(*(skew.apply(images, 3) for skew in skews))
    save_partition(tmp_path / "q.json", again)
    assert (tmp_path / "q.json").read_bytes() == (tmp_path / "p.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "q.json"]


def test_golden_file_is_readable_and_the_same_for_ever(tmp_path):
    """The file, and the partitions of this seed, must not change with a release."""
    save_partition(tmp_path / "p.json", make_partition("shards:1", [1, 0, 1, 0], 2, 0))
    assert (tmp_path / "p.json").read_text().splitlines() == GOLDEN


GOLDEN = [
    '{"format": "eejax partition 1",',
    '"name": "shards:1",',
    '"seed": 0,',
    '"features": "",',
    '"labels_sha256": "af8a44699e0fe2cbe8fcb03e513ef95500dcd533abce01646342d7d2d5dbc5d4",',
    '"sha256": "4fe578023c8181a9e55b5fc38710d289fc9ad0aaa08e708054159d5e96b283f8",',
    '"indices": [',
    "[2, 0],",
    "[1, 3]",
    "]}",
]


def test_a_client_without_samples_and_no_features(tmp_path):
    partition = write(tmp_path / "p.json")._replace(indices=[np.arange(3), np.array([], np.int64)])
    save_partition(tmp_path / "p.json", partition)
    rows = load_partition(tmp_path / "p.json", LABELS).indices
    assert [row.tolist() for row in rows] == [[0, 1, 2], []]
    assert rows[1].dtype == np.int64
    assert features_of(partition) is None


@pytest.mark.parametrize(
    "labels", [LABELS[:-1], LABELS[::-1], np.append(LABELS, 0), LABELS + 1, []], ids=range(5)
)
def test_another_data_set_is_refused(tmp_path, labels):
    write(tmp_path / "p.json")
    message = rf"labels: .*p\.json was made for other labels than these {len(labels)}"
    with pytest.raises(ValueError, match=message):
        load_partition(tmp_path / "p.json", labels)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", "3", "[" * 100_000, '{"format": "eejax partition 2"}', "\x00",
     '{"format": "eejax partition 1", "indices": 3}',
     '{"format": "eejax partition 1", "indices": [["a"]], "sha256": ""}',
     '{"format": "eejax partition 1", "indices": [[1e400]], "sha256": ""}',
     '{"format": "eejax partition 1", "indices": [[99999999999999999999]], "sha256": ""}'],
    ids=range(13),
)  # fmt: skip
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json is no partition, or a damaged one"):
        load_partition(tmp_path / "p.json", LABELS)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\x93NUMPY", b"PK\x03\x04"])
def test_binary_files_are_refused(tmp_path, data):
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(ValueError, match="is no partition, or a damaged one"):
        load_partition(tmp_path / "p.json", LABELS)


def test_every_changed_byte_is_noticed(tmp_path):
    """But for spaces, which mean nothing: a byte of any value, at every third place."""
    path = tmp_path / "p.json"
    write(path, features="noise:9")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(data) - 1, 3):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        if chr(data[place]).isspace() and chr(changed[place]).isspace():
            continue
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"p\.json"):
            load_partition(path, LABELS)
        path.write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"p\.json"):
            load_partition(path, LABELS)


@pytest.mark.parametrize(
    ("field", "value"), [("name", "iid"), ("seed", 4), ("features", "noise:9"), ("more", 1)]
)
def test_an_edited_file_is_refused(tmp_path, field, value):
    write(tmp_path / "p.json")
    table = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps({**table, field: value}))
    with pytest.raises(ValueError, match="is no partition, or a damaged one"):
        load_partition(tmp_path / "p.json", LABELS)


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    write(path)
    old = path.read_bytes()

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write(path, features="noise:9")
    assert path.read_bytes() == old


def test_misspelt_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'shards:PER_CLIENT'"):
        make_partition("shard:2", LABELS, 5, 0)
    with pytest.raises(ValueError, match="did you mean 'noise:SD'"):
        make_partition("iid", LABELS, 5, 0, features="nois:2")
    with pytest.raises(ValueError, match="clients must be at least 2"):
        make_partition("iid", LABELS, 1, 0, features="noise:2")
    with pytest.raises(FileNotFoundError):
        load_partition(tmp_path / "none.json", LABELS)
