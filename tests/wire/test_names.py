"""Codecs by name: the same as by call, and errors that help."""

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.wire import (
    affine,
    cast,
    chain,
    count_sketch,
    deflate,
    from_name,
    identity,
    serialize,
    topk,
)


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("identity", identity()),
        ("bf16", cast(jnp.bfloat16)),
        ("f16", cast(jnp.float16)),
        ("int8", affine(8)),
        ("int4", affine(4)),
        ("topk:0.01", topk(0.01)),
        ("sketch:0.5", count_sketch(0.5)),
        ("sketch:0.5+bf16", chain(count_sketch(0.5), cast(jnp.bfloat16))),
        ("zlib", deflate()),
        ("zlib:9", deflate(9)),
        ("topk:0.1+int8+zlib", chain(topk(0.1), affine(8), deflate())),
        (" topk:0.1 + bf16 ", chain(topk(0.1), cast(jnp.bfloat16))),
    ],
)
def test_name_and_call_give_the_same_bytes(text, codec):
    x = np.random.default_rng(0).normal(size=(3, 5, 1)).astype(np.float32)
    named = from_name(text)
    _, payload = named.encode(named.init(x), x, None)
    _, expected = codec.encode(codec.init(x), x, None)
    assert serialize(payload) == serialize(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "codec 'int9' in 'int9' is none of identity, bf16, .*; did you mean 'int"),
        ("bf16+zip", "codec 'zip' in 'bf16\\+zip' .*; did you mean 'zlib' or 'zlib:LEVEL'?"),
        ("topk", "codec 'topk' .*; did you mean 'topk:FRACTION'?"),
        ("int8:4", "codec 'int8:4' in 'int8:4' is none of .*; did you mean 'int8'?"),
        ("topk:many", "codec 'topk:many' in 'topk:many': could not convert string to float"),
        ("topk:2", r"codec 'topk:2' in 'topk:2': fraction must be in \(0, 1\]; got 2.0"),
        ("sketch", "codec 'sketch' .*; did you mean 'sketch:FRACTION'?"),
        ("sketch:0", r"codec 'sketch:0' in 'sketch:0': fraction must be in \(0, 1\]; got 0.0"),
        ("zlib:high", "codec 'zlib:high' in 'zlib:high': invalid literal"),
        ("zlib:11", "codec 'zlib:11' in 'zlib:11': level must be an integer from 0 to 9"),
        ("", "codec '' in '' is none of identity"),
        ("int8+", "codec '' in 'int8\\+' is none of identity"),
        ("xyzzy", "zlib:LEVEL$"),
    ],
)
def test_errors_name_the_part_and_what_is_allowed(text, message):
    with pytest.raises(ValueError, match=message):
        from_name(text)


def test_further_codecs_join_by_their_form():
    asked = []

    def make(number):
        asked.append(number)
        return identity()

    x = np.ones(3, np.float32)
    codec = from_name("mine:0.5+bf16", {"mine:SHARE": make})
    assert asked == [0.5]
    assert codec.nbytes(codec.encode(codec.init(x), x, None)[1]) == 6
    with pytest.raises(ValueError, match=r"zlib:LEVEL, mine:SHARE; did you mean 'mine:SHARE'"):
        from_name("mine", {"mine:SHARE": make})
