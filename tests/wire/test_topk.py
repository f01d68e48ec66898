"""Top-k: golden values, conservation by error feedback, index widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.wire import abstract_payload, chain, identity, topk
from eejax.wire.topk import SparsePayload


def test_golden_two_rounds():
    codec = topk(k=2)
    g = np.array([[1.0, -4.0, 0.5], [3.0, 0.0, 2.0]], np.float32)
    state, payload = codec.encode(codec.init(g), g, None)
    assert payload.values.tolist() == [-4.0, 3.0]
    assert payload.indices[0].tolist() == [1, 3]
    assert codec.decode(payload).tolist() == [[0.0, -4.0, 0.0], [3.0, 0.0, 0.0]]
    assert state.tolist() == [[1.0, 0.0, 0.5], [0.0, 0.0, 2.0]]
    # The second time the residual wins: 1 + 1, 2 + 1, and -1 is left behind.
    g = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    state, payload = codec.encode(state, g, None)
    assert codec.decode(payload).tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    assert state.tolist() == [[0.0, -1.0, 0.5], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float8_e4m3fn])
def test_sent_plus_residual_is_the_sum_of_all_inputs(dtype):
    codec = topk(0.1)
    rng = np.random.default_rng(0)
    state = codec.init(jax.ShapeDtypeStruct((20, 5), dtype))
    assert state.dtype == np.float32
    total, sent = np.zeros((20, 5)), np.zeros((20, 5))
    for _ in range(30):
        g = jnp.asarray(rng.normal(size=(20, 5)), dtype)
        state, payload = codec.encode(state, g, None)
        total += np.asarray(g, np.float64)
        sent += np.asarray(codec.decode(payload), np.float64)
    np.testing.assert_allclose(sent + np.asarray(state), total, atol=1e-5)
    assert np.abs(sent - total).max() > 0.1


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)],
)
def test_indices_are_as_narrow_as_the_leaf_allows(size, dtype):
    g = np.zeros(size, np.float32)
    g[[0, -1]] = 1, 2
    codec = topk(k=2)
    _, payload = codec.encode(codec.init(g), g, None)
    assert payload.indices[0].dtype == dtype
    assert codec.nbytes(payload) == 2 * (4 + np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(codec.decode(payload), g)


@pytest.mark.parametrize(
    ("codec", "sizes"),
    [
        (topk(0.01), {0: 0, 1: 1, 49: 1, 1000: 10}),
        (topk(0.5), {0: 0, 1: 1, 7: 4}),
        (topk(k=5), {0: 0, 3: 3, 9: 5}),
    ],
)
def test_number_of_elements(codec, sizes):
    for size, count in sizes.items():
        g = jax.ShapeDtypeStruct((size,), np.float32)
        assert abstract_payload(codec, g).values.shape == (count,)


def test_ties_go_to_the_first():
    codec = topk(k=2)
    _, payload = codec.encode(jnp.zeros(4), jnp.array([1.0, -1.0, 1.0, 1.0]), None)
    assert sorted(payload.indices[0].tolist()) == [0, 1]


def test_what_is_not_finite_is_sent_at_once_and_leaves_no_residual():
    codec = topk(k=2)
    g = jnp.array([np.nan, 1.0, np.inf, 9.0])
    state, payload = codec.encode(codec.init(g), g, None)
    np.testing.assert_array_equal(codec.decode(payload), [np.nan, 0.0, np.inf, 0.0])
    assert state.tolist() == [0.0, 1.0, 0.0, 9.0]


def test_only_floating_leaves_are_sparsified():
    tree = {"image": np.ones((2, 2), np.uint8), "g": np.array([1.0, 2.0], np.float32)}
    codec = topk(k=1)
    state = codec.init(trees.abstract(tree))
    assert state["image"] is None
    state, payload = codec.encode(state, tree, None)
    assert isinstance(payload, SparsePayload)
    assert payload.values["image"] is tree["image"]
    assert codec.nbytes(payload) == 4 + 5
    assert state["g"].tolist() == [1.0, 0.0]


def test_numpy_float64_is_taken_as_jax_holds_it():
    codec = topk(k=1)
    g = np.array([1.0, 2.0])
    state, payload = codec.encode(codec.init(g), g, None)
    assert state.dtype == codec.decode(payload).dtype == np.float32


def test_state_stacks_over_clients():
    codec = chain(identity(), topk(k=1))
    g = jnp.array([[3.0, 1.0], [2.0, 5.0]])
    state = jax.vmap(codec.init)(g)
    state, _ = jax.vmap(lambda s, g: codec.encode(s, g, None))(state, g)
    assert state[1].tolist() == [[0.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "give either fraction or k"),
        ({"fraction": 0.1, "k": 1}, "give either fraction or k"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\]; got 0.0"),
        ({"fraction": 1.5}, r"fraction must be in \(0, 1\]; got 1.5"),
        ({"fraction": float("nan")}, "fraction must be in"),
        ({"k": 0}, "k must be at least 1; got 0"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        topk(**kwargs)
