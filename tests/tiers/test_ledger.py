"""The ledger: exact sums, immutability, rows that come back."""

import json

import numpy as np
import pytest

from eejax.core import KINDS
from eejax.tiers import by_kind, by_link, from_rows, merge, record, to_rows, total_bytes

LEDGER = ()
LEDGER = record(LEDGER, "end", "edge", "data", "images", nbytes=784, count=10)
LEDGER = record(LEDGER, "end", "edge", "information", "update", nbytes=1000, count=8)
LEDGER = record(LEDGER, "edge", "cloud", "information", "update", nbytes=1000, count=2)
LEDGER = record(LEDGER, "cloud", "edge", "knowledge", "logits", nbytes=40)


def random_ledger(seed, size=40):
    """Drawn from few values, so that many transfers are equal; with its total by plain sums."""
    rng = np.random.default_rng(seed)
    ledger, rows = (), []
    for _ in range(size):
        source, target = rng.choice(["end", "edge", "cloud"], 2)
        kind, what = rng.choice(KINDS), rng.choice(["a", "b"])
        row = (str(source), str(target), str(kind), str(what), rng.integers(3), rng.integers(4))
        ledger, rows = record(ledger, *row), [*rows, row]
    return ledger, rows


def test_totals_by_hand():
    assert total_bytes(()) == 0
    assert total_bytes(LEDGER) == 7840 + 8000 + 2000 + 40
    assert total_bytes(LEDGER, source="end") == 15840
    assert total_bytes(LEDGER, target="edge") == 15880
    assert total_bytes(LEDGER, source="end", target="edge", kind="information") == 8000
    assert total_bytes(LEDGER, source="cloud", target="end") == 0
    assert by_link(LEDGER) == {
        ("end", "edge"): 15840,
        ("edge", "cloud"): 2000,
        ("cloud", "edge"): 40,
    }
    assert by_kind(LEDGER) == {"data": 7840, "information": 10000, "knowledge": 40}
    assert by_kind(()) == dict.fromkeys(KINDS, 0)


def test_equal_transfers_share_an_entry_and_the_old_ledger_stays():
    more = record(LEDGER, "end", "edge", "information", "update", nbytes=1000, count=8)
    assert len(more) == len(LEDGER) == 4
    assert (LEDGER[1].count, more[1].count) == (8, 16)
    other = record(LEDGER, "end", "edge", "information", "update", nbytes=1001)
    assert len(other) == 5
    assert record(LEDGER, "end", "edge", "data", "images", nbytes=7, count=0) == LEDGER


@pytest.mark.parametrize("seed", range(20))
def test_properties_of_random_ledgers(seed):
    ledger, rows = random_ledger(seed)
    total = sum(int(row[4]) * int(row[5]) for row in rows)
    assert total_bytes(ledger) == sum(by_kind(ledger).values()) == total
    assert sum(by_link(ledger).values()) == total
    assert len({transfer[:-1] for transfer in ledger}) == len(ledger)
    assert all(t.nbytes >= 0 and t.count >= 1 for t in ledger)
    assert sum(t.count for t in ledger) == sum(int(row[5]) for row in rows)
    other, _ = random_ledger(seed + 100)
    assert set(merge(ledger, other)) == set(merge(other, ledger))
    assert total_bytes(merge(ledger, other)) == total + total_bytes(other)
    assert merge(ledger, ()) == merge((), ledger) == ledger
    assert from_rows(json.loads(json.dumps(to_rows(ledger)))) == ledger


def test_rows_are_plain():
    assert to_rows(LEDGER)[3] == {
        "source": "cloud",
        "target": "edge",
        "kind": "knowledge",
        "what": "logits",
        "nbytes": 40,
        "count": 1,
    }


GOOD = to_rows(LEDGER)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "source must be a string, not empty, got ''"),
        ({"target": 3}, "target must be a string, not empty, got 3"),
        ({"what": None}, "what must be a string, not empty, got None"),
        ({"kind": "wisdom"}, "kind must be one of data, information, knowledge, got 'wisdom'"),
        ({"nbytes": -1}, "nbytes must be an integer >= 0, got -1"),
        ({"nbytes": 1.5}, "nbytes must be an integer >= 0, got 1.5"),
        ({"nbytes": True}, "nbytes must be an integer >= 0, got True"),
        ({"count": -2}, "count must be an integer >= 0, got -2"),
        ({"count": "3"}, "count must be an integer >= 0, got '3'"),
    ],
)
def test_errors_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        record((), **(GOOD | change))
    with pytest.raises(ValueError, match=f"row 1: {message}"):
        from_rows([GOOD, GOOD | change])


def test_rows_with_other_fields_are_refused():
    for row in ({}, GOOD | {"bytes": 1}, "end", {"source": "end"}):
        with pytest.raises(ValueError, match=r"row 0 must have the fields \('source', 'target'"):
            from_rows([row])


def test_unknown_kind_in_a_total():
    with pytest.raises(ValueError, match="kind must be one of data, information, knowledge"):
        total_bytes(LEDGER, kind="infomation")
