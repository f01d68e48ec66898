"""FLOP and bytes: hand-computed, and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from eejax.partition.flops import RULES, count
from eejax.partition.trace import depends, trace

X = jnp.ones((10, 100))
IMAGE = jnp.ones((2, 16, 15, 6))
KERNEL = jnp.ones((3, 3, 6, 8))
NHWC = ("NHWC", "HWIO", "NHWC")


def counted(fn, *args, samples=1, rules=RULES, first=1):
    """Counts a function whose arguments after the first are data."""
    program, _ = trace(fn, *args)
    data = depends(program, program.inputs[first:])
    everything = range(len(program.equations))
    return count(program, everything, set(program.outputs), data, samples, rules)


def xla(fn, *args):
    analysis = jax.jit(fn).lower(*args).cost_analysis()
    return analysis.get("flops", 0) + analysis.get("transcendentals", 0)


def conv(strides=(1, 1), padding="SAME", **keywords):
    return lambda a, b: lax.conv_general_dilated(
        a, b, strides, padding, dimension_numbers=NHWC, **keywords
    )


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (lambda x: jnp.exp(x) * 2 + jnp.tanh(x), (X,)),
        (lambda x: jnp.where(x > 0, x, -x), (X,)),
        (lambda x: x.sum(1) + x.max(1), (X,)),
        (lambda x: lax.integer_pow(x, 7) + lax.integer_pow(x, -2), (X,)),
        (lambda x: lax.logistic(x).astype(jnp.bfloat16), (X,)),
        (lambda x: jnp.concatenate([x.T, x.T], 1).reshape(-1)[::-1], (X,)),
        (lambda x: x @ x.T, (X,)),
        (lambda a: jnp.einsum("bik,bjk->bij", a, a), (jnp.ones((4, 5, 6)),)),
        (lambda key: jax.random.bits(key, (1000,)), (jax.random.key(0),)),
        (conv(), (IMAGE, KERNEL)),
        (conv((2, 2)), (IMAGE, KERNEL)),
        (conv((2, 1), "VALID"), (IMAGE, KERNEL)),
        (conv(padding=((3, 0), (1, 2))), (IMAGE, KERNEL)),
        (conv(rhs_dilation=(2, 3)), (IMAGE, KERNEL)),
        (conv(padding=((1, 2), (2, 0)), lhs_dilation=(2, 3)), (IMAGE, KERNEL)),
        (conv(feature_group_count=6), (IMAGE, jnp.ones((3, 3, 1, 6)))),
        (lambda a, b: lax.conv_transpose(a, b, (2, 2), "SAME"), (IMAGE, KERNEL)),
        (
            lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
            (IMAGE,),
        ),
        (
            lambda x: lax.cond(x[0, 0] > 0, lambda x: 2 * x, lambda x: x @ x.T @ x, x),
            (X,),
        ),
    ],
)
def test_flop_are_those_of_xla(fn, args):
    work, unknown = counted(fn, *args)
    assert not unknown
    # XLA counts a few operations of scalars that the lowering adds.
    assert work.flops == pytest.approx(xla(fn, *args), rel=1e-3, abs=20)


def test_a_loop_counts_as_often_as_it_runs():
    w = jnp.ones((100, 100))

    def body(x, _):
        return jnp.tanh(x @ w), None

    once, _ = counted(lambda x: body(x, None)[0], X)
    seven, unknown = counted(lambda x: lax.scan(body, x, None, length=7)[0], X)
    assert not unknown
    assert seven.flops == 7 * once.flops
    assert seven.bytes_moved == 7 * once.bytes_moved


def test_a_loop_of_unknown_length_is_named():
    work, unknown = counted(lambda x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: 2 * x, X), X)
    assert unknown == {"while": 1}
    assert 1000 <= work.flops <= 1001


def test_an_unknown_primitive_is_counted_and_named():
    def fn(x):
        return jnp.linalg.cholesky(x @ x.T)

    work, unknown = counted(fn, jnp.eye(10))
    assert unknown["cholesky"] == 1
    without = 2 * 10**3
    assert work.flops >= without + 100
    rules = {**RULES, "cholesky": lambda _, reads, __: reads[0].shape[-1] ** 3 / 3}
    work, unknown = counted(fn, jnp.eye(10), rules=rules)
    assert not unknown["cholesky"]
    assert work.flops > without + 333


def test_parameters_are_read_for_each_sample_and_data_are_shared():
    w, x = jnp.ones((100, 5)), jnp.ones((8, 100))
    work, _ = counted(lambda w, x: x @ (2 * w), w, x, samples=8)
    # Doubling w is done anew; the product is shared. Twice w is written and read.
    assert work.flops == 500 + 2 * 100 * 5
    assert work.bytes_moved == 4 * (3 * 500 + 100 + 5)


def test_fused_operations_stay_off_the_memory():
    w, x = jnp.ones((100, 50)), jnp.ones((1, 100))
    bare, _ = counted(lambda w, x: x @ w, w, x)
    assert bare.bytes_moved == 4 * (100 + 5000 + 50)
    # The product is read once and the last result written; the reshape is a view.
    fused, _ = counted(lambda w, x: jnp.tanh(2 * (x @ w) + 1).reshape(5, 10), w, x)
    assert fused.bytes_moved == bare.bytes_moved + 4 * (50 + 50)
    # What a second product reads must be written.
    two, _ = counted(lambda w, x: jnp.tanh(x @ w) @ w.T, w, x)
    assert two.bytes_moved == bare.bytes_moved + 4 * (50 + 50) + 4 * (50 + 5000 + 100 + 2 * 5000)


def test_a_look_up_reads_what_it_makes():
    work, _ = counted(lambda table, i: table[i], jnp.ones((1000, 8)), jnp.zeros((3,), jnp.int32))
    assert work.bytes_moved < 1000
