"""A function as one flat list of equations: its jaxpr with every call inside it written out."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

PyTree = Any

_CALLS = {
    "call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}


class Equation(NamedTuple):
    """One operation of a program.

    Attributes:
      eqn: the equation of the jaxpr, for its primitive and parameters; its variables do not count,
        since the calls of one function share them.
      reads: numbers of the values that it reads.
      makes: numbers of the values that it makes.
      path: scopes around it from the outermost, such as modules and ``jax.named_scope``.
    """

    eqn: JaxprEqn
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    path: tuple[str, ...]

    @property
    def primitive(self) -> str:
        """Name of its primitive, such as ``"dot_general"``."""
        return self.eqn.primitive.name


class Program(NamedTuple):
    """A function, flat.

    Attributes:
      equations: in an order in which they can run; all of them serve an output.
      values: shape and dtype of each value, by number.
      inputs: numbers of its inputs.
      outputs: numbers of its outputs.
      constants: arrays that the function closes over, and literals, by number.
    """

    equations: tuple[Equation, ...]
    values: tuple[Any, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, Any]


def trace(fn: Callable[..., Any], *args: PyTree) -> tuple[Program, PyTree]:
    """Traces a function, without compiling or running it.

    Calls of ``jit``, ``checkpoint``, ``custom_jvp`` and ``custom_vjp`` functions are written out,
    so their own derivatives are lost. Loops and ``cond`` stay one equation each. What no output
    needs is left out.

    Args:
      fn: a function that JAX can trace.
      *args: arrays or abstract arrays in trees, as for ``jax.jit(fn).lower``.

    Returns:
      The program, whose inputs and outputs are leaves in order, and the tree of abstract outputs.

    Raises:
      ValueError: the function has side effects, such as printing; names the primitive.

    Example:
      >>> import jax.numpy as jnp
      >>> program, _ = trace(lambda x: jax.nn.relu(jax.jit(jnp.tanh)(x)), jnp.ones(3))
      >>> [equation.primitive for equation in program.equations]
      ['tanh', 'max']
    """
    jaxpr, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    if jaxpr.effects:
        culprits = sorted({eqn.primitive.name for eqn in jaxpr.eqns if eqn.effects})
        raise ValueError(
            f"the function has side effects ({', '.join(culprits)}), which cannot be moved to "
            "another node; take them out"
        )
    return flatten(jaxpr), out


def flatten(closed: ClosedJaxpr) -> Program:
    """Writes out all calls inside a jaxpr.

    Args:
      closed: a closed jaxpr, such as that of ``jax.make_jaxpr`` or the body of a loop.

    Returns:
      The program.
    """
    values: list[Any] = []
    constants: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    equations: list[Equation] = []
    scopes: dict[Any, tuple[str, ...]] = {}

    def new(aval: Any) -> int:
        values.append(aval)
        return len(values) - 1

    def constant(aval: Any, value: Any) -> int:
        # One number for an array that several calls close over.
        number = numbers.setdefault(id(value), len(values))
        if number == len(values):
            constants[new(aval)] = value
        return number

    def walk(jaxpr: Jaxpr, consts: Sequence[Any], args: list[int], outer: tuple) -> list[int]:
        env = dict(zip(jaxpr.invars, args))
        env |= {var: constant(var.aval, value) for var, value in zip(jaxpr.constvars, consts)}

        def read(atom: Any) -> int:
            if isinstance(atom, Literal):
                constants[number := new(atom.aval)] = atom.val
                return number
            return env[atom]

        for eqn in jaxpr.eqns:
            stack = eqn.source_info.name_stack
            if stack not in scopes:
                scopes[stack] = _scopes(stack)
            path = outer + scopes[stack]
            reads = [read(atom) for atom in eqn.invars]
            inner = eqn.params.get(_CALLS.get(eqn.primitive.name))
            if inner is None:
                makes = tuple(new(var.aval) for var in eqn.outvars)
                equations.append(Equation(eqn, tuple(reads), makes, path))
            else:
                body = (
                    (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
                )
                makes = walk(*body, reads, path)
            env |= zip(eqn.outvars, makes)
        return [read(atom) for atom in jaxpr.outvars]

    inputs = [new(var.aval) for var in closed.jaxpr.invars]
    outputs = walk(closed.jaxpr, closed.consts, inputs, ())
    alive = _alive(equations, outputs)
    return Program(alive, tuple(values), tuple(inputs), tuple(outputs), constants)


def shared(paths: Collection[Sequence[str]]) -> tuple[str, ...]:
    """Finds what paths have in common.

    Args:
      paths: names from the outermost.

    Returns:
      The longest path with which all begin.

    Example:
      >>> shared([("model", "conv", "kernel"), ("model", "conv", "bias")])
      ('model', 'conv')
    """
    first, last = min(paths, default=()), max(paths, default=())
    return tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))


def depends(program: Program, inputs: Iterable[int]) -> list[bool]:
    """Tells which values depend on some inputs.

    Args:
      program: a program.
      inputs: numbers of values.

    Returns:
      For each value whether it is, or is computed from, one of ``inputs``.

    Example:
      >>> program, _ = trace(lambda w, x: 2 * w + x, 1.0, 1.0)
      >>> depends(program, program.inputs[1:])[program.outputs[0]]
      True
    """
    flags = [False] * len(program.values)
    for i in inputs:
        flags[i] = True
    for equation in program.equations:
        if any(flags[i] for i in equation.reads):
            for i in equation.makes:
                flags[i] = True
    return flags


def makers(program: Program) -> dict[int, int]:
    """Finds who makes what.

    Args:
      program: a program.

    Returns:
      Index of the equation by the number of each value that an equation makes.
    """
    return {i: e for e, equation in enumerate(program.equations) for i in equation.makes}


def closure(
    program: Program, made: dict[int, int], values: Iterable[int], data: Sequence[bool]
) -> tuple[set[int], set[int]]:
    """Finds what values need that does not depend on data.

    Args:
      program: a program.
      made: `makers` of it.
      values: numbers of values.
      data: by value, whether it depends on data.

    Returns:
      Indices of the equations, and numbers of the inputs and constants, from which to compute those
      of the values that do not depend on data.
    """
    equations: set[int] = set()
    leaves: set[int] = set()
    todo = [i for i in values if not data[i]]
    while todo:
        i = todo.pop()
        if i not in made:
            leaves.add(i)
        elif made[i] not in equations:
            equations.add(made[i])
            todo.extend(program.equations[made[i]].reads)
    return equations, leaves


def run(
    program: Program, equations: Iterable[int], known: dict[int, Any], wanted: Collection[int]
) -> dict[int, Any]:
    """Runs some equations; JAX can trace it.

    Args:
      program: a program.
      equations: indices, in order.
      known: arrays by the number of the value: all that the equations read and do not make, other
        than constants.
      wanted: numbers of values.

    Returns:
      Arrays of the values that are wanted, by number.
    """
    env = program.constants | known
    for e in equations:
        eqn, reads, makes, path = program.equations[e]
        with jax.named_scope("/".join(path) or eqn.primitive.name), eqn.ctx.manager:
            made = eqn.primitive.bind(
                *(env[i] for i in reads), **eqn.primitive.get_bind_params(eqn.params)
            )
        env |= zip(makes, made if eqn.primitive.multiple_results else [made])
    return {i: env[i] for i in wanted}


def _scopes(stack: Any) -> tuple[str, ...]:
    # Transformations such as jvp are on the stack too; an einsum names itself by its formula.
    names = (scope.name for scope in stack.stack if type(scope).__name__ == "Scope")
    return tuple(part for name in names if "->" not in name for part in name.split("/") if part)


def _alive(equations: list[Equation], outputs: list[int]) -> tuple[Equation, ...]:
    needed, kept = set(outputs), []
    for equation in reversed(equations):
        if not needed.isdisjoint(equation.makes):
            kept.append(equation)
            needed.update(equation.reads)
    return tuple(reversed(kept))
