"""Calls are written out, and what is written out computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.partition.trace import closure, depends, flatten, makers, run, shared, trace


@jax.custom_vjp
def scaled(x):
    return 3 * jnp.sin(x)


scaled.defvjp(lambda x: (scaled(x), x), lambda x, g: (g * x,))


@jax.custom_jvp
def shifted(x):
    return jnp.cos(x) + 1


shifted.defjvp(lambda primals, tangents: (shifted(*primals), tangents[0]))

CONSTANT = jnp.arange(3.0)[None]


def nested(params, x):
    twice = jax.jit(lambda x: scaled(x) * CONSTANT)
    with jax.named_scope("outer"):
        x = jax.checkpoint(lambda x: shifted(twice(x)) @ params)(twice(x))
        with jax.named_scope("inner"):
            return jax.nn.relu(x), jax.vmap(jnp.tanh)(x)


def test_calls_are_written_out_with_values_of_their_own():
    params, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    program, out = trace(nested, params, x)
    primitives = [row.primitive for row in program.equations]
    assert primitives.count("sin") == 2
    assert not {"jit", "custom_vjp_call", "custom_jvp_call", "checkpoint"} & set(primitives)
    made = [i for row in program.equations for i in row.makes]
    assert len(made) == len(set(made))
    # Two calls that close over one array share it.
    assert sum(bool(np.ndim(value)) for value in program.constants.values()) == 1
    assert [leaf.shape for leaf in out] == [(4, 2), (4, 2)]
    assert program.equations[0].path[0] == "outer"
    assert program.equations[-1].path == ("outer", "inner")

    known = dict(zip(program.inputs, (params, x)))
    values = jax.jit(
        lambda known: run(program, range(len(program.equations)), known, program.outputs)
    )(known)
    for i, expected in zip(program.outputs, jax.jit(nested)(params, x)):
        np.testing.assert_array_equal(values[i], expected)


def test_what_no_output_needs_is_left_out():
    program, _ = trace(lambda x: (jnp.sin(x), jnp.cos(x))[0], 1.0)
    assert [row.primitive for row in program.equations] == ["sin"]


def test_loops_and_conditions_stay_whole():
    def loop(x):
        x = jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, x)
        return jax.lax.cond(x > 0, jnp.sin, jnp.cos, x)

    program, _ = trace(jax.jit(loop), 1.0)
    assert {"scan", "cond"} <= {row.primitive for row in program.equations}


def test_dependence_and_what_does_not_depend():
    def model(params, x):
        scale = jnp.exp(params["a"]) + params["b"]
        return x * scale, jnp.sin(params["b"])

    program, _ = trace(model, {"a": 1.0, "b": 2.0}, 3.0)
    a, b, x = program.inputs
    data = depends(program, [x])
    assert [data[i] for i in program.outputs] == [True, False]
    made = makers(program)
    last = made[program.outputs[0]]
    equations, leaves = closure(program, made, program.equations[last].reads, data)
    assert {program.equations[e].primitive for e in equations} == {"exp", "add"}
    assert leaves == {a, b}


def test_side_effects_are_refused():
    def loud(x):
        jax.debug.print("{}", x)
        return x + 1

    with pytest.raises(ValueError, match=r"side effects \(debug_\w+\)"):
        trace(loud, 1.0)


def test_paths_in_common():
    assert shared([]) == ()
    assert shared([("a", "b"), ("a",)]) == ("a",)
    assert shared([("ab",), ("ac",)]) == ()


def test_a_jaxpr_is_a_program():
    program = flatten(jax.make_jaxpr(lambda x: (x, 2.0))(1.0))
    assert program.outputs[0] == program.inputs[0]
    assert program.constants[program.outputs[1]] == 2.0
