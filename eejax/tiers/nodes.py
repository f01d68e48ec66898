"""What a node computes with and what a link carries: plain values, each with its source.

The same classes describe one node or many: a field is a number, or an array ``[nodes]``, so a
million end devices are eight arrays. Numbers are checked when they are stored, and never change.
"""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np

Value = float | np.ndarray
"""A number, or float64 ``[nodes]``."""

Text = str | np.ndarray
"""A string, or objects ``[nodes]``."""


class _Rule(NamedTuple):
    text: str
    holds: Callable[[np.ndarray], np.ndarray]


_POSITIVE = {"rule": _Rule("> 0", lambda x: x > 0)}
_NOT_NEGATIVE = {"rule": _Rule(">= 0", lambda x: x >= 0)}
_BELOW_ONE = {"rule": _Rule("in [0, 1)", lambda x: (x >= 0) & (x < 1))}


# Compared field by field, because the == of arrays is no bool.
@dataclass(frozen=True, kw_only=True, eq=False)
class Device:
    """Compute of one node, or of many when fields are arrays ``[nodes]``.

    Numbers beside arrays are the same for all nodes. Power follows the linear model of LEAF:
    ``idle_w + (busy_w - idle_w) * utilisation``.

    Attributes:
      name: what it is, such as ``"raspberry_pi_4"``.
      flops_per_s: sustained FLOP/s, > 0.
      memory_bandwidth_bytes_per_s: sustained bytes/s between memory and processor, > 0.
      memory_bytes: memory for parameters and activations in bytes, > 0.
      idle_w: power at rest in watts, >= 0.
      busy_w: power under full load in watts, >= ``idle_w``.
      overhead_s: seconds to launch one program, >= 0.
      source: where the numbers come from.

    Raises:
      ValueError: a value has the wrong type, is not finite or out of range; names the field.

    References:
      Wiesner and Thamsen, LEAF: Simulating Large Energy-Aware Fog Computing Environments, 2021.
    """

    name: Text
    flops_per_s: Value = field(metadata=_POSITIVE)
    memory_bandwidth_bytes_per_s: Value = field(metadata=_POSITIVE)
    memory_bytes: Value = field(metadata=_POSITIVE)
    idle_w: Value = field(metadata=_NOT_NEGATIVE)
    busy_w: Value = field(metadata=_NOT_NEGATIVE)
    overhead_s: Value = field(metadata=_NOT_NEGATIVE)
    source: Text

    def __post_init__(self):
        """Checks and freezes the fields."""
        _store(self)
        below = np.atleast_1d(np.less(self.busy_w, self.idle_w))
        if below.any():
            i = int(below.argmax())
            busy, idle = np.atleast_1d(self.busy_w)[i], np.atleast_1d(self.idle_w)[i]
            where = _at("busy_w", self.busy_w, i)
            raise ValueError(f"{where} must be >= idle_w = {idle:g}, got {busy:g}")

    def __eq__(self, other):
        """Compares all fields; of two arrays, all elements."""
        return same_fields(self, other)


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """A link from a node up to its parent, or many links when fields are arrays ``[nodes]``.

    Numbers beside arrays are the same for all links.

    Attributes:
      name: what it is, such as ``"wifi"``.
      bandwidth_up_bps: bits (not bytes) per second towards the parent, > 0.
      bandwidth_down_bps: bits per second from the parent, > 0.
      rtt_s: seconds of a round trip of an empty message, >= 0.
      jitter_s: standard deviation of the round trip in seconds, >= 0.
      loss: fraction of packets lost and sent again, in [0, 1).
      joules_per_byte_up: energy to carry one byte up, >= 0.
      joules_per_byte_down: energy to carry one byte down, >= 0.
      source: where the numbers come from.

    Raises:
      ValueError: a value has the wrong type, is not finite or out of range; names the field.
    """

    name: Text
    bandwidth_up_bps: Value = field(metadata=_POSITIVE)
    bandwidth_down_bps: Value = field(metadata=_POSITIVE)
    rtt_s: Value = field(metadata=_NOT_NEGATIVE)
    jitter_s: Value = field(metadata=_NOT_NEGATIVE)
    loss: Value = field(metadata=_BELOW_ONE)
    joules_per_byte_up: Value = field(metadata=_NOT_NEGATIVE)
    joules_per_byte_down: Value = field(metadata=_NOT_NEGATIVE)
    source: Text

    def __post_init__(self):
        """Checks and freezes the fields."""
        _store(self)

    def __eq__(self, other):
        """Compares all fields; of two arrays, all elements."""
        return same_fields(self, other)


Node = TypeVar("Node", Device, Link)


def count(node: Device | Link) -> int:
    """Counts the nodes that a device or link stands for.

    Args:
      node: a device or link.

    Returns:
      The length of its arrays, 1 for a single one.
    """
    return np.size(node.name)


