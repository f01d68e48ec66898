import jax
import numpy as np
import pytest

from eejax.protect import krum, multi_krum
from eejax.protect.krum import squared_distances


def scores(x, f):
    """The paper's pseudo-code, client by client."""
    n = len(x)
    found = []
    for i in range(n):
        distances = sorted(((x[i] - x[j]) ** 2).sum() for j in range(n) if j != i)
        found.append(sum(distances[: n - f - 2]))
    return np.array(found)


@pytest.mark.parametrize(("n", "f"), [(7, 2), (9, 1)])
def test_krum_and_multi_krum_equal_the_pseudo_code(n, f):
    rules = {1: krum(n, f), 2: multi_krum(n, f, 2), n - f - 2: multi_krum(n, f)}
    for m, rule in rules.items():
        aggregate = jax.jit(rule.aggregate)
        for seed in range(3):
            x = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
            best = np.argsort(scores(x, f))[:m]
            _, upload = aggregate((), x, np.ones(n))
            np.testing.assert_allclose(upload, x[best].mean(0), rtol=1e-5, atol=1e-6)


def test_with_absent_clients_it_is_krum_of_those_present():
    x = np.random.default_rng(4).normal(size=(10, 5)).astype(np.float32)
    here = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0])
    _, some = jax.jit(multi_krum(10, 2).aggregate)((), x, here)
    _, few = jax.jit(multi_krum(7, 2).aggregate)((), x[here > 0], np.ones(7))
    np.testing.assert_allclose(some, few, rtol=1e-5)


def test_hand_computed():
    # Of 5 with f=1 the two nearest count. 0: 1 + 9 = 10; 1: 1 + 4 = 5; 3: 4 + 9 = 13; 7: 16 + 36.
    x = np.array([0.0, 1.0, 3.0, 7.0, 100.0], np.float32)
    assert scores(x[:, None], 1).tolist()[:4] == [10, 5, 13, 52]
    _, upload = jax.jit(krum(5, 1).aggregate)((), x, np.ones(5))
    assert float(upload) == 1


def test_of_equal_scores_the_client_closer_to_all_wins():
    x = np.array([0.0, 1.0, 3.0], np.float32)  # The nearest of 0 and 1 is at 1; 1 is in the middle.
    aggregate = jax.jit(krum(3, 0).aggregate)
    assert float(aggregate((), x, np.ones(3))[1]) == float(aggregate((), x[::-1], np.ones(3))[1])
    assert float(aggregate((), x, np.ones(3))[1]) == 1


def test_small_distances_between_large_uploads_are_exact():
    x = np.array([[4096.0, 0.0], [4096.5, 0.0]], np.float32)
    assert squared_distances(x)[0, 1] == 0.25


def test_m_out_of_range_is_refused():
    for m in (0, 6):
        with pytest.raises(ValueError, match=r"m must be in \[1, clients - f - 2 = 5\]"):
            multi_krum(9, 2, m)
