import numpy as np
import pytest

from eejax.data import natural

GROUPS = np.array(["b", "a", "c", "b", "b", "a", "e", "d", "c", "b"])


def test_one_client_a_group_in_sorted_order():
    rows = natural(GROUPS)
    assert [sorted(row.tolist()) for row in rows] == [[1, 5], [0, 3, 4, 9], [2, 8], [7], [6]]
    assert all(row.dtype == np.int64 for row in rows)
    assert [sorted(row) for row in natural(GROUPS, 5, seed=9)] == [sorted(row) for row in rows]


@pytest.mark.parametrize("clients", [1, 2, 3, 4])
def test_groups_are_dealt_whole(clients):
    rows = natural(GROUPS, clients, seed=1)
    assert sorted(np.concatenate(rows)) == list(range(10))
    kinds = [set(GROUPS[row]) for row in rows]
    assert sum(map(len, kinds)) == 5  # No group is at two clients.
    assert max(map(len, kinds)) - min(map(len, kinds)) <= 1


def test_the_seed_deals_the_groups_and_the_order():
    dealt = {tuple(sorted(set(GROUPS[natural(GROUPS, 2, seed)[0]]))) for seed in range(20)}
    assert len(dealt) > 5
    assert len({tuple(natural(GROUPS, seed=seed)[1]) for seed in range(20)}) > 5
    assert (natural(GROUPS, 2, 7)[0] == natural(GROUPS, 2, 7)[0]).all()


@pytest.mark.parametrize("clients", [0, 6])
def test_errors(clients):
    with pytest.raises(ValueError, match=rf"clients must be in 1\.\.5, the groups; got {clients}"):
        natural(GROUPS, clients)
