"""Who sent what over which link: an immutable ledger of every transfer.

Sizes come from shapes and codecs, so counting costs nothing at run time. A ledger is a plain tuple;
the empty one is ``()``. Tiers are named, so the ledger tells links between tiers apart, not nodes.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from eejax.core import KINDS, Kind


class Transfer(NamedTuple):
    """Equal messages between two tiers.

    Attributes:
      source: name of the tier that sends.
      target: name of the tier that receives.
      kind: one of ``core.KINDS``.
      what: what is sent, such as ``"update"``.
      nbytes: bytes of one message on the wire, >= 0.
      count: number of messages, >= 1.
    """

    source: str
    target: str
    kind: Kind
    what: str
    nbytes: int
    count: int


Ledger = tuple[Transfer, ...]
"""Transfers in the order in which they were first recorded; no two differ in ``count`` only."""


def record(
    ledger: Ledger, source: str, target: str, kind: Kind, what: str, nbytes: int, count: int = 1
) -> Ledger:
    """Adds messages to a ledger; equal ones are counted in one entry.

    Args:
      ledger: what was recorded before.
      source: name of the tier that sends.
      target: name of the tier that receives.
      kind: one of ``core.KINDS``.
      what: what is sent, such as ``"update"``.
      nbytes: bytes of one message, >= 0.
      count: number of messages, >= 0; none leaves the ledger as it is.

    Returns:
      A new ledger.

    Raises:
      ValueError: a name is empty, the kind is unknown, or a number is negative or no integer.

    Example:
      >>> ledger = record((), "end", "edge", "information", "update", nbytes=1000, count=8)
      >>> ledger = record(ledger, "end", "edge", "information", "update", nbytes=1000, count=8)
      >>> ledger[0].count, total_bytes(ledger)
      (16, 16000)
    """
    new = _checked(source, target, kind, what, nbytes, count)
    if new.count == 0:
        return ledger
    for i, old in enumerate(ledger):
        if old[:-1] == new[:-1]:
            return (*ledger[:i], old._replace(count=old.count + new.count), *ledger[i + 1 :])
    return (*ledger, new)


def merge(a: Ledger, b: Ledger) -> Ledger:
    """Adds two ledgers.

    Args:
      a: a ledger.
      b: another ledger, recorded after ``a``.

    Returns:
      The ledger of both.
    """
    for transfer in b:
        a = record(a, *transfer)
    return a


def total_bytes(
    ledger: Ledger, source: str | None = None, target: str | None = None, kind: Kind | None = None
) -> int:
    """Sums the bytes of all transfers that match.

    Args:
      ledger: a ledger.
      source: only what this tier sent; any if None.
      target: only what this tier received; any if None.
      kind: only this kind; any if None.

    Returns:
      Bytes.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind is not None:
        _check_kind(kind)
    return sum(
        t.nbytes * t.count
        for t in ledger
        if source in (None, t.source) and target in (None, t.target) and kind in (None, t.kind)
    )


def by_link(ledger: Ledger) -> dict[tuple[str, str], int]:
    """Sums the bytes of each link and direction.

    Args:
      ledger: a ledger.

    Returns:
      ``{(source, target): bytes}`` in the order in which they were first used.
    """
    links = dict.fromkeys((t.source, t.target) for t in ledger)
    return {link: total_bytes(ledger, *link) for link in links}


def by_kind(ledger: Ledger) -> dict[Kind, int]:
    """Sums the bytes of each kind.

    Args:
      ledger: a ledger.

    Returns:
      ``{kind: bytes}`` for all of ``core.KINDS``, zeros included.
    """
    return {kind: total_bytes(ledger, kind=kind) for kind in KINDS}


def to_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """Writes a ledger as plain data for JSON or CSV.

    Args:
      ledger: a ledger.

    Returns:
      One dict for each transfer, with the fields of `Transfer`.
    """
    return [transfer._asdict() for transfer in ledger]


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Ledger:
    """Reads the rows that `to_rows` wrote.

    Args:
      rows: one mapping for each transfer.

    Returns:
      The ledger.

    Raises:
      ValueError: a row lacks a field, has another one, or holds a wrong value; names the row.
    """
    ledger = ()
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != set(Transfer._fields):
            raise ValueError(f"row {i} must have the fields {Transfer._fields}, got {row!r}")
        try:
            ledger = record(ledger, **row)
        except ValueError as error:
            raise ValueError(f"row {i}: {error}") from error
    return ledger


def _checked(source: str, target: str, kind: Kind, what: str, nbytes: int, count: int) -> Transfer:
    for field, value in (("source", source), ("target", target), ("what", what)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{field} must be a string, not empty, got {value!r}")
    _check_kind(kind)
    return Transfer(
        source, target, kind, what, _natural("nbytes", nbytes), _natural("count", count)
    )


def _check_kind(kind: Kind) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")


def _natural(field: str, value: Any) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{field} must be an integer >= 0, got {value!r}")
    return number
