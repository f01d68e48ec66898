"""Count Sketch: golden values by plain loops, error feedback, and why it is scaled and rehashed."""

import dataclasses
import functools
import importlib
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.wire import abstract_nbytes, count_sketch, serialize
from eejax.wire.count_sketch import SketchPayload, _estimate, _hashes

# By this path, as the package gives the name to the function.
MODULE = importlib.import_module("eejax.wire.count_sketch")


def sketch_by_loops(p, rows, columns, k, seed, turn):
    """The table as it is sent, and what arrives, in plain float64."""
    key = jax.random.fold_in(jax.random.key(seed), turn)
    bits = np.asarray(jax.random.bits(key, (rows, len(p)))).tolist()
    where = [[(b >> 1) % columns for b in row] for row in bits]
    signs = [[1 - 2 * (1 - (b & 1)) for b in row] for row in bits]
    table = np.zeros((rows, columns))
    for r, i in itertools.product(range(rows), range(len(p))):
        table[r, where[r][i]] += signs[r][i] * p[i]

    def read(table):
        found = [
            statistics.median(signs[r][i] * table[r, where[r][i]] for r in range(rows))
            for i in range(len(p))
        ]
        largest = sorted(range(len(p)), key=lambda i: -abs(found[i]))[:k]
        return np.array([x if i in largest else 0 for i, x in enumerate(found)])

    c = read(table)
    alpha = np.dot(p, c) / np.dot(c, c)
    return alpha * table, read(alpha * table)


def compiled(codec):
    """``encode`` and ``decode`` as one program each, which compiles faster than their parts."""
    return jax.jit(lambda state, tree: codec.encode(state, tree, None)), jax.jit(codec.decode)


@pytest.mark.parametrize(("rows", "k"), [(3, None), (4, None), (3, 2)])
def test_golden_two_rounds(rows, k):
    codec = count_sketch(columns=4, rows=rows, k=k, seed=5)
    encode, decode = compiled(codec)
    rng = np.random.default_rng(3)
    state, owed = None, np.zeros(8)
    for turn in range(2):
        flat = rng.normal(size=8).astype(np.float32)
        g = {"b": flat[:2], "w": flat[2:].reshape(3, 2)}
        state, payload = encode(codec.init(g) if state is None else state, g)
        p = flat + owed
        table, arrived = sketch_by_loops(p, rows, 4, k, 5, turn)
        owed = p - arrived
        np.testing.assert_allclose(payload.table, table, atol=1e-6)
        decoded = decode(payload)
        np.testing.assert_allclose(decoded["b"], arrived[:2], atol=1e-6)
        np.testing.assert_allclose(decoded["w"], arrived[2:].reshape(3, 2), atol=1e-6)
        np.testing.assert_allclose(state.residual["b"], owed[:2], atol=1e-6)
        np.testing.assert_allclose(state.residual["w"], owed[2:].reshape(3, 2), atol=1e-6)
        assert (payload.turn, state.turn) == (turn, turn + 1)
        assert k is None or sum(np.count_nonzero(x) for x in decoded.values()) == k


def test_few_elements_in_a_wide_table_are_exact_and_leave_nothing():
    g = jnp.zeros(500).at[jnp.array([3, 77, 400])].set(jnp.array([2.5, -0.1, 7.0]))
    codec = count_sketch(columns=200, k=3)
    encode, decode = compiled(codec)
    state, payload = encode(codec.init(g), g)
    np.testing.assert_array_equal(decode(payload), g)
    assert not state.residual.any()


def test_one_row_estimates_without_bias_and_with_the_variance_of_the_paper():
    p = jax.random.normal(jax.random.key(0), (500,))

    def error(turn):
        where, signs = _hashes(turn, 1, 50, p.size, 0)
        table = jnp.zeros(50).at[where[0]].add(signs[0] * p)[None]
        return _estimate(table, where, signs, None) - p

    errors = jax.jit(jax.vmap(error))(jnp.arange(400, dtype=jnp.uint32))
    variance = ((p**2).sum() - p**2) / 50
    assert float((errors**2).mean() / variance.mean()) == pytest.approx(1, rel=0.05)
    # Means of 400 draws: five of their deviations for the largest of 500.
    assert float((jnp.abs(errors.mean(0)) / jnp.sqrt(variance / 400)).max()) < 5


