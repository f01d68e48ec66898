"""Equations of a program as layers, such that no cycle arises between layers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from eejax.partition.trace import Equation, Program, shared

_SHORT = {
    "conv_general_dilated": "conv",
    "dot_general": "dot",
    "ragged_dot_general": "ragged_dot",
}
_OPERATORS = {*_SHORT, "cond", "ragged_dot", "scan", "while"}


class Grouping(NamedTuple):
    """Which equation is of which layer.

    Attributes:
      names: of the layers, in an order in which they can run.
      layer: index of the layer by equation; -1 for what does not depend on data.
      granularity: what one layer is.
    """

    names: tuple[str, ...]
    layer: tuple[int, ...]
    granularity: str


def group(
    program: Program,
    data: Sequence[bool],
    depth: int | None = None,
    name_of: Callable[[Equation], str] = lambda equation: "",
) -> Grouping:
    """Groups equations into layers.

    - At a depth, the equations of one module are a layer. The scopes that all equations share, such
      as the outermost module, do not count; a module without modules inside that lies less deep is
      a layer as well. Without a depth, or without any scopes, there are operators alone.
    - An operator opens a layer when it is in no module of its own: a convolution, a matrix
      product, a loop or ``cond``, a look-up in parameters, or a concatenation of what several
      layers make.
    - Anything else, such as the addition of a residual, goes to the layer that made the last of
      what it reads. It goes to the first layer that reads it instead, when it reads the inputs of
      the model alone, or what leaves its layer anyway: so a normalised copy does not cross a cut
      along with its original.
    - A layer that would read, through others, what it makes itself is cut in two; the second part
      gets a number, as in ``"embed#1"``.

    Args:
      program: a program.
      data: by value, whether it depends on the inputs that are data.
      depth: of modules, >= 1; None for operators.
      name_of: what to call an operator that no scope names; its primitive where this is empty.

    Returns:
      The grouping. The time is nearly linear in the number of equations.

    References:
      Pearce and Kelly, A Dynamic Topological Sort Algorithm for Directed Acyclic Graphs, 2007.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from eejax.partition.trace import depends, trace
      >>> def model(w, x):
      ...     with jax.named_scope("encoder"):
      ...         x = jnp.tanh(x @ w)
      ...     with jax.named_scope("decoder"):
      ...         return x @ w.T
      >>> program, _ = trace(model, jnp.ones((3, 2)), jnp.ones((1, 3)))
      >>> group(program, depends(program, program.inputs[1:]), depth=1)[:2]
      (('encoder', 'decoder'), (0, 0, -1, 1))
    """
    equations = [e for e, row in enumerate(program.equations) if any(data[i] for i in row.makes)]
    paths = _paths(program, equations)
    parents = {path[:i] for path in set(paths.values()) for i in range(len(path))}
    modules = depth is not None and len(parents) > 0

    labels: list[str] = []
    layers = _Layers([], [], [])
    layer = [-1] * len(program.equations)
    made = {i: e for e in equations for i in program.equations[e].makes}
    current: dict[tuple[str, ...], int] = {}
    glue: set[int] = set()
    waiting: set[int] = set()  # Equations that read the inputs of the model alone.

    for e in equations:
        row, path = program.equations[e], paths[e]
        before = {made[i] for i in row.reads if i in made}
        sources = {layer[b] for b in before} - {-1}
        key = path[:depth] if modules and (len(path) >= depth or path not in parents) else ()
        if key:
            if key not in current or not _joins(layers, current[key], sources):
                current[key] = _opens(layers, sources)
                labels.append("/".join(key))
            layer[e] = current[key]
        elif _is_operator(row, data, [layer[made[i]] if i in made else -1 for i in row.reads]):
            kind = _SHORT.get(row.primitive, row.primitive)
            scope = "/".join((*path, kind) if path in parents else path)
            labels.append((scope if path else name_of(row)) or kind)
            layer[e] = _opens(layers, sources)
        elif sources:
            glue.add(e)
            layer[e] = max(sources, key=layers.rank.__getitem__)
            _joins(layers, layer[e], sources)
        else:
            waiting.add(e)
            continue
        todo = list(before & waiting)
        while todo:
            b = todo.pop()
            if b in waiting:
                waiting.remove(b)
                layer[b] = layer[e]
                todo.extend(made[i] for i in program.equations[b].reads if i in made)

    if waiting and not labels:
        labels.append(program.equations[max(waiting)].primitive)
        _opens(layers, ())
    _hand_on(program, equations, layer, glue, layers.rank)
    order = sorted(range(len(labels)), key=layers.rank.__getitem__)
    for e in waiting:
        layer[e] = order[0]
    position = {g: p for p, g in enumerate(order)}
    return Grouping(
        _unique([labels[g] for g in order]),
        tuple(position.get(g, -1) for g in layer),
        f"module at depth {depth}" if modules else "operator with what follows it",
    )


def _paths(program: Program, equations: Iterable[int]) -> dict[int, tuple[str, ...]]:
    paths = {e: program.equations[e].path for e in equations}
    scopes = {path for path in paths.values() if path}
    skip = len(shared(scopes))
    skip -= skip == max(map(len, scopes), default=-1)  # A single module keeps its name.
    return {e: path[skip:] for e, path in paths.items()}


def _is_operator(row: Equation, data: Sequence[bool], origins: Sequence[int]) -> bool:
    if row.primitive == "gather":
        return not data[row.reads[0]]
    if row.primitive == "concatenate":
        return len({g for i, g in zip(row.reads, origins) if data[i]}) > 1
    return row.primitive in _OPERATORS


def _hand_on(
    program: Program, equations: list[int], layer: list[int], glue: set[int], rank: list[int]
) -> None:
    """Moves equations that read only what leaves their layer anyway to the first that read them."""
    home = {i: layer[e] for e in equations for i in program.equations[e].makes}
    readers = defaultdict(list)
    for e in equations:
        for i in program.equations[e].reads:
            if i in home:
                readers[i].append(e)
    leaves = {i for i, es in readers.items() if any(layer[e] != home[i] for e in es)}
    outputs = set(program.outputs)
    while True:
        free, light, target = set(leaves), [], {}
        for e in equations:
            row = program.equations[e]
            if e in glue and free.issuperset(i for i in row.reads if home.get(i) == layer[e]):
                light.append(e)
                free.update(row.makes)
        for e in reversed(light):
            makes = program.equations[e].makes
            to = {target.get(r, layer[r]) for i in makes for r in readers[i]}
            if layer[e] not in to and outputs.isdisjoint(makes):
                target[e] = min(to, key=rank.__getitem__)
        if len(target) == len(light):
            break
        glue = glue.intersection(target)  # What reads those that stay is tied to them.
    for e, g in target.items():
        layer[e] = g


def _unique(labels: Sequence[str]) -> tuple[str, ...]:
    count: Counter[str] = Counter()
    taken, names = set(labels), []
    for label in labels:
        name = label
        if count[label]:
            while (name := f"{label}#{count[label]}") in taken:
                count[label] += 1
        count[label] += 1
        taken.add(name)
        names.append(name)
    return tuple(names)


class _Layers(NamedTuple):
    rank: list[int]  # Place of each layer in the order; who reads ranks above whom it reads.
    reads: list[set[int]]
    read_by: list[set[int]]


def _opens(layers: _Layers, sources: Collection[int]) -> int:
    new = len(layers.rank)
    layers.rank.append(new)
    layers.reads.append(set(sources))
    layers.read_by.append(set())
    for source in sources:
        layers.read_by[source].add(new)
    return new


def _joins(layers: _Layers, g: int, sources: Collection[int]) -> bool:
    """Lets layer ``g`` read ``sources``, unless that closes a cycle."""
    rank, reads, read_by = layers
    sources = set(sources) - {g}
    late = [s for s in sources if rank[s] > rank[g]]
    if late:
        low, high = rank[g], max(rank[s] for s in late)
        after = _reach([g], read_by, lambda h: rank[h] <= high)
        if not after.isdisjoint(late):
            return False
        before = _reach(late, reads, lambda h: rank[h] > low)
        moved = sorted(before, key=rank.__getitem__) + sorted(after, key=rank.__getitem__)
        for h, place in zip(moved, sorted(rank[h] for h in moved)):
            rank[h] = place
    reads[g] |= sources
    for source in sources:
        read_by[source].add(g)
    return True


def _reach(starts: Iterable[int], arcs: list[set[int]], within: Callable[[int], bool]) -> set[int]:
    seen, todo = set(starts), list(starts)
    while todo:
        for h in arcs[todo.pop()]:
            if h not in seen and within(h):
                seen.add(h)
                todo.append(h)
    return seen
