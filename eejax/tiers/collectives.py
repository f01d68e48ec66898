"""What a compiled program sends: every collective, its bytes, and the mesh axes it crosses."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Axes = tuple[str, ...]


class Collective(NamedTuple):
    """One collective operation of a program.

    Attributes:
      kind: HLO name such as ``"all-gather"``, whether synchronous or not.
      count: executions in one run of the program.
      nbytes: bytes that a device sends in one execution, the mean over devices, by the mesh axes
        that the communicating devices span, outermost first.
    """

    kind: str
    count: int
    nbytes: dict[Axes, float]


@dataclasses.dataclass(frozen=True)
class Collectives:
    """All collectives of a compiled program.

    Attributes:
      ops: the operations, each with its number of executions.
      unknown_loops: loops with collectives whose trip count the compiler does not know; they are
        counted as if they ran once.
    """

    ops: tuple[Collective, ...]
    unknown_loops: int = 0

    @property
    def count(self) -> dict[str, int]:
        """Executions by kind."""
        return _group((op.kind, op.count) for op in self.ops)

    @property
    def by_kind(self) -> dict[str, float]:
        """Bytes that a device sends by kind."""
        return _group((op.kind, op.count * sum(op.nbytes.values())) for op in self.ops)

    @property
    def by_axes(self) -> dict[Axes, float]:
        """Bytes that a device sends by the mesh axes that are spanned together."""
        return _group((axes, op.count * b) for op in self.ops for axes, b in op.nbytes.items())

    @property
    def by_tier(self) -> dict[str, float]:
        """Bytes that a device sends by the outermost axis spanned, which has the slowest link."""
        return _group((axes[0], b) for axes, b in self.by_axes.items())

    @property
    def total(self) -> float:
        """Bytes that a device sends."""
        return sum(self.by_kind.values())


def collectives(compiled: jax.stages.Compiled | str, mesh: Any) -> Collectives:
    """Counts the collectives of a compiled program from its HLO text; nothing runs.

    Bytes are what the mean device sends in a bandwidth-optimal (ring) algorithm among ``n``
    devices: ``(n - 1) / n`` of the output of an all-gather, of the input of a reduce-scatter or an
    all-to-all, twice that of an all-reduce; the operand of a permute for each device that sends to
    another one; the operand of a broadcast. Bodies of loops count as often as they run, of the
    branches of a conditional the one that sends most counts. XLA on CPU promotes collectives of
    16-bit floats to 32 bits, and the count shows it.

    Args:
      compiled: ``jax.jit(fn).lower(...).compile()``, or its HLO text.
      mesh: the mesh the program runs on, or a mapping of its axes to their sizes, outermost first.

    Returns:
      The operations, and their sums by kind, by mesh axes and by tier.

    Raises:
      ValueError: the program runs on another number of devices than the mesh has, or the text has
        replica groups in a form that is not known.

    References:
      Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH,
      2005.

    Example:
      >>> text = '''
      ... HloModule m, replica_count=1, num_partitions=4
      ... ENTRY main {
      ...   p = f32[8]{0} parameter(0)
      ...   ROOT g = f32[16]{0} all-gather(p), replica_groups={{0,1},{2,3}}, dimensions={0}
      ... }'''
      >>> found = collectives(text, {"edge": 2, "end": 2})
      >>> found.count, found.by_tier  # Half of 64 bytes come from the neighbour.
      ({'all-gather': 1}, {'end': 32.0})
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    shape = dict(mesh if isinstance(mesh, Mapping) else mesh.shape)
    header = re.findall(r"(?:num_partitions|replica_count)=(\d+)", text.split("\n\n")[0])
    devices = math.prod(map(int, header))
    if devices != math.prod(shape.values()):
        raise ValueError(f"the program runs on {devices} devices, mesh {shape} has another number")
    computations, entry = _computations(text)
    done: dict[str, Collectives] = {}

    def visit(name: str) -> Collectives:
        if name not in done:
            found = [inside for line in computations[name] for inside in of_line(line)]
            done[name] = _join(found)
        return done[name]

    def of_line(line: str) -> list[Collectives]:
        result, op, rest = _split(line)
        kind = op.removesuffix("-start")
        if kind in _SENT:
            nbytes = _sent(kind, _result_bytes(result, op), rest, shape)
            return [Collectives((Collective(kind, 1, nbytes),))] if nbytes else []
        if op == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
            body, test = (visit(_called(rest, key)[0]) for key in ("body", "condition"))
            known = int(trips[1]) if trips else 1
            unknown = Collectives((), int(not trips and bool(body.ops or test.ops)))
            return [_times(body, known), _times(test, known + 1 if trips else 1), unknown]
        if op == "conditional":
            names = _called(rest, "branch_computations|(?:true|false)_computation")
            return [max(map(visit, names), key=lambda branch: branch.total)]
        if op in ("call", "fusion", "async-start"):
            return [visit(name) for name in _called(rest, "to_apply|calls|called_computations?")]
        return []

    return visit(entry)


def _sent_in_ring(n: int) -> float:
    return (n - 1) / n


