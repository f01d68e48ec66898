import jax
import numpy as np
import pytest

from eejax.protect import bulyan, krum


def plain(x, f):
    """The paper's pseudo-code with Krum as its first step."""
    left, chosen = list(range(len(x))), []
    theta = len(x) - 2 * f
    while len(chosen) < theta:
        neighbours = max(1, len(left) - f - 2)

        def score(i, left=left, neighbours=neighbours):
            d = sorted(((x[i] - x[j]) ** 2).sum() for j in left if j != i)
            return sum(d[:neighbours]), sum(d)

        best = min(left, key=score)
        chosen.append(best)
        left = [i for i in left if i != best]
    s = x[chosen]
    out = np.zeros(x.shape[1])
    for k in range(x.shape[1]):
        median = np.median(s[:, k])
        closest = sorted(s[:, k], key=lambda v, m=median: abs(v - m))
        out[k] = np.mean(closest[: theta - 2 * f])
    return out


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (5, 0)])
def test_bulyan_equals_the_pseudo_code(n, f):
    aggregate = jax.jit(bulyan(n, f).aggregate)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
        _, upload = aggregate((), x, np.ones(n))
        np.testing.assert_allclose(upload, plain(x, f), rtol=1e-4, atol=1e-5)


def test_with_absent_clients_it_is_bulyan_of_those_present():
    x = np.random.default_rng(4).normal(size=(10, 5)).astype(np.float32)
    here = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0])
    _, some = jax.jit(bulyan(10, 1).aggregate)((), x, here)
    np.testing.assert_allclose(some, plain(x[here > 0], 1), rtol=1e-4, atol=1e-5)


def test_one_coordinate_that_passes_krum_does_not_pass_bulyan():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(11, 1000)).astype(np.float32)
    x[:2] = x[2:].mean(0)  # Closer to all than anybody is,
    x[:2, 0] += 30  # but for one coordinate.
    _, through = jax.jit(krum(11, 2).aggregate)((), x, np.ones(11))
    _, upload = jax.jit(bulyan(11, 2).aggregate)((), x, np.ones(11))
    assert through[0] > 20
    assert abs(upload[0]) < 2
