"""Gossip: mixing matrices, their bytes, and the special cases of D-PSGD."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from eejax.cotrain.replica import (
    complete,
    consensus_distance,
    data_parallel,
    gossip,
    mean_grad,
    metropolis,
    mix,
    mix_bytes,
    ring,
    spectral_gap,
    split,
)
from eejax.tiers import collectives, make_mesh

KEY = jax.random.key(0)
AXES = ("edge", "end")


def random_graph(n=8, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < 0.3, 1)
    upper |= np.eye(n, k=1, dtype=bool)  # Connected.
    return metropolis(upper | upper.T)


# Doubly stochastic but not symmetric: everybody listens to one neighbour only.
DIRECTED = (np.eye(8) + np.roll(np.eye(8), 1, 1)) / 2
MATRICES = {
    "ring": ring(8),
    "complete": complete(8),
    "random": random_graph(),
    "directed": DIRECTED,
    "alone": np.eye(8),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 4)])
def test_mixing_is_the_product_with_the_matrix_and_its_bytes_are_the_edges(name, shape):
    w, mesh, spec = MATRICES[name], make_mesh(shape, AXES), PartitionSpec(AXES)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    body = jax.shard_map(lambda x: mix(x, w, AXES), mesh=mesh, in_specs=spec, out_specs=spec)
    compiled = jax.jit(body).lower(x).compile()
    mixed = np.asarray(compiled(jax.device_put(x, compiled.input_shardings[0][0])))
    np.testing.assert_allclose(mixed, w @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed.mean(0), x.mean(0), atol=1e-6)
    found = collectives(compiled, mesh)
    assert found.by_tier == pytest.approx(mix_bytes(20, w, mesh, AXES))
    if shape == (2, 4):
        edges = np.count_nonzero(w - np.diag(np.diag(w)))
        assert found.total == pytest.approx(20 * edges / 8)


def test_bytes_of_a_ring_by_hand():
    """Each of 8 nodes sends 20 B both ways; 4 of 16 messages lie between the two edges."""
    assert mix_bytes(20, ring(8), make_mesh((2, 4), AXES), AXES) == {"end": 30, "edge": 10}
    # Two devices of four nodes: only the nodes at the seams cross, one each way.
    two = make_mesh((1, 2), AXES)
    assert mix_bytes(20, ring(8), two, AXES) == {"end": 40}


def test_matrices_are_doubly_stochastic_and_symmetric():
    for n in (1, 2, 3, 8):
        for w in (ring(n), complete(n), random_graph(n)):
            np.testing.assert_allclose(w.sum(0), 1)
            np.testing.assert_array_equal(w, w.T)
            assert w.min() >= 0
    np.testing.assert_allclose(ring(2), complete(2))
    np.testing.assert_allclose(metropolis(np.ones((5, 5))), complete(5))


def test_spectral_gap_of_known_graphs():
    for n in (3, 8, 16):
        # Eigenvalues of a ring are (1 + 2 cos(2 pi k / n)) / 3.
        assert spectral_gap(ring(n)) == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / n)))
        assert spectral_gap(complete(n)) == pytest.approx(1)
    assert spectral_gap(np.eye(4)) == pytest.approx(0)


def loss(w, x, key):
    del key
    return jnp.square(jnp.tanh(x @ w["a"]) - w["b"]), {}


def train(method, steps=4, w=None):
    rng = np.random.default_rng(3)
    state = method.init({"a": jnp.ones(3), "b": jnp.zeros(())} if w is None else w)
    for _ in range(steps):
        x = rng.normal(size=(16, 3)).astype(np.float32)
        state, _ = method.step(state, split(x, [2] * 8), KEY)
    return method.params(state), state


def test_complete_graph_adapting_first_is_synchronous_sgd():
    tx = optax.sgd(0.3, momentum=0.9)
    mesh = make_mesh((2, 4), AXES)
    method = gossip(mean_grad(loss), tx, mesh, AXES, w=complete(8), adapt_first=True)
    params, state = train(method)
    expected, _ = train(data_parallel(mean_grad(loss), tx, mesh, AXES))
    chex.assert_trees_all_close(*jax.device_get((params, expected)), rtol=1e-6, atol=1e-7)
    assert float(consensus_distance(state.params)) < 1e-6


def test_the_mean_of_the_nodes_follows_the_mean_gradient():
    """Lian et al., eq. 3: mixing does not touch the mean, whatever the graph."""
    grad_fn = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))
    x = np.arange(8, dtype=np.float32) ** 2
    method = gossip(grad_fn, optax.sgd(0.5), make_mesh((8,), ("end",)), ("end",), w=random_graph())
    state, expected = method.init(jnp.array(1.0)), 1.0
    for _ in range(5):
        state, _ = method.step(state, split(x, [1] * 8), KEY)
        expected -= 0.5 * (expected - x.mean())
        assert float(method.params(state)) == pytest.approx(expected, rel=1e-5)
    assert float(consensus_distance(state.params)) > 1


def test_mixing_alone_brings_nodes_together_at_the_rate_of_the_spectral_gap():
    zero_grad = lambda w, batch, key: (jax.tree.map(jnp.zeros_like, w), {})  # noqa: E731
    method = gossip(zero_grad, optax.sgd(1.0), make_mesh((8,), ("end",)), ("end",), w=ring(8))
    state = method.init(jnp.array(0.0))
    # The slowest wave of a ring decays by exactly 1 - gap a step.
    wave = np.cos(2 * np.pi * np.arange(8) / 8).astype(np.float32)
    state = state._replace(params=jax.device_put(wave, state.params.sharding))
    before = float(consensus_distance(state.params))
    for _ in range(3):
        state, _ = method.step(state, split(np.zeros(8, np.float32), [1] * 8), KEY)
    after = float(consensus_distance(state.params))
    assert after / before == pytest.approx((1 - spectral_gap(ring(8))) ** 3, rel=1e-5)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (np.ones((8, 8)), "rows and columns of sum 1"),
        (np.eye(8)[:4], "w must be square"),
        ([[2.0, -1.0], [-1.0, 2.0]], "w must be square, >= 0"),
        (ring(12), "12 nodes do not divide over 8 devices"),
    ],
)
def test_matrices_are_checked(w, message):
    with pytest.raises(ValueError, match=message):
        gossip(mean_grad(loss), optax.sgd(0.1), make_mesh((8,), ("end",)), ("end",), w=w)


def test_adjacency_and_batch_are_checked():
    with pytest.raises(ValueError, match="adjacency must be square and symmetric"):
        metropolis([[0, 1], [0, 0]])
    method = gossip(
        mean_grad(loss), optax.sgd(0.1), make_mesh((8,), ("end",)), ("end",), w=ring(16)
    )
    state = method.init({"a": jnp.ones(3), "b": jnp.zeros(())})
    with pytest.raises(ValueError, match="w is of 16 nodes"):
        method.step(state, split(np.ones((8, 3), np.float32), [1] * 8), KEY)
