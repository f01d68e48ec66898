"""Plain data: named tuples as JSON values, and back with every field checked by its annotation."""

import difflib
import re
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from eejax.experiment.workdir import finite

# Neither XML nor a terminal takes these.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

NAMES = {str: "text", int: "an integer", float: "a number", bool: "true or false",
         type(None): "null", dict: "an object", list: "a list"}  # fmt: skip


def to_plain(value: Any) -> Any:
    """Makes JSON values of records.

    Args:
      value: named tuples, dicts, lists, tuples, arrays and scalars in each other. A record with an
        attribute ``kind`` says so, since it is one of several that may stand in its place.

    Returns:
      Dicts, lists and scalars; NaN and infinities are None.

    Example:
      >>> from typing import NamedTuple
      >>> class Point(NamedTuple):
      ...     x: float
      ...     y: float | None = None
      >>> to_plain([Point(1.0, float("nan"))])
      [{'x': 1.0, 'y': None}]
    """
    if hasattr(value, "_fields"):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        return kind | {name: to_plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return finite(value.tolist() if hasattr(value, "tolist") else value)


def from_plain(hint: Any, value: Any, where: str) -> Any:
    """Makes a value of an annotated type, mostly a named tuple, of JSON values.

    Args:
      hint: the annotation.
      value: JSON values, which may come from anywhere.
      where: how errors call the value.

    Returns:
      The value.

    Raises:
      ValueError: names the field that is wrong, missing or unknown.

    Example:
      >>> from typing import NamedTuple
      >>> class Point(NamedTuple):
      ...     x: float
      ...     y: float | None = None
      >>> from_plain(list[Point], [{"x": 1.5}], "points")
      [Point(x=1.5, y=None)]
      >>> from_plain(list[Point], [{"x": "a"}], "points")
      Traceback (most recent call last):
      ValueError: points[0].x must be a number, is 'a'
    """
    origin, args = get_origin(hint), get_args(hint)
    if hasattr(hint, "_fields"):
        return _read_record(hint, value, where)
    if origin is types.UnionType and hasattr(args[0], "_fields"):
        kinds = {record.kind: record for record in args}
        fields = dict(_expect(dict, value, where))
        kind = fields.pop("kind", None)
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"{where}.kind must be {' or '.join(kinds)}, is {say(kind)}")
        return _read_record(kinds[kind], fields, where)
    if origin is dict:
        return {
            from_plain(args[0], name, f"a name in {where}"): from_plain(
                args[1], item, f"{where}[{name!r}]"
            )
            for name, item in _expect(dict, value, where).items()
        }
    if origin in (list, tuple):
        items = _expect(list, value, where)
        if origin is list or args[-1] is Ellipsis:
            args = args[:1] * len(items)
        if len(items) != len(args):
            raise ValueError(f"{where} must have {len(args)} items, has {len(items)}")
        return origin(from_plain(args[i], item, f"{where}[{i}]") for i, item in enumerate(items))
    return _read_scalar(args or (hint,), value, where)


def _read_record(record: Any, value: Any, where: str) -> Any:
    hints = get_type_hints(record)
    for name in _expect(dict, value, where):
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(hints)}"
            raise ValueError(f"{where} has an unknown field {say(name)}; {hint}")
    for name in hints:
        if name not in value and name not in record._field_defaults:
            raise ValueError(f"{where} lacks the field {name!r}")
    return record(
        **{name: from_plain(hints[name], value[name], f"{where}.{name}") for name in value}
    )


def _read_scalar(allowed: tuple[type, ...], value: Any, where: str) -> Any:
    # An integer is a number too, but true and false are not.
    if type(value) not in allowed and not (type(value) is int and float in allowed):
        raise ValueError(
            f"{where} must be {' or '.join(NAMES[kind] for kind in allowed)}, is {say(value)}"
        )
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError(f"{where} holds a control character: {say(value)}")
    if isinstance(value, int) and abs(value) > 2**63:
        raise ValueError(f"{where} is too large")
    return value


def _expect(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} must be {NAMES[kind]}, is {say(value)}")
    return value


def say(value: Any) -> str:
    """Shows a value in an error, in at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
