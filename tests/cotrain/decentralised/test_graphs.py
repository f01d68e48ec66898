import jax
import numpy as np
import pytest

from eejax.cotrain.decentralised import (
    complete,
    graph_bytes,
    mean_spectral_gap,
    metropolis,
    price_mixing,
    random_matching,
    ring,
    seat,
    spectral_gap,
)
from eejax.cotrain.federated import Rows
from eejax.tiers import total_bytes

KEYS = jax.random.split(jax.random.key(0), 200)


@pytest.mark.parametrize("w", [ring(7), complete(8), metropolis(np.eye(6, k=1) + np.eye(6, k=-1))])
def test_matchings_are_maximal_pairs_along_edges(w):
    n = len(w)
    drawn = np.asarray(jax.vmap(lambda k: random_matching(w)(k, n))(KEYS))
    np.testing.assert_allclose(drawn.sum(1), 1)
    np.testing.assert_allclose(drawn, drawn.transpose(0, 2, 1))
    assert ((drawn == 0) | (drawn == 0.5) | (drawn == 1)).all()
    assert (drawn[:, (w == 0)] == 0).all()
    single = np.diagonal(drawn, axis1=1, axis2=2) == 1
    left_over = single[:, :, None] & single[:, None] & (w > 0) & ~np.eye(n, dtype=bool)
    assert not left_over.any()
    used = (drawn.mean(0) > 0) == (w > 0)
    assert used[~np.eye(n, dtype=bool)].all()


def test_pairs_of_a_complete_graph_are_equally_likely():
    draws = jax.vmap(lambda k: random_matching(complete(6))(k, 6))(
        jax.random.split(jax.random.key(1), 4000)
    )
    mean = np.asarray(draws.mean(0))
    np.testing.assert_allclose(mean[~np.eye(6, dtype=bool)], 0.5 / 5, atol=0.01)


def test_mean_spectral_gap_of_a_fixed_matrix_and_of_pairs():
    w = ring(8)
    fixed = mean_spectral_gap(lambda key, n: jax.numpy.asarray(w), 8, jax.random.key(0), rounds=2)
    assert fixed == pytest.approx(1 - (1 - spectral_gap(w)) ** 2, rel=1e-5)
    # Of a perfect matching of n: W^T W = W and its mean is 1/2 + (J - 1) / (2 (n - 1)).
    pairs = mean_spectral_gap(random_matching(complete(8)), 8, jax.random.key(0), rounds=4000)
    assert pairs == pytest.approx(1 - (0.5 - 0.5 / 7), rel=0.05)


def rows_with(ids):
    ids = np.array(ids, np.int32)
    return Rows(np.zeros((*ids.shape, 1), np.int32), (ids >= 0).astype(np.int32), ids)


def test_seats_follow_the_numbers_of_clients():
    w = metropolis([[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    seated = seat(w, rows_with([[2, -1], [0, 1]]))
    expected = np.eye(4)
    expected[np.ix_([2, 3, 0], [2, 3, 0])] = w
    np.testing.assert_allclose(seated, expected)


def test_bytes_by_edge_of_the_graph_and_by_tier():
    params = {"w": np.zeros((5, 5), np.float32)}
    w = (np.eye(4) + np.roll(np.eye(4), 1, 1)) / 2
    nbytes = graph_bytes(w, params)
    assert nbytes.sum() == 400
    assert nbytes[0].tolist() == [0, 100, 0, 0]
    rows = rows_with([[0, 1], [2, 3]])
    # Two of four edges lie below one edge server, two cross three links.
    assert total_bytes(price_mixing(w, params, rows)) == 200 + 3 * 200
    assert price_mixing(np.eye(4), params, rows) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seat(ring(3), rows_with([[0, 1]])), "3 nodes are not the 2 clients"),
        (lambda: random_matching([[0, 1], [0, 0]]), "square and symmetric"),
        (lambda: random_matching(np.eye(3)), "no edge"),
        (lambda: graph_bytes(np.ones((2, 2)), {}), "sum 1"),
    ],
)
def test_wrong_graphs_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