def test_hash_functions_are_even_and_differ_by_row_turn_and_seed():
    draw = jax.jit(_hashes, static_argnums=(1, 2, 3, 4))
    where, signs = draw(jnp.uint32(0), 2, 10, 10_000, 0)
    for row in range(2):
        assert np.bincount(where[row], minlength=10).min() > 850
        assert abs(float(signs[row].mean())) < 0.05
        assert abs(np.corrcoef(where[row], signs[row])[0, 1]) < 0.05
    assert float((where[0] == where[1]).mean()) < 0.15
    for turn, seed in ((1, 0), (0, 1)):
        other, _ = draw(jnp.uint32(turn), 2, 10, 10_000, seed)
        assert float((where == other).mean()) < 0.15


def sender(codec, *, rehash=True):
    """Maps a stream to the lengths of its residual, the last residual, and all that arrived."""

    def step(carry, g):
        state, total = carry
        state, payload = codec.encode(state, g, None)
        state = state if rehash else state._replace(turn=jnp.zeros_like(state.turn))
        return (state, total + codec.decode(payload)), jnp.linalg.norm(state.residual)

    @jax.jit
    def send(inputs):
        start = codec.init(inputs[0]), jnp.zeros_like(inputs[0])
        (state, total), lengths = jax.lax.scan(step, start, inputs)
        return lengths, state.residual, total

    return send


GAUSSIAN = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
STREAMS = {"gaussian": GAUSSIAN, "the_same": np.broadcast_to(GAUSSIAN[0], GAUSSIAN.shape)}


def test_sent_plus_residual_is_the_sum_of_all_inputs_and_the_residual_is_bounded():
    send = sender(count_sketch(0.1))
    for name, most in (("gaussian", 5), ("the_same", 30)):
        inputs = STREAMS[name]
        lengths, residual, total = send(inputs)
        expected = inputs.sum(0)
        atol = 1e-5 * np.abs(inputs).sum(0).max()
        np.testing.assert_allclose(total + residual, expected, atol=atol)
        lengths = lengths / np.linalg.norm(inputs[0])
        assert lengths.max() < most
        # Settled: the last third is no longer than the one before.
        assert lengths[200:].mean() < 1.1 * lengths[100:200].mean()


def test_unscaled_the_residual_of_dense_vectors_explodes(monkeypatch):
    monkeypatch.setattr(MODULE, "_nearest", lambda p, c: jnp.float32(1))
    lengths, _, _ = sender(count_sketch(0.1))(GAUSSIAN[:10])
    assert (lengths[1:] > 2 * lengths[:-1]).all()
    assert lengths[-1] > 1e4 * np.linalg.norm(GAUSSIAN[0])


def test_with_one_set_of_hash_functions_what_they_cannot_tell_piles_up():
    lengths, _, _ = sender(count_sketch(0.1), rehash=False)(STREAMS["the_same"])
    assert lengths[-1] > 0.9 * 300 * np.linalg.norm(GAUSSIAN[0])


@pytest.mark.parametrize("k", [None, 7])
def test_no_residual_is_longer_than_what_was_to_be_sent(k):
    codec = count_sketch(columns=10, rows=3, k=k)
    inputs = jnp.asarray(GAUSSIAN[:50, :200])

    @jax.jit
    @jax.vmap
    def residual(g):
        return codec.encode(codec.init(g), g, None)[0].residual

    left = residual(inputs)
    ratios = jnp.linalg.norm(left, axis=1) / jnp.linalg.norm(inputs, axis=1)
    assert 0.8 < float(ratios.min()) < float(ratios.max()) <= 1
    for scale in (2.0**80, 2.0**-80):
        np.testing.assert_array_equal(residual(inputs * scale), left * scale)


@functools.cache
def small(k=None, seed=0):
    codec = count_sketch(0.5, k=k, seed=seed)
    return codec, *compiled(codec)


def make_tree(fill=None):
    """Fifty floating elements in two leaves, and an image."""
    values = GAUSSIAN[0, :50] if fill is None else np.full(50, fill, np.float32)
    return {
        "w": jnp.asarray(values[:40]).reshape(8, 5),
        "b": jnp.asarray(values[40:], jnp.bfloat16),
        "image": jnp.ones((2, 2), jnp.uint8),
    }


def floats(tree):
    return {name: np.asarray(x, np.float32) for name, x in tree.items() if name != "image"}


def is_all(test, tree):
    return all(test(x).all() for x in floats(tree).values())


