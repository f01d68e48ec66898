"""What holds for every partitioner, and their names."""

import functools

import numpy as np
import pytest

from eejax.data import (
    classes_per_client,
    dirichlet,
    iid,
    inner_dirichlet,
    natural,
    partition_by,
    partitioner_from_name,
    power_law,
    quantity_skew,
    shards,
)

LABELS = np.random.default_rng(0).integers(0, 10, 1000)
PARTITIONERS = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet_extreme": functools.partial(dirichlet, alpha=1e-3),
    "inner_dirichlet": inner_dirichlet,
    "inner_dirichlet_extreme": functools.partial(inner_dirichlet, alpha=1e-3, size_sd=2.0),
    "shards": shards,
    "power_law": power_law,
    "power_law_extreme": functools.partial(power_law, exponent=5.0),
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


@pytest.mark.parametrize(
    ("text", "partitioner"),
    [
        ("iid", iid),
        ("dirichlet:0.1", functools.partial(dirichlet, alpha=0.1)),
        ("shards:3", functools.partial(shards, per_client=3)),
        ("quantity:2", functools.partial(quantity_skew, alpha=2.0)),
        ("power_law:1.5", functools.partial(power_law, exponent=1.5)),
        ("classes:3", functools.partial(classes_per_client, per_client=3)),
        ("inner_dirichlet:0.3", functools.partial(inner_dirichlet, alpha=0.3)),
        ("inner_dirichlet:2:0.5", functools.partial(inner_dirichlet, alpha=2.0, size_sd=0.5)),
    ],
)
def test_names(text, partitioner):
    wanted = partitioner(LABELS, 9, 5)
    for rows in (partitioner_from_name(text)(LABELS, 9, 5), partition_by(text, LABELS, 9, 5)):
        for a, b in zip(rows, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_partition_by_takes_functions_and_groups():
    for a, b in zip(partition_by(shards, LABELS, 9, 5), shards(LABELS, 9, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    groups = np.arange(1000) // 100
    rows = partition_by("natural", LABELS, 4, 5, groups)
    for a, b in zip(rows, natural(groups, 4, 5), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (None, "partitioner 'natural': groups must be one a sample; got none"),
        (np.zeros(999), "groups must be one a sample; got 999 for 1000 samples"),
        (np.zeros(1000), r"clients must be in 1\.\.1, the groups; got 4"),
    ],
)
def test_natural_needs_its_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        partition_by("natural", LABELS, 4, 0, groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dirichlett:0.5", "none of iid, dirichlet:ALPHA, .*; did you mean 'dirichlet:ALPHA'"),
        ("dirichlet", "did you mean 'dirichlet:ALPHA'"),
        ("iid:3", "did you mean 'iid'"),
        ("class:2", "did you mean 'classes:PER_CLIENT'"),
        ("inner_dirichlet", "did you mean 'inner_dirichlet:ALPHA' or 'inner_dirichlet:ALPHA:SIZE_"),
        ("inner_dirichlet:1:2:3", "is none of iid"),
        ("inner_dirichlet:1:x", "could not convert"),
        ("natural", "partitioner 'natural': it needs the group of each sample; see `partition_by`"),
        ("natural:3", "is none of .*; did you mean 'natural'"),
        ("powerlaw:1", "did you mean 'power_law:EXPONENT'"),
        ("classes:2.5", "invalid literal"),
        ("", "is none of iid, .*, power_law:EXPONENT, natural$"),
        ("xyz", "is none of iid, .*, power_law:EXPONENT, natural$"),
        ("dirichlet:x", "partitioner 'dirichlet:x': could not convert"),
        ("dirichlet:-1", "must be positive and finite; got -1.0"),
        ("dirichlet:nan", "must be positive and finite; got nan"),
        ("quantity:inf", "must be positive and finite; got inf"),
        ("shards:0", "must be positive and finite; got 0"),
        ("shards:1.5", "partitioner 'shards:1.5': invalid literal"),
    ],
)
def test_name_errors(text, message):
    with pytest.raises(ValueError, match=message):
        partitioner_from_name(text)
