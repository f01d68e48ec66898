"""What the equations of a program cost: FLOP by shapes, bytes through memory.

Conventions, those of XLA's own count but for loops: a multiply-add counts as two; a convolution
counts no products with padding; an operation of one element, a comparison, a conversion and an
elementary function such as ``exp`` count one by output; moving data counts nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from eejax.partition.trace import Equation, Program, depends, flatten
from eejax.tiers.cost import Work

Rule = Callable[[Mapping[str, Any], Sequence[Any], Sequence[Any]], float]
"""``(parameters of the equation, what it reads, what it makes) -> FLOP``; of values, the shape and
dtype."""

_ONE_BY_OUTPUT = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp clz
    convert_element_type cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag
    is_finite le lgamma log log1p lt max min mul ne neg nextafter not or pow population_count real
    reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square sub tan tanh xor
"""
_VIEWS = """
    bitcast_convert_type copy_p expand_dims name optimization_barrier random_unwrap random_wrap
    reshape sharding_constraint squeeze stop_gradient
"""
_LOOK_UPS = "dynamic_slice gather slice split"
_FUSED_MOVES = "broadcast_in_dim concatenate iota pad rev tile transpose"
_MOVES = "copy dim_as_value dynamic_update_slice empty random_seed scatter"
_REDUCTIONS = """
    argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor
"""
_RUNNING = "cumlogsumexp cummax cummin cumprod cumsum top_k"
_WINDOWS = "reduce_window reduce_window_max reduce_window_min reduce_window_sum"
_SCATTERS = "scatter-add scatter-max scatter-min scatter-mul scatter-sub scatter_add"
_BITS = "random_bits random_fold_in random_split rng_bit_generator threefry2x32"
_WORD = 29  # Operations of Threefry for 32 random bits, as XLA counts them.

VIEWS = frozenset(_VIEWS.split())
"""Primitives whose output is the memory of their input."""

LOOK_UPS = frozenset(_LOOK_UPS.split())
"""Primitives that read no more of their input than they make."""

FUSED = frozenset(
    f"{_ONE_BY_OUTPUT} {_REDUCTIONS} {_LOOK_UPS} {_FUSED_MOVES} integer_pow logistic".split()
)
"""Primitives that XLA joins into one loop over memory."""


def _by_output(count: float) -> Rule:
    return lambda _, __, makes: count * sum(value.size for value in makes)


def _by_input(_, reads, __):
    return reads[0].size


def _reduction(_, reads, makes):
    return reads[0].size - makes[0].size


def _window(parameters, _, makes):
    return makes[0].size * (math.prod(parameters["window_dimensions"]) - 1)


def _power(parameters, _, makes):
    n = abs(parameters["y"])
    return makes[0].size * max(n.bit_length() + n.bit_count() - 2 + (parameters["y"] < 0), 0)


def _sort(parameters, reads, _):
    return reads[0].size * max(reads[0].shape[parameters["dimension"]] - 1, 0).bit_length()


def _product(parameters, reads, makes):
    (contracted, _), _ = parameters["dimension_numbers"]
    return 2 * makes[0].size * math.prod(reads[0].shape[i] for i in contracted)


def _convolution(parameters, reads, makes):
    picture, kernel, out = (value.shape for value in (*reads[:2], makes[0]))
    numbers = parameters["dimension_numbers"]
    flops = 2 * math.prod((*(out[i] for i in numbers.out_spec[:2]), kernel[numbers.rhs_spec[1]]))
    for i, j, k, stride, (before, _), spread, dilation in zip(
        *(spec[2:] for spec in (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)),
        *(parameters[name] for name in ("window_strides", "padding", "lhs_dilation")),
        parameters["rhs_dilation"],
    ):
        flops *= _products(picture[i], kernel[j], out[k], stride, before, spread, dilation)
    return flops


@lru_cache
def _products(size, kernel, out, stride, before, spread, dilation) -> int:
    """Counts the products along one axis that meet the picture, not its padding or holes."""
    place = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - before
    inside = (place >= 0) & (place <= (size - 1) * spread) & (place % spread == 0)
    return int(inside.sum())


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_ONE_BY_OUTPUT.split(), _by_output(1)),
        **dict.fromkeys(
            f"{_VIEWS} {_LOOK_UPS} {_FUSED_MOVES} {_MOVES}".split(),
            _by_output(0),
        ),
        **dict.fromkeys(_REDUCTIONS.split(), _reduction),
        **dict.fromkeys(_RUNNING.split(), _by_input),
        **dict.fromkeys(_WINDOWS.split(), _window),
        **dict.fromkeys(_SCATTERS.split(), lambda _, reads, __: reads[2].size),
        **dict.fromkeys(_BITS.split(), _by_output(_WORD)),
        "conv_general_dilated": _convolution,
        "dot_general": _product,
        "integer_pow": _power,
        "logistic": _by_output(4),
        "sort": _sort,
    }
)
"""FLOP by primitive. Loops and ``cond`` are counted by what is inside."""


