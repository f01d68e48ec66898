"""The contract of `Codec`, for every codec: a new one joins by adding a row to CODECS."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from eejax import trees
from eejax.core import Codec
from eejax.tiers.mesh import make_mesh
from eejax.wire import (
    abstract_nbytes,
    affine,
    cast,
    chain,
    count_sketch,
    deflate,
    deserialize,
    identity,
    serialize,
    topk,
)


def lossless(x):
    return np.zeros_like(x)


def relative(eps):
    return lambda x: np.abs(x) * eps / 2


def steps(count, levels):
    def bound(x):
        width = max(x.max(initial=0), 0) - min(x.min(initial=0), 0)
        return np.full_like(x, count * width / levels)

    return bound


def dropped(x):
    return np.full_like(x, np.abs(x).max(initial=0))


def as_long_as_the_tree(x):
    """An element is off by at most the norm of what is sent: 23 floats of up to 6."""
    return np.full_like(x, 6 * np.sqrt(23))


class Row(NamedTuple):
    codec: Codec
    bound: Callable  # float64 leaf -> largest absolute error of each element, before arithmetic
    host: bool = False


CODECS = {
    "identity": Row(identity(), lossless),
    "bf16": Row(cast(jnp.bfloat16), relative(2**-7)),
    "f16": Row(cast(jnp.float16), relative(2**-10)),
    "float8": Row(cast(jnp.float8_e4m3fn), relative(2**-3)),
    "int8": Row(affine(8), steps(0.5, 255)),
    "int4": Row(affine(4), steps(0.5, 15)),
    "int8_channel": Row(affine(8, axis=-1), steps(0.5, 255)),
    "int4_stochastic": Row(affine(4, stochastic=True), steps(1, 14)),
    "topk": Row(topk(0.25), dropped),
    "chain_float8_topk": Row(chain(cast(jnp.float8_e4m3fn), topk(0.5)), dropped),
    "chain_topk_int8": Row(chain(topk(0.25), affine(8)), dropped),
    "chain_int8_int4": Row(chain(affine(8), affine(4)), steps(1, 255)),
    "count_sketch": Row(count_sketch(0.5), as_long_as_the_tree),
    "count_sketch_k": Row(count_sketch(columns=6, rows=4, k=3), as_long_as_the_tree),
    "chain_count_sketch_int8": Row(chain(count_sketch(0.5), affine(8)), as_long_as_the_tree),
    "zlib": Row(deflate(), lossless, host=True),
    "chain_int8_zlib": Row(chain(affine(8), deflate()), steps(0.5, 255), host=True),
}
EVERY = pytest.mark.parametrize("name", CODECS)
TRACED = pytest.mark.parametrize("name", [name for name, row in CODECS.items() if not row.host])
KINDS = pytest.mark.parametrize("kind", ["nested", "no_leaves"])


def make_tree(kind, seed=0, lead=()):
    """Random tree; floats lie in [1, 6] by magnitude, the normal range of every dtype here."""
    rng = np.random.default_rng(seed)

    def floats(*shape, dtype=jnp.float32):
        values = rng.uniform(1, 6, lead + shape) * rng.choice([-1, 1], lead + shape)
        return jnp.asarray(values.astype(dtype))

    def integers(dtype, *shape, high):
        return jnp.asarray(rng.integers(0, high, lead + shape).astype(dtype))

    match kind:
        case "bare":
            return floats(3, 5, 1)
        case "no_leaves":
            return {"stateless": {}}
        case "nested":
            return {
                "data": {
                    "image": integers(jnp.uint8, 2, 3, 3, high=256),
                    "label": integers(jnp.int32, 2, high=10),
                    "mask": integers(bool, 5, high=2),
                    "code": integers(jnp.int4, 5, high=8),
                },
                "update": [
                    {"kernel": floats(3, 5), "empty": floats(0, 4), "loss": floats()},
                    (floats(7, dtype=jnp.bfloat16),),
                ],
            }


def key():
    return jax.random.key(7)


@functools.cache
def functions(name, kind):
    """``(encode a first message, decode, traces)``, compiled where possible: it is faster here."""
    codec, _, host = CODECS[name]
    traces = []

    def encode(tree, key):
        traces.append((name, kind))
        return codec.encode(codec.init(tree), tree, key)[1]

    def decode(payload):
        traces.append((name, kind))
        return codec.decode(payload)

    return (encode, decode, None) if host else (jax.jit(encode), jax.jit(decode), traces)


@functools.cache
def sent(name, kind, seed=0):
    """The tree, its payload, and what arrives."""
    encode, decode, _ = functions(name, kind)
    tree = make_tree(kind, seed)
    payload = encode(tree, key())
    return tree, payload, decode(payload)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_near(a, b):
    """Equal up to float arithmetic, which XLA fuses differently in a loop."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        eps = float(jnp.finfo(x.dtype).eps) if jnp.issubdtype(x.dtype, jnp.floating) else 0
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=2 * eps, atol=1e-5 if eps else 0)


