"""Seats of clients at edge servers."""

import numpy as np
import pytest

from eejax.cotrain import rows_of
from eejax.data import pack
from eejax.tiers import three_tier


def test_clients_sit_at_the_edge_of_their_device():
    parts = [np.arange(10 * c, 10 * c + c + 1) for c in range(5)]
    rows = rows_of(three_tier(ends=5, edges=2), pack(parts))
    assert rows.ids.tolist() == [[0, 1, 2], [3, 4, -1]]
    assert rows.counts.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert rows.table[1, 0, :4].tolist() == [30, 31, 32, 33]


def test_clients_and_devices_must_be_as_many():
    with pytest.raises(ValueError, match="3 clients cannot sit at 5 end devices"):
        rows_of(three_tier(ends=5, edges=2), pack([np.arange(2)] * 3))
