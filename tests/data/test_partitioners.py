import functools

import numpy as np
import pytest

from eejax.data import dirichlet, iid, pack, partitioner_from_name, quantity_skew, shards

LABELS = np.random.default_rng(0).integers(0, 10, 1000)
PARTITIONERS = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet_extreme": functools.partial(dirichlet, alpha=1e-3),
    "shards": shards,
    "quantity": quantity_skew,
    "quantity_extreme": functools.partial(quantity_skew, alpha=1e-3),
}
EVERY = pytest.mark.parametrize("name", PARTITIONERS)


@EVERY
@pytest.mark.parametrize("clients", [1, 7, 100, 500])
def test_every_sample_belongs_to_exactly_one_client(name, clients):
    indices = PARTITIONERS[name](LABELS, clients, 3)
    assert len(indices) == clients
    assert all(row.dtype == np.int64 for row in indices)
    assert sorted(np.concatenate(indices)) == list(range(1000))
    assert min(map(len, indices)) >= 2


@EVERY
def test_the_seed_decides(name):
    first, again, other = (PARTITIONERS[name](LABELS, 20, seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other))


@EVERY
def test_the_order_within_a_client_tells_nothing(name):
    """Who takes the first half of a client's samples gets all its classes."""
    (row,) = PARTITIONERS[name](np.arange(1000) // 100, 1, 0)
    assert len(np.unique(row[:500] // 100)) == 10


def test_iid_sizes_differ_by_one():
    assert sorted({len(row) for row in iid(LABELS, 7, 0)}) == [142, 143]


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


def test_quantity_skew_keeps_the_mix_of_classes():
    indices = quantity_skew(LABELS, 5, 0)
    sizes = np.array([len(row) for row in indices])
    assert sizes.max() > 3 * sizes.min()
    assert skew([indices[sizes.argmax()]]) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iid(LABELS, 0, 0), "clients must be at least 1; got 0"),
        (lambda: iid(LABELS, 1001, 0), "1001 clients with at least 1 .* need 1001 samples"),
        (lambda: dirichlet(LABELS, 501, 0), "at least 2 samples each need 1002 samples; .* 1000"),
        (lambda: dirichlet(LABELS, 5, 0, alpha=0), "alpha must be positive; got 0"),
        (lambda: quantity_skew(LABELS, 5, 0, alpha=np.nan), "alpha must be positive; got nan"),
        (lambda: shards(LABELS, 5, 0, per_client=0), "per_client must be at least 1; got 0"),
        (lambda: shards(LABELS, 300, 0, per_client=4), "need 1200 samples"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pack_by_hand():
    table, counts = pack([np.array([4, 2]), np.array([], np.int64), np.array([9, 8, 7])])
    assert (table.dtype, counts.dtype) == (np.int32, np.int32)
    assert table.tolist() == [[4, 2, 4], [0, 0, 0], [9, 8, 7]]
    assert counts.tolist() == [2, 0, 3]
    assert pack([np.array([], np.int64)]).table.tolist() == [[0]]


@pytest.mark.parametrize(
    ("text", "partitioner"),
    [
        ("iid", iid),
        ("dirichlet:0.1", functools.partial(dirichlet, alpha=0.1)),
        ("shards:3", functools.partial(shards, per_client=3)),
        ("quantity:2", functools.partial(quantity_skew, alpha=2.0)),
    ],
)
def test_names(text, partitioner):
    for a, b in zip(partitioner_from_name(text)(LABELS, 9, 5), partitioner(LABELS, 9, 5)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dirichlett:0.5", "none of iid, dirichlet:ALPHA, .*; did you mean 'dirichlet:ALPHA'"),
        ("dirichlet", "did you mean 'dirichlet:ALPHA'"),
        ("iid:3", "did you mean 'iid'"),
        ("xyz", "none of iid, dirichlet:ALPHA, shards:PER_CLIENT, quantity:ALPHA$"),
        ("dirichlet:x", "partitioner 'dirichlet:x': could not convert"),
        ("dirichlet:-1", "must be positive; got -1.0"),
        ("dirichlet:nan", "must be positive; got nan"),
        ("quantity:inf", "must be positive; got inf"),
        ("shards:0", "must be positive; got 0"),
        ("shards:1.5", "partitioner 'shards:1.5': invalid literal"),
    ],
)
def test_name_errors(text, message):
    with pytest.raises(ValueError, match=message):
        partitioner_from_name(text)
