"""Cohorts: the right size, nobody twice, and everybody as often as promised."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.cotrain.federated import samplers

ROUNDS = 4000
COUNTS = jnp.array([1, 2, 3, 4])


@functools.cache
def draw(make, *args):
    """Many cohorts of one sampler over four clients."""
    keys = jax.random.split(jax.random.key(0), ROUNDS)
    cohorts = jax.jit(jax.vmap(lambda k, r: make(*args)(k, r, COUNTS)))(keys, jnp.arange(ROUNDS))
    return np.asarray(cohorts.clients), np.asarray(cohorts.present)


def rates(clients, present):
    return np.bincount(clients[present], minlength=4) / ROUNDS


def test_uniform_draws_every_subset_equally_often():
    clients, present = draw(samplers.uniform, 2)
    assert present.all()
    pairs = [tuple(sorted(c)) for c in clients.tolist()]
    observed = np.array([pairs.count(pair) for pair in itertools.combinations(range(4), 2)])
    assert observed.sum() == ROUNDS  # So nobody comes twice.
    expected = ROUNDS / 6
    assert ((observed - expected) ** 2 / expected).sum() < 20.5  # 0.001 level, 5 degrees.


def test_uniform_of_all_is_everybody():
    clients, _ = draw(samplers.uniform, 4)
    np.testing.assert_array_equal(np.sort(clients), np.tile(np.arange(4), (ROUNDS, 1)))


def test_weighted_draws_one_after_the_other_by_weight():
    clients, present = draw(samplers.weighted, 1)
    assert present.all()
    np.testing.assert_allclose(rates(clients, present), np.arange(1, 5) / 10, atol=0.03)

    # With two, by hand: first i with w_i, then j with w_j of what is left.
    w = np.arange(1, 5) / 10
    both = [w[i] + sum(w[j] * w[i] / (1 - w[j]) for j in range(4) if j != i) for i in range(4)]
    np.testing.assert_allclose(rates(*draw(samplers.weighted, 2)), both, atol=0.03)


def test_weight_zero_never_comes():
    clients, present = draw(samplers.weighted, 3, (0.0, 1.0, 0.0, 1.0))
    assert (present.sum(1) == 2).all()
    assert set(clients[present]) == {1, 3}
    assert set(clients[~present]) == {4}  # Nobody.


def test_availability_follows_its_trace():
    trace = ((True, True, True, False), (False, False, True, False), (False,) * 4)
    clients, present = draw(samplers.available, 2, trace)
    for round_ in range(3):
        here, who = present[round_::3], clients[round_::3]
        assert (here.sum(1) == min(2, sum(trace[round_]))).all()
        assert all(trace[round_][c] for c in who[here])
    seen = np.bincount(clients[0::3].ravel(), minlength=4)[:3] / len(clients[0::3])
    np.testing.assert_allclose(seen, 2 / 3, atol=0.05)


@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_poisson_is_independent_for_every_client(rate):
    """All 16 subsets come with their probability: chi-square of 16 cells, 0.001 level."""
    clients, present = draw(samplers.poisson, rate)
    subsets = np.where(present, 2 ** np.minimum(clients, 3), 0).sum(1)
    observed = np.bincount(subsets, minlength=16)
    size = np.array([int(s).bit_count() for s in range(16)])
    expected = ROUNDS * rate**size * (1 - rate) ** (4 - size)
    assert ((observed - expected) ** 2 / expected).sum() < 37.7
    assert all(len({*c[p]}) == p.sum() for c, p in zip(clients[:100], present[:100]))


def test_poisson_of_many_clients_has_room_and_costs_little():
    keys = jax.random.split(jax.random.key(1), 300)
    counts = jnp.ones(100_000)
    clients, present = jax.jit(jax.vmap(lambda k: samplers.poisson(0.001)(k, 0, counts)))(keys)
    sizes = np.asarray(present.sum(1))
    assert present.shape[1] < 220
    assert sizes.max() < present.shape[1]
    assert abs(sizes.mean() - 100) < 3
    assert 7 < sizes.std() < 13  # Of a fixed size it would be 0.
    here = np.asarray(clients)[np.asarray(present)]
    assert abs(here.mean() / 50_000 - 1) < 0.03
    assert (np.diff(np.asarray(clients)[0][: sizes[0]]) > 0).all()


def test_poisson_with_certainty_is_everybody():
    clients, present = draw(samplers.poisson, 1.0)
    assert present.all()
    np.testing.assert_array_equal(clients[0], range(4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: samplers.uniform(0), "size must be at least 1"),
        (lambda: samplers.uniform(5)(jax.random.key(0), 0, COUNTS), "5 cannot be drawn from 4"),
        (lambda: samplers.weighted(5)(jax.random.key(0), 0, COUNTS), "5 cannot be drawn from 4"),
        (lambda: samplers.poisson(0.0), "rate must be in"),
        (lambda: samplers.available(1, [True]), r"trace must be \[rounds, clients\]"),
    ],
)
def test_wrong_samplers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
