import numpy as np
import pytest

from eejax.data import (
    classes_per_client,
    dirichlet,
    inner_dirichlet,
    label_distribution,
    quantity_skew,
    shards,
)

LABELS = np.random.default_rng(0).integers(0, 10, 1000)
EVEN = np.repeat(np.arange(10), 100)


def skew(indices):
    """Mean total variation distance between the classes of a client and those of all."""
    overall = np.bincount(LABELS, minlength=10) / len(LABELS)
    return np.mean(
        [
            np.abs(np.bincount(LABELS[row], minlength=10) / len(row) - overall).sum() / 2
            for row in indices
        ]
    )


def test_dirichlet_skew_falls_with_alpha():
    alphas = (0.01, 0.1, 1.0, 10.0, 1e6)
    skews = [skew(dirichlet(LABELS, 10, 0, alpha=alpha)) for alpha in alphas]
    assert skews == sorted(skews, reverse=True)
    # All of a class at one client: at 0.01 nearly one class each; at 1e6 as equal as 100 samples.
    assert skews[0] > 0.7
    assert skews[-1] < 0.02


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    """Shares of one class over K clients: mean 1/K, variance (K-1) / (K^2 (K alpha + 1))."""
    labels, clients, alpha = np.zeros(2000, int), 5, 0.5
    shares = np.array(
        [
            [len(row) / 2000 for row in dirichlet(labels, clients, seed, alpha, min_size=0)]
            for seed in range(400)
        ]
    )
    np.testing.assert_allclose(shares.mean(0), 1 / clients, atol=0.04)
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_min_size_takes_only_from_the_richest():
    for partition in (dirichlet, quantity_skew):
        free = partition(LABELS, 20, 0, alpha=0.05, min_size=0)
        held = partition(LABELS, 20, 0, alpha=0.05, min_size=10)
        assert min(map(len, free)) < 10
        assert min(map(len, held)) == 10
        for before, after in zip(free, held):
            kept = np.isin(before, after).sum()
            assert kept == len(before) or len(after) > 10


def test_shards_give_few_classes_and_equal_sizes():
    labels = np.repeat(np.arange(10), 100)
    for per_client in (1, 2, 5):
        indices = shards(labels, 20, 0, per_client)
        assert {len(row) for row in indices} == {50}
        assert max(len(np.unique(labels[row])) for row in indices) <= 2 * per_client
    assert all(len(np.unique(labels[row])) == 1 for row in shards(labels, 20, 0, 1))
    # Dealt, not handed out in order: the two classes of a client are seldom neighbours.
    distances = [np.ptp(labels[row]) for row in shards(labels, 5, 0, 2)]
    assert max(distances) > 1


def test_inner_dirichlet_sizes_are_equal_or_lognormal():
    assert {len(row) for row in inner_dirichlet(LABELS, 40, 0)} == {25}
    assert {len(row) for row in inner_dirichlet(LABELS, 30, 0)} == {33, 34}
    labels = np.zeros(400_000, int)
    logs = np.log([len(row) for row in inner_dirichlet(labels, 400, 0, size_sd=0.5)])
    assert logs.std() == pytest.approx(0.5, rel=0.1)
    assert min(len(row) for row in inner_dirichlet(LABELS, 20, 0, size_sd=9.0, min_size=7)) == 7


def test_inner_dirichlet_mixes_have_the_moments_of_the_distribution():
    """Shares of C classes have mean 1/C, variance (C-1) / (C^2 (C alpha + 1)) + counting."""
    clients, classes, alpha = 2000, 4, 0.5
    # With so many clients the classes run out only at the end, and all at about the same time.
    labels = np.tile(np.arange(classes), 25_000)
    counts = label_distribution(labels, inner_dirichlet(labels, clients, 0, alpha=alpha), classes)
    shares = counts / counts.sum(1, keepdims=True)
    variance = (classes - 1) / (classes**2 * (classes * alpha + 1))
    # Counts of 50 draws add p (1 - p) / 50 = (1/C - 1/C^2 - variance) / 50.
    sampling = (1 / classes - 1 / classes**2 - variance) / 50
    assert shares.mean() == pytest.approx(1 / classes)
    assert shares.var() == pytest.approx(variance + sampling, rel=0.1)