def assert_within_bound(tree, decoded, bound):
    assert jax.tree.structure(tree) == jax.tree.structure(decoded)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(decoded)):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
            continue
        # What decoding rounds to the dtype of the leaf comes on top of a lossy codec.
        eps = float(jnp.finfo(x.dtype).eps)
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        allowed = bound(x)
        assert (np.abs(x - y) <= allowed + (allowed > 0) * 10 * eps).all()


@EVERY
@KINDS
def test_round_trip_keeps_structure_and_stays_within_its_error_bound(name, kind):
    tree, _, decoded = sent(name, kind)
    assert_within_bound(tree, decoded, CODECS[name].bound)


@EVERY
@KINDS
def test_nbytes_is_the_length_of_the_serialised_payload_and_known_from_shapes(name, kind):
    codec, _, host = CODECS[name]
    tree, payload, _ = sent(name, kind)
    assert codec.nbytes(payload) == len(serialize(payload))
    if not host:
        assert codec.nbytes(trees.abstract(payload)) == codec.nbytes(payload)
        assert abstract_nbytes(codec, trees.abstract(tree)) == codec.nbytes(payload)


@EVERY
@KINDS
def test_bytes_alone_restore_the_payload(name, kind):
    _, payload, decoded = sent(name, kind)
    _, like, _ = sent(name, kind, seed=1)
    _, decode, _ = functions(name, kind)
    read = deserialize(serialize(payload), like)
    assert jax.tree.structure(read) == jax.tree.structure(payload)
    assert serialize(read) == serialize(payload)
    assert_equal(decode(read), decoded)


@EVERY
def test_encode_is_pure_and_keeps_the_shape_of_its_state(name):
    codec, _, _ = CODECS[name]
    tree = make_tree("bare")
    state = codec.init(trees.abstract(tree))
    assert_equal(state, codec.init(tree))
    before = trees.sha256((tree, state))
    first_state, first = codec.encode(state, tree, key())
    second_state, second = codec.encode(state, tree, key())
    assert serialize(first) == serialize(second)
    assert_equal(first_state, second_state)
    assert trees.sha256((tree, state)) == before
    assert trees.abstract(first_state) == trees.abstract(state)


@TRACED
@KINDS
def test_jit_compiles_once_for_new_values(name, kind):
    for seed in range(2):
        tree, _, decoded = sent(name, kind, seed)
        assert_within_bound(tree, decoded, CODECS[name].bound)
    _, _, traces = functions(name, kind)
    assert len(traces) == 2


@TRACED
def test_scan_vmap_and_shard_map_equal_a_loop(name):
    """Eight clients send three times, each with its own state, keys and device."""
    codec, _, _ = CODECS[name]
    inputs = make_tree("bare", lead=(8, 3))
    keys = jax.random.split(key(), (8, 3))

    def step(state, x):
        state, payload = codec.encode(state, *x)
        return state, codec.decode(payload)

    def client(state, inputs, keys):
        return jax.lax.scan(step, state, (inputs, keys))

    spec = PartitionSpec("end")
    sharded = jax.shard_map(
        jax.vmap(client), mesh=make_mesh((8,), ("end",)), in_specs=spec, out_specs=spec
    )
    states = jax.vmap(codec.init)(inputs[:, 0])
    states, outputs = jax.device_get(jax.jit(sharded)(states, inputs, keys))
    # Slices of NumPy arrays compile nothing.
    inputs = np.asarray(inputs)
    jit_step = jax.jit(step)
    for i in range(8):
        state = codec.init(inputs[i, 0])
        for j in range(3):
            state, output = jit_step(state, (inputs[i, j], keys[i, j]))
            assert_near(outputs[i, j], output)
        assert_near(jax.tree.map(lambda x, i=i: x[i], states), state)


@pytest.mark.parametrize("name", [name for name, row in CODECS.items() if row.host])
def test_host_codecs_say_so_under_tracing(name):
    codec, _, _ = CODECS[name]
    tree = make_tree("bare")
    with pytest.raises(TypeError, match="runs on the host"):
        jax.jit(codec.encode)(codec.init(tree), tree, key())
    with pytest.raises(TypeError, match="size depends on the data"):
        abstract_nbytes(codec, tree)
