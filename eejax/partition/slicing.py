"""A traced function as one program a tier, each with only the parameters that it needs."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from eejax.names import suggest
from eejax.partition.function import Parts, Traced, input_names, param_names
from eejax.partition.trace import closure, makers, run

PyTree = Any

Abstract = dict[str, jax.ShapeDtypeStruct]


class TierProgram(NamedTuple):
    """What one tier runs.

    Attributes:
      tier: index of the tier.
      layers: names of its layers.
      params: shape and dtype of the parameters that it needs, by path.
      reads: shape and dtype of the tensors that it reads, by name: inputs of the model, and tensors
        of the tiers below.
      makes: shape and dtype of what it makes, by name: tensors that tiers above read, and
        outputs of the model.
      apply: ``(params, reads) -> makes``, compiled at the first call.
      exported: the same as StableHLO, after `export_tiers`; None before.
    """

    tier: int
    layers: tuple[str, ...]
    params: Abstract
    reads: Abstract
    makes: Abstract
    apply: Callable[[dict[str, jax.Array], dict[str, jax.Array]], dict[str, jax.Array]]
    exported: jax.export.Exported | None = None


def slice_tiers(
    traced: Traced, assignment: Sequence[int] | Mapping[str, int]
) -> tuple[TierProgram, ...]:
    """Cuts a function into one program a tier.

    What depends on parameters alone, random keys among them, is computed on each tier that needs it
    rather than sent. An output is made where its layer is; one that does not depend on the data,
    where its parameters are, or on the last tier.

    Args:
      traced: a function.
      assignment: index of the tier of each layer, such as ``plan.assignment``, or by name.

    Returns:
      Programs of the tiers that have layers, from the lowest. They run at the shapes with which the
      function was traced. Together they compute what the function computes.

    Raises:
      ValueError: the assignment misses layers, names unknown ones, or lets data go down the tiers.

    Example:
      >>> import jax.numpy as jnp
      >>> from eejax.partition.function import from_function
      >>> def mlp(params, x):
      ...     return jnp.tanh(x @ params["hidden"]) @ params["answer"]
      >>> params = {"hidden": jnp.ones((4, 3)), "answer": jnp.ones((3, 2))}
      >>> traced = from_function(mlp, params, jnp.ones((8, 4)))
      >>> end, cloud = slice_tiers(traced, {"hidden": 0, "answer": 2})
      >>> list(end.params), list(end.reads), list(end.makes)
      (['hidden'], ['input'], ['hidden'])
      >>> list(cloud.params), list(cloud.reads), list(cloud.makes)
      (['answer'], ['hidden'], ['output'])
    """
    return _slice(traced.parts, _checked(traced.parts, assignment))


def export_tiers(
    traced: Traced,
    assignment: Sequence[int] | Mapping[str, int],
    *,
    platforms: Sequence[str] | None = None,
) -> tuple[TierProgram, ...]:
    """Cuts a function into one StableHLO program a tier, which runs at any batch.

    The function is traced once more with its batch left open: the first axis of each array of data
    where it is as long as there are samples in the example.

    Args:
      traced: a function.
      assignment: as for `slice_tiers`.
      platforms: of the programs, such as ``("cpu", "cuda", "tpu")``; that of this machine if None.

    Returns:
      Programs as from `slice_tiers`, whose ``exported`` can be written with its ``serialize``, for
      which JAX needs the package flatbuffers.

    Raises:
      ValueError: as for `slice_tiers`, or the function fits no open batch.
    """
    tiers = _checked(traced.parts, assignment)
    (batch,) = jax.export.symbolic_shape("batch")

    def opened(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        first = tuple(batch if size == traced.samples else size for size in leaf.shape[:1])
        return jax.ShapeDtypeStruct((*first, *leaf.shape[1:]), leaf.dtype)

    try:
        parts = traced.retrace(jax.tree.map(opened, traced.example))
    except Exception as error:
        raise ValueError(
            f"the function cannot be traced with an open batch ({error}); slice_tiers keeps the "
            f"batch of {traced.samples}"
        ) from error
    if parts.grouping.names != traced.parts.grouping.names:
        raise ValueError(
            "the function has other layers when its batch is left open "
            f"({', '.join(parts.grouping.names)}) than at a batch of {traced.samples} "
            f"({', '.join(traced.parts.grouping.names)})"
        )
    programs = []
    for program in _slice(parts, tiers):
        exported = jax.export.export(program.apply, platforms=platforms)(
            program.params, program.reads
        )
        programs.append(program._replace(apply=jax.jit(exported.call), exported=exported))
    return tuple(programs)


def own_params(program: TierProgram, params: PyTree) -> dict[str, jax.Array]:
    """Takes what a tier needs from all parameters.

    Args:
      program: of the tier.
      params: the parameters of the function.

    Returns:
      Parameters by path.
    """
    named = dict(zip(param_names(params), jax.tree.leaves(params)))
    return {name: named[name] for name in program.params}


def run_tiers(
    traced: Traced, programs: Sequence[TierProgram], params: PyTree, example: PyTree
) -> PyTree:
    """Runs all tiers on this machine, one after the other.

    Args:
      traced: the function.
      programs: its slices.
      params: its parameters.
      example: its data.

    Returns:
      What the function returns.
    """
    wire = dict(zip(input_names(example), jax.tree.leaves(example)))
    for program in programs:
        reads = {name: wire[name] for name in program.reads}
        wire |= program.apply(own_params(program, params), reads)
    outputs = [wire[name] for name in traced.parts.outputs]
    return jax.tree.unflatten(jax.tree.structure(traced.parts.out), outputs)


def _slice(parts: Parts, tiers: tuple[int, ...]) -> tuple[TierProgram, ...]:
    program, data = parts.program, parts.data
    made = makers(program)
    tier = [tiers[g] if g >= 0 else None for g in parts.grouping.layer]
    order = sorted(set(tiers))
    tier_of = dict.fromkeys(program.inputs, order[0])
    tier_of |= {i: tier[e] for i, e in made.items()}

    needs = {}
    for k in order:
        members = [e for e, t in enumerate(tier) if t == k]
        wanted = {i for e in members for i in program.equations[e].reads}
        needs[k] = (members, wanted, closure(program, made, wanted, data)[1])

    made_by = {k: {} for k in order}  # Name and number of what each tier makes.
    for i, name in parts.tensors.items():
        if i in made and any(tiers[g] > tier_of[i] for g in parts.consumers[i]):
            made_by[tier_of[i]][name] = i
    for i, name in zip(program.outputs, parts.outputs):
        home = tier_of[i] if data[i] else order[-1]
        if not data[i]:
            _, leaves = closure(program, made, [i], data)
            home = next((k for k in order if leaves and leaves <= needs[k][2]), home)
        made_by[home][name] = i

    return tuple(_program(parts, made, k, tiers, *needs[k][:2], made_by[k]) for k in order)


def _program(
    parts: Parts,
    made: dict[int, int],
    tier: int,
    tiers: tuple[int, ...],
    members: list[int],
    wanted: set[int],
    makes: dict[str, int],
) -> TierProgram:
    program, data = parts.program, parts.data
    wanted = wanted.union(makes.values())
    prepare, leaves = closure(program, made, wanted, data)
    equations = sorted(prepare.union(members))
    here = {i for e in equations for i in program.equations[e].makes}
    names = parts.inputs | parts.tensors
    reads = {names[i]: i for i in sorted(wanted - here) if data[i]}
    params = {parts.params[i]: i for i in sorted(leaves) if i in parts.params}

    def apply(own: dict[str, Any], received: dict[str, Any]) -> dict[str, Any]:
        known = {i: own[name] for name, i in params.items()}
        known |= {i: received[name] for name, i in reads.items()}
        values = run(program, equations, known, makes.values())
        return {name: values[i] for name, i in makes.items()}

    apply.__name__ = f"tier{tier}"

    def abstract(numbers: dict[str, int]) -> Abstract:
        values = {name: program.values[i] for name, i in numbers.items()}
        return {name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in values.items()}

    layers = tuple(name for name, k in zip(parts.grouping.names, tiers) if k == tier)
    return TierProgram(
        tier, layers, abstract(params), abstract(reads), abstract(makes), jax.jit(apply)
    )


def _checked(parts: Parts, assignment: Sequence[int] | Mapping[str, int]) -> tuple[int, ...]:
    names = parts.grouping.names
    if isinstance(assignment, Mapping):
        for name in assignment:
            if name not in names:
                raise ValueError(
                    f"assignment: there is no layer {name!r}{suggest(name, names)}; the layers are "
                    f"{', '.join(names)}"
                )
        missing = [name for name in names if name not in assignment]
        if missing:
            raise ValueError(f"assignment names no tier for {', '.join(missing)}")
        assignment = [assignment[name] for name in names]
    if len(assignment) != len(names):
        raise ValueError(
            f"assignment must name a tier for each of {len(names)} layers, got {len(assignment)}"
        )
    tiers = tuple(operator.index(tier) for tier in assignment)
    if min(tiers) < 0:
        raise ValueError(f"assignment: tiers must be >= 0, got {min(tiers)}")
    made = makers(parts.program)
    for i, name in parts.tensors.items():
        if i in made:
            g = parts.grouping.layer[made[i]]
            for reader in parts.consumers[i]:
                if tiers[reader] < tiers[g]:
                    raise ValueError(
                        f"assignment puts {names[reader]!r} on tier {tiers[reader]}, below tier "
                        f"{tiers[g]} where {name!r}, which it reads, is made; data go up only"
                    )
    return tiers