def test_only_floating_leaves_are_sketched_and_dtypes_come_back():
    tree = make_tree()
    codec, encode, decode = small()
    start = codec.init(trees.abstract(tree))
    assert start.residual["image"] is None
    state, payload = encode(start, tree)
    assert isinstance(payload, SketchPayload)
    assert trees.abstract(state) == trees.abstract(start)
    # Five rows of five columns, the turn, the image.
    assert codec.nbytes(payload) == 4 * 25 + 4 + 4
    decoded = decode(payload)
    assert trees.abstract(decoded) == trees.abstract(tree)
    np.testing.assert_array_equal(decoded["image"], tree["image"])
    assert state.residual["b"].dtype == np.float32
    # What rounding to bfloat16 drops is owed, too.
    for name, x in floats(decoded).items():
        np.testing.assert_allclose(x + state.residual[name], floats(tree)[name], atol=1e-6)


def test_numpy_float64_is_taken_as_jax_holds_it():
    g = np.zeros(50)
    codec = small()[0]
    payload = jax.eval_shape(lambda: codec.encode(codec.init(g), g, None)[1])
    assert jax.eval_shape(codec.decode, payload).dtype == np.float32


def test_zeros_stay_zeros():
    codec, encode, decode = small()
    state, payload = encode(codec.init(make_tree()), make_tree(0))
    assert is_all(lambda x: x == 0, decode(payload))
    assert is_all(lambda x: x == 0, state.residual)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_arrives_as_nan_throughout_and_leaves_the_residual(bad, k):
    codec, encode, decode = small(k)
    good = make_tree()
    first_state, first = encode(codec.init(good), good)
    state, payload = encode(first_state, {**good, "w": good["w"].at[3, 1].set(bad)})
    assert is_all(np.isnan, decode(payload))
    assert trees.sha256(state.residual) == trees.sha256(first_state.residual)
    # As if the broken tree had never been.
    state, last = encode(state, good)
    first, last, total = floats(decode(first)), floats(decode(last)), floats(good)
    for name, owed in floats(state.residual).items():
        np.testing.assert_allclose(first[name] + last[name] + owed, 2 * total[name], atol=1e-5)


def test_what_overflows_the_table_is_given_up():
    codec, encode, decode = small()
    state, payload = encode(codec.init(make_tree()), make_tree(3e38))
    assert is_all(np.isnan, decode(payload))
    assert is_all(lambda x: x == 0, state.residual)
    _, payload = encode(state, make_tree())
    assert is_all(np.isfinite, decode(payload))


@pytest.mark.parametrize("k", [None, 2])
def test_a_table_that_a_later_codec_breaks_decodes_to_nan_throughout(k):
    codec, encode, decode = small(k)
    _, payload = encode(codec.init(make_tree()), make_tree())
    broken = dataclasses.replace(payload, table=payload.table.at[1, 2].set(np.inf))
    assert is_all(np.isnan, decode(broken))


def test_without_floating_elements_nothing_is_added():
    tree = {"label": np.arange(3, dtype=np.int32), "empty": np.zeros((0, 2), np.float32)}
    codec = count_sketch(columns=10)
    state, payload = codec.encode(codec.init(tree), tree, None)
    assert codec.nbytes(payload) == 12
    assert codec.decode(payload)["label"] is tree["label"]
    assert codec.decode(payload)["empty"].shape == (0, 2)
    assert state.turn == 0


def test_the_seed_alone_decides_and_is_not_sent():
    def bytes_of(seed):
        codec, encode, _ = small(None, seed)
        return serialize(encode(codec.init(make_tree()), make_tree())[1])

    assert bytes_of(0) == bytes_of(0) != bytes_of(1)
    assert len(bytes_of(0)) == len(bytes_of(1))


@pytest.mark.parametrize(
    ("codec", "sizes"),
    [
        (count_sketch(0.1), {1: 5, 60: 5, 100: 10, 1000: 100}),
        (count_sketch(1.0, rows=1), {1: 1, 77: 77}),
        (count_sketch(columns=7, rows=2), {1: 14, 1000: 14}),
    ],
)
def test_bytes_are_those_of_the_table_and_of_the_turn(codec, sizes):
    for size, elements in sizes.items():
        g = jax.ShapeDtypeStruct((size,), np.float32)
        assert abstract_nbytes(codec, g) == 4 * elements + 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "give either fraction or columns; got fraction=None and columns=None"),
        ({"fraction": 0.1, "columns": 1}, "give either fraction or columns"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\]; got 0.0"),
        ({"fraction": 1.5}, r"fraction must be in \(0, 1\]; got 1.5"),
        ({"fraction": float("nan")}, "fraction must be in"),
        ({"columns": 0}, "columns must be at least 1; got 0"),
        ({"fraction": 0.1, "rows": 0}, "rows must be at least 1; got 0"),
        ({"fraction": 0.1, "k": 0}, "k must be at least 1; got 0"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        count_sketch(**kwargs)
