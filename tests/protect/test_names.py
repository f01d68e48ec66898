"""Codecs of uploads by name: the same as by call, and errors that list them."""

import jax
import numpy as np
import pytest

from eejax import wire
from eejax.protect import clip, codec_from_name, gaussian_noise


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("clip:1.0", clip(1.0)),
        ("noise:0.1", gaussian_noise(0.1)),
        ("noise:0", gaussian_noise(0)),
        (
            "clip:1.0+noise:0.1+int8",
            wire.chain(clip(1.0), gaussian_noise(0.1), wire.affine(8)),
        ),
        (" clip:2 + sketch:0.5 ", wire.chain(clip(2.0), wire.count_sketch(0.5))),
        ("topk:0.1+int8", wire.chain(wire.topk(0.1), wire.affine(8))),
    ],
)
def test_name_and_call_give_the_same_bytes(text, codec):
    x, key = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), jax.random.key(1)
    named = codec_from_name(text)
    _, payload = named.encode(named.init(x), x, key)
    _, expected = codec.encode(codec.init(x), x, key)
    assert wire.serialize(payload) == wire.serialize(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip", "codec 'clip' in 'clip' is none of identity, .*; did you mean 'clip:BOUND'?"),
        ("int8+nois:1", "codec 'nois:1' in 'int8\\+nois:1' .*; did you mean 'noise:STD'?"),
        ("xyzzy", "zlib:LEVEL, clip:BOUND, noise:STD$"),
        ("clip:0", "codec 'clip:0' in 'clip:0': bound must be above 0 and finite, got 0.0"),
        ("noise:-1", "codec 'noise:-1' in 'noise:-1': std must be at least 0 and finite, got -1.0"),
        ("noise:loud", "codec 'noise:loud' in 'noise:loud': could not convert string to float"),
        ("clip:1:2", "codec 'clip:1:2' in 'clip:1:2': could not convert string to float: '1:2'"),
    ],
)
def test_errors_name_the_part_and_what_is_allowed(text, message):
    with pytest.raises(ValueError, match=message):
        codec_from_name(text)


def test_the_names_of_the_wire_stay_without_those_of_uploads():
    with pytest.raises(ValueError, match=r"codec 'clip:1' in 'clip:1' is none of .*, zlib:LEVEL; "):
        wire.from_name("clip:1")