def take(node: Node, index: Any) -> Node:
    """Picks nodes out of many.

    Args:
      node: a device or link; a single one counts as an array of length 1.
      index: an int for a single node; anything else that indexes an array ``[nodes]``, for many.

    Returns:
      A device or link of the same class.
    """
    return type(node)(**{name: _array(v)[index] for name, v in fields_of(node).items()})


def stack(nodes: Sequence[Node]) -> Node:
    """Joins devices, or links, into one whose fields are arrays.

    Args:
      nodes: devices, or links, each single or many.

    Returns:
      One device or link with fields ``[sum of the counts]``.

    Raises:
      ValueError: there are none, or devices are mixed with links.
    """
    kinds = {type(node) for node in nodes}
    if len(kinds) != 1 or not kinds <= {Device, Link}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        raise ValueError(f"stack needs devices, or links, of one class, got {found}")
    columns = [fields_of(node) for node in nodes]
    return kinds.pop()(
        **{name: np.concatenate([_array(c[name]) for c in columns]) for name in columns[0]}
    )


def repeat(node: Node, nodes: int) -> Node:
    """Makes a node of length 1 stand for many equal nodes, at no memory.

    Args:
      node: a device or link, single or many.
      nodes: how many nodes are wanted.

    Returns:
      One with fields ``[nodes]``.

    Raises:
      ValueError: it already stands for another number of nodes than 1.
    """
    if np.shape(node.name) == (nodes,):
        return node
    if count(node) != 1:
        raise ValueError(f"holds {count(node)} nodes where {nodes} are expected")
    return type(node)(
        **{name: np.broadcast_to(_array(v), nodes) for name, v in fields_of(node).items()}
    )


def fields_of(node: Any) -> dict[str, Any]:
    """Gives the fields of a dataclass by name, without copying them."""
    return {f.name: getattr(node, f.name) for f in fields(node)}


def same_fields(a: Any, b: Any) -> bool:
    """Compares two dataclasses, some fields of which may be arrays.

    Returns:
      Whether class, fields and shapes are equal; ``NotImplemented`` for another class.
    """
    if type(a) is not type(b):
        return NotImplemented

    def same(x, y):
        arrays = isinstance(x, np.ndarray) or isinstance(y, np.ndarray)
        return np.array_equal(x, y) if arrays else x == y

    return all(same(x, y) for x, y in zip(fields_of(a).values(), fields_of(b).values()))


def _at(name: str, value: Any, i: int) -> str:
    return f"{name}[{i}]" if np.ndim(value) else name


def _store(node: Device | Link) -> None:
    """Checks every field, then stores it as a number or as a read-only array ``[nodes]``."""
    arrays = {
        f.name: _numbers(f.name, getattr(node, f.name), f.metadata["rule"])
        if f.metadata
        else _texts(f.name, getattr(node, f.name))
        for f in fields(node)
    }
    sizes = {name: array.size for name, array in arrays.items() if array.ndim}
    nodes = max(sizes.values(), default=None)
    for name, array in arrays.items():
        if sizes.get(name, nodes) != nodes:
            most = max(sizes, key=sizes.get)
            raise ValueError(f"{name} holds {array.size} nodes, but {most} holds {nodes}")
        # The class is frozen for its users; this is its constructor.
        object.__setattr__(
            node, name, array.item() if nodes is None else np.broadcast_to(array, nodes)
        )


def _numbers(name: str, value: Any, rule: _Rule) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # A ragged sequence.
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or array.ndim > 1 or not array.size:
        raise ValueError(f"{name} must be a number or numbers [nodes], got {reprlib.repr(value)}")
    array = _frozen(array, np.float64)
    flat = _distinct(array)
    wrong = ~(np.isfinite(flat) & rule.holds(flat))
    if wrong.any():
        i = int(wrong.argmax())
        finite = "" if np.isfinite(flat[i]) else "finite and "
        raise ValueError(f"{_at(name, array, i)} must be {finite}{rule.text}, got {flat[i]:g}")
    return array


def _texts(name: str, value: Any) -> np.ndarray:
    # As objects, so that NumPy turns no number into a string.
    array = _frozen(value if isinstance(value, np.ndarray) else np.asarray(value, object), object)
    # A million nodes share a handful of strings, so objects are compared by identity first.
    distinct = {id(text): text for text in _distinct(array).tolist()}.values()
    if array.ndim > 1 or not array.size or not all(isinstance(t, str) and t for t in distinct):
        raise ValueError(
            f"{name} must be a string or strings [nodes], none empty, got {reprlib.repr(value)}"
        )
    return array


def _array(value: Value | Text) -> np.ndarray:
    # Strings as objects, so that equal ones stay one object however often they are repeated.
    return np.atleast_1d(np.asarray(value, object if isinstance(value, str) else None))


def _distinct(array: np.ndarray) -> np.ndarray:
    """Gives all elements, but of a broadcast number only the one that there is."""
    return array[:1] if array.strides == (0,) else np.ravel(array)


def _frozen(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Copies an array unless nobody can write to it, which keeps broadcast views small."""
    if array.flags.writeable or array.dtype != dtype:
        array = np.array(array, dtype)
        array.setflags(write=False)
    return array