# Bytes sent for a byte of the larger side of the operation, among n devices.
_SENT = {
    "all-gather": _sent_in_ring,
    "all-reduce": lambda n: 2 * _sent_in_ring(n),
    "all-to-all": _sent_in_ring,
    "collective-broadcast": lambda n: float(n > 1),
    "collective-permute": lambda n: 1.0,
    "ragged-all-to-all": _sent_in_ring,
    "reduce-scatter": lambda n: float(n - 1),  # The result is 1/n of the input.
}

# The forms of XLA: all devices, {{0,1},{2,3}}, [2,2]<=[4]T(0), mesh['a'=2,'b'=2] {'b'}.
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]+\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")


def _sent(kind: str, size: float, rest: str, shape: dict[str, int]) -> dict[Axes, float]:
    devices = math.prod(shape.values())
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", rest)[1]
        groups = [(a, b) for a, b in _lists(pairs) if a != b]
        senders = 1
    else:
        groups = [group for group in _replica_groups(rest, devices) if len(group) > 1]
        senders = None  # All of a group.
    return _group(
        (_spanned(group, shape), (senders or len(group)) / devices * _SENT[kind](len(group)) * size)
        for group in groups
    )


def _replica_groups(rest: str, devices: int) -> list[list[int]]:
    if "replica_groups=" not in rest:
        return [list(range(devices))]
    if found := _LISTED.search(rest):
        return _lists(found[1]) or [list(range(devices))]
    if found := _IOTA.search(rest):
        grid, iota, order = found.groups()
        return _iota(iota, order).reshape(_ints(grid)).tolist()
    if found := _MESH.search(rest):
        return _along(*found.groups())
    raise ValueError(f"replica groups of unknown form in {rest[:200]!r}")


def _along(axes: str, ids: str | None, grouped: str) -> list[list[int]]:
    """Groups along some axes ``'a'``, or parts of axes ``'a':(stride from the left)size``."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    places = np.indices(tuple(sizes.values())).reshape(len(sizes), -1)
    if ids and (found := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\)?)?", ids)):
        devices = _iota(*found.groups()).ravel()
    else:
        devices = np.array(_ints(ids)) if ids else np.arange(places.shape[1])
    for name, left, part in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", grouped):
        row, size = list(sizes).index(name), int(part or sizes[name])
        stride = sizes[name] // (int(left or 1) * size)
        places[row] -= places[row] // stride % size * stride
    groups: dict[tuple, list[int]] = {}
    for place, device in zip(places.T.tolist(), devices.tolist()):
        groups.setdefault(tuple(place), []).append(device)
    return list(groups.values())


def _iota(shape: str, order: str | None) -> np.ndarray:
    dims = _ints(shape)
    return np.arange(math.prod(dims)).reshape(dims).transpose(_ints(order) if order else None)


def _spanned(group: list[int], shape: dict[str, int]) -> Axes:
    # Partition i of a program is the i-th device of its mesh.
    places = np.unravel_index(np.asarray(group), tuple(shape.values()))
    return tuple(axis for axis, at in zip(shape, places) if len(set(at.tolist())) > 1)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    lines, entry = [], ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY\s+)?%?([\w.\-]+)\s.*\{\s*$", line)
        if head and not line.startswith("HloModule"):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif " = " in line:
            lines.append(line.split(" = ", 1)[1])
    return computations, entry


def _split(line: str) -> tuple[str, str, str]:
    """Splits the right side of an instruction into its result type, its name and the rest."""
    depth = np.cumsum([(char in "({") - (char in ")}") for char in line])
    end = next(i for i, char in enumerate(line) if char == " " and depth[i] == 0)
    op, _, rest = line[end + 1 :].partition("(")
    return line[:end], op, rest


def _result_bytes(result: str, op: str) -> float:
    sizes = [
        math.prod(_ints(dims)) * (8 if kind == "pred" else int(re.search(r"\d+", kind)[0])) / 8
        for kind, dims in re.findall(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]", result)
    ]
    if op == "collective-permute-start":  # (operand, result, contexts)
        return sizes[1]
    if op == "all-gather-start":  # (operands, results)
        return sum(sizes[len(sizes) // 2 :])
    return sum(sizes)


def _called(rest: str, keys: str) -> list[str]:
    found = re.findall(rf"\b(?:{keys})=(?:\{{([^}}]*)\}}|([%\w.\-]+))", rest)
    return [name.strip().lstrip("%") for pair in found for name in "".join(pair).split(",")]


def _ints(text: str) -> list[int]:
    return [int(v) for v in text.split(",") if v]


def _lists(text: str) -> list[list[int]]:
    return [_ints(part) for part in re.findall(r"\{([\d,]+)\}", text)]


def _group(pairs: Any) -> dict:
    sums: dict = {}
    for key, value in pairs:
        sums[key] = sums.get(key, 0) + value
    return sums


def _times(found: Collectives, times: int) -> Collectives:
    ops = tuple(op._replace(count=op.count * times) for op in found.ops)
    return dataclasses.replace(found, ops=ops)


def _join(parts: list[Collectives]) -> Collectives:
    ops = tuple(op for part in parts for op in part.ops)
    return Collectives(ops, sum(part.unknown_loops for part in parts))
