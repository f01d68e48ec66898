"""Chance below a rule and the oracle above it, by enumeration."""

import itertools

import jax
import numpy as np
import pytest

from eejax.coinfer import at_exit, oracle, random_exit, random_exit_accuracy

CORRECT = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [1, 1, 1, 0, 0]], bool)


def test_random_exits_keep_the_counts_and_follow_the_key():
    exit_index = np.repeat([0, 1, 2], [30, 50, 20])
    a, b, c = (random_exit(exit_index, jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.bincount(a).tolist() == [30, 50, 20]
    assert (a == b).all()
    assert (a != c).any()
    assert (a != exit_index).any()


def test_random_exit_accuracy_is_the_mean_over_all_permutations():
    exit_index = [0, 0, 1, 2, 2]
    singly = [at_exit(CORRECT, p).mean() for p in itertools.permutations(exit_index)]
    assert random_exit_accuracy(CORRECT, exit_index) == pytest.approx(np.mean(singly))
    assert random_exit_accuracy(CORRECT, [0] * 5) == pytest.approx(0.4)


def test_no_policy_is_more_accurate_than_the_oracle_or_cheaper_at_its_accuracy():
    index = oracle(CORRECT)
    assert index.tolist() == [0, 1, 2, 0, 0]
    policies = [np.array(p) for p in itertools.product(range(3), repeat=5)]
    best = min((-at_exit(CORRECT, p).mean(), p.sum()) for p in policies)
    assert best == (-at_exit(CORRECT, index).mean(), index.sum())