def test_inner_dirichlet_is_that_of_one_draw_after_the_other():
    """Against the loop of Acar et al. that draws again while a class is empty, in distribution."""

    def loop(rng, q, sizes, left):
        counts = np.zeros((len(sizes), len(left)))
        while sizes.sum():
            client = rng.choice(np.flatnonzero(sizes))
            c = rng.choice(len(left), p=q[client])
            while not left[c]:
                c = rng.choice(len(left), p=q[client])
            sizes[client] -= 1
            left[c] -= 1
            counts[client, c] += 1
        return counts

    from eejax.data.label_skew import _draw_classes

    q, sizes, left = np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]]), [9, 3], [4, 4, 4]
    wanted, got = np.zeros((2, 3)), np.zeros((2, 3))
    rng = np.random.default_rng(0)
    for _ in range(600):
        wanted += loop(rng, q, np.array(sizes), np.array(left)) / 600
        drawn = _draw_classes(q, np.array(sizes), np.array(left), rng)
        got += [np.bincount(row, minlength=3) / 600 for row in np.split(drawn, sizes[:1])]
    np.testing.assert_allclose(got, wanted, atol=0.15)


def test_inner_dirichlet_skew_falls_with_alpha():
    skews = [skew(inner_dirichlet(LABELS, 10, 0, alpha=alpha)) for alpha in (0.01, 0.3, 3.0, 1e6)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 0.15


def test_inner_dirichlet_takes_the_rest_when_all_its_classes_have_run_out():
    """With alpha so small that each client wants one class, and 90 % are of class 0."""
    labels = (np.arange(100) >= 90).astype(int)
    rows = inner_dirichlet(labels, 4, 1, alpha=1e-9)
    assert sorted(np.concatenate(rows)) == list(range(100))


@pytest.mark.parametrize(("clients", "per_client"), [(5, 2), (10, 1), (20, 3), (7, 10), (33, 2)])
def test_classes_are_exactly_as_many_and_shared_evenly(clients, per_client):
    rows = classes_per_client(EVEN, clients, 0, per_client)
    counts = label_distribution(EVEN, rows, 10)
    assert sorted(np.concatenate(rows)) == list(range(1000))
    assert ((counts > 0).sum(1) == per_client).all()
    holders = (counts > 0).sum(0)
    assert holders.max() - holders.min() <= 1
    for column in counts.T:
        held = column[column > 0]
        assert held.max() - held.min() <= 1


def test_classes_of_a_client_are_drawn_and_decided_by_the_seed():
    pairs = {
        tuple(np.unique(EVEN[row]))
        for seed in range(20)
        for row in classes_per_client(EVEN, 5, seed)
    }
    assert len(pairs) > 30  # Of 45.
    first, again = (classes_per_client(EVEN, 5, 3) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dirichlet(LABELS, 501, 0), "at least 2 samples each need 1002 samples; .* 1000"),
        (lambda: dirichlet(LABELS, 5, 0, alpha=0), "alpha must be positive and finite; got 0"),
        (lambda: shards(LABELS, 5, 0, per_client=0), "per_client must be at least 1; got 0"),
        (lambda: shards(LABELS, 300, 0, per_client=4), "need 1200 samples"),
        (lambda: inner_dirichlet(LABELS, 5, 0, alpha=-1), "alpha must be positive .* got -1"),
        (lambda: inner_dirichlet(LABELS, 5, 0, size_sd=-1), "size_sd must be >= 0 .* got -1"),
        (lambda: inner_dirichlet(LABELS, 501, 0), "need 1002 samples"),
        (lambda: classes_per_client(EVEN, 5, 0, 0), r"per_client must be in 1\.\.10, .* got 0"),
        (lambda: classes_per_client(EVEN, 5, 0, 11), r"per_client must be in 1\.\.10, .* got 11"),
        (
            lambda: classes_per_client(EVEN, 3, 0, 2),
            "must be at least 4 so that each of 10 .* 3 cl",
        ),
        (lambda: classes_per_client([0] * 9 + [1], 4, 0), "class 1 has 1 samples for 4 clients"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