def count(
    program: Program,
    equations: Iterable[int],
    leaving: Set[int],
    data: Sequence[bool],
    samples: int = 1,
    rules: Mapping[str, Rule] = RULES,
) -> tuple[Work, Counter[str]]:
    """Counts what equations cost that run as one program, for one sample.

    - What depends on data is shared by the samples; the rest, such as reading parameters, is not.
    - ``scan`` counts its body as often as it runs; ``cond`` its most costly branch.
    - Bytes: what passes between operations of one element each, reductions, and moves stays off the
      memory, as XLA fuses them. All else is written once, and read once by each convolution,
      product and the like, and once by all others together. Views move nothing, and a look-up reads
      no more than it makes.

    Args:
      program: a program.
      equations: indices, in order.
      leaving: numbers of the values that others read.
      data: by value, whether it depends on data.
      samples: in the data.
      rules: FLOP by primitive.

    Returns:
      The work, and how often each primitive occurs without a rule: such a one is counted as one
      operation by output; and ``while``, whose body is counted for one round, as the number of
      rounds is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from eejax.partition.trace import depends, trace
      >>> args = jnp.ones((64, 8)), jnp.ones((32, 64))
      >>> program, _ = trace(lambda w, x: jax.lax.reduce_precision(jnp.tanh(x @ w), 8, 7), *args)
      >>> data = depends(program, program.inputs[1:])
      >>> count(program, range(3), set(program.outputs), data, 32)
      (Work(flops=1040.0, bytes_moved=2400.0), Counter())
    """
    flops, moved, unknown = 0.0, 0.0, Counter()
    made: list[int] = []
    root: dict[int, int] = {}  # What a view shows.
    passing: set[int] = set()  # Made by an operation that XLA fuses: in memory only if `stored`.
    stored: set[int] = set()
    streamed: dict[int, float] = {}  # Bytes that fused operations read.

    def size(i: int) -> float:
        value = program.values[i]
        return value.size * value.dtype.itemsize / (samples if data[i] else 1)

    for e in equations:
        row = program.equations[e]
        made.extend(row.makes)
        reads = [root.get(i, i) for i in row.reads if not _is_scalar(program, i)]
        if row.primitive in rules:
            values = [[program.values[i] for i in numbers] for numbers in (row.reads, row.makes)]
            by_samples = samples if data[row.makes[0]] else 1
            flops += rules[row.primitive](row.eqn.params, *values) / by_samples
        elif row.primitive in _BODIES:
            works = []
            for times, body, flags in _BODIES[row.primitive](row, data):
                varies = depends(body, [i for i, flag in zip(body.inputs, flags) if flag])
                all_of_it = range(len(body.equations))
                work, names = count(body, all_of_it, set(body.outputs), varies, samples, rules)
                works.append((times * work.flops, times * work.bytes_moved))
                unknown += names
            works = [max(works)] if row.primitive == "cond" else works
            flops, moved = map(sum, zip((flops, moved), *works))
            unknown["while"] += row.primitive == "while"
            stored.update(reads)
            continue
        else:
            unknown[row.primitive] += 1
            flops += sum(program.values[i].size / (samples if data[i] else 1) for i in row.makes)

        if row.primitive in VIEWS:
            root |= zip(row.makes, reads)
            continue
        written = sum(map(size, row.makes))
        if row.primitive in FUSED:
            for i in reads:
                part = min(written, size(i)) if row.primitive in LOOK_UPS else size(i)
                streamed[i] = max(streamed.get(i, 0), part)
            passing.update(row.makes)
        else:
            moved += sum(map(size, reads)) + written
            stored.update(reads)

    stored.update(root.get(i, i) for i in made if i in leaving)
    moved += sum(size(i) for i in passing & stored)
    moved += sum(nbytes for i, nbytes in streamed.items() if i not in passing)
    return Work(flops, moved), +unknown


def _is_scalar(program: Program, i: int) -> bool:
    return i in program.constants and not program.values[i].shape


def _scan(row: Equation, data: Sequence[bool]) -> list[tuple[int, Program, list[bool]]]:
    parameters = row.eqn.params
    flags = _flags(row, data, parameters["num_consts"], parameters["num_carry"])
    return [(parameters["length"], flatten(parameters["jaxpr"]), flags)]


def _while(row: Equation, data: Sequence[bool]) -> list[tuple[int, Program, list[bool]]]:
    parameters = row.eqn.params
    test, body = parameters["cond_nconsts"], parameters["body_nconsts"]
    flags = _flags(row, data, test + body, len(row.makes))
    return [
        (1, flatten(parameters["cond_jaxpr"]), flags[:test] + flags[test + body :]),
        (1, flatten(parameters["body_jaxpr"]), flags[test:]),
    ]


def _cond(row: Equation, data: Sequence[bool]) -> list[tuple[int, Program, list[bool]]]:
    flags = _flags(row, data, 0, 0)[1:]
    return [(1, flatten(branch), flags) for branch in row.eqn.params["branches"]]


def _flags(row: Equation, data: Sequence[bool], constants: int, carried: int) -> list[bool]:
    # What a loop carries may start from parameters, but does not stay so.
    flags = [data[i] for i in row.reads]
    return [
        data[row.makes[0]] if constants <= k < constants + carried else flag
        for k, flag in enumerate(flags)
    ]


_BODIES = {"cond": _cond, "scan": _scan, "while": _while}
