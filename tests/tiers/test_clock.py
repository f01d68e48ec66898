"""Virtual time against timetables worked out by hand."""

import numpy as np
import pytest

from eejax.tiers import Work, roofline, three_tier, transfer_seconds
from eejax.tiers.clock import Faults, Turnaround, arrivals, semi_synchronous, turnaround


def turn_of(*train_s, moving=0.0):
    n = len(train_s)
    return Turnaround(np.full(n, moving), np.array(train_s, float), np.full(n, moving))


def test_turnaround_follows_the_path_to_the_cloud():
    topology = three_tier(ends=3, edges=1)
    turn = turnaround(topology, Work(1e8, 0), np.array([1, 2, 3]), 1e6, 1e5)
    end, edge = topology.tiers[0].links, topology.tiers[1].links
    expected = transfer_seconds(end, 1e6, "down") + transfer_seconds(edge, 1e6, "down")
    np.testing.assert_allclose(turn.down_s, expected)
    expected = transfer_seconds(end, 1e5, "up") + transfer_seconds(edge, 1e5, "up")
    np.testing.assert_allclose(turn.up_s, expected)
    step = roofline(topology.tiers[0].devices, 1e8, 0)
    np.testing.assert_allclose(turn.train_s, step * [1, 2, 3])


def test_a_fast_and_a_slow_client_overtake_each_other():
    # The fast one: 2.5, 5, 7.5, 10, ...; the slow one, with transfers of 0.25 s: 9, 18.
    found = arrivals(turn_of(2, 8.5, moving=0.25), events=9, concurrency=2, seed=0)
    np.testing.assert_allclose(found.time_s, [2.5, 5, 7.5, 9, 10, 12.5, 15, 17.5, 18])
    fast = found.client[0]
    slow = 1 - fast
    assert (found.client == np.array([fast] * 3 + [slow] + [fast] * 4 + [slow])).all()
    assert found.staleness.tolist() == [0, 0, 0, 3, 1, 0, 0, 0, 4]
    assert not found.lost.any()


def test_rate_of_arrivals_is_the_sum_of_the_rates_of_the_clients():
    train_s = np.array([1.0, 2, 4, 5])
    found = arrivals(turn_of(*train_s), events=2000, concurrency=4, seed=1)
    assert 2000 / found.time_s[-1] == pytest.approx((1 / train_s).sum(), rel=0.01)
    # Someone else's arrivals during a turn of 4 s: 4 * (1 + 1/2 + 1/5).
    assert found.staleness[found.client == 2].mean() == pytest.approx(6.8, abs=0.1)


def test_slots_are_handed_over_and_no_client_is_in_two():
    found = arrivals(turn_of(*range(1, 11)), events=500, concurrency=3, seed=2)
    assert set(found.slot) == {0, 1, 2}
    assert len(set(found.client)) == 10
    started, under_way = np.zeros(3), {}
    for time_s, client, slot in zip(found.time_s, found.client, found.slot):
        assert client not in {c for s, c in under_way.items() if s != slot}
        assert time_s - started[slot] == pytest.approx(client + 1)
        started[slot] = time_s


def test_faults_come_as_often_as_said_and_change_nothing_else():
    faults = Faults(jitter=0.5, dropout=0.2, duplicate=0.1)
    found = arrivals(turn_of(*[1.0] * 8), events=4000, concurrency=4, seed=3, faults=faults)
    first = ~found.duplicate
    assert found.lost[first].mean() == pytest.approx(0.2, abs=0.02)
    assert found.duplicate.sum() / (first & ~found.lost).sum() == pytest.approx(0.1, abs=0.02)
    assert (np.diff(found.time_s) >= 0).all()
    seen = {}
    for turn, twice, lost in zip(found.turn, found.duplicate, found.lost):
        assert (turn in seen) == twice
        seen[turn] = lost
        assert not (twice and lost)
    again = arrivals(turn_of(*[1.0] * 8), events=4000, concurrency=4, seed=3, faults=faults)
    assert all((a == b).all() for a, b in zip(found, again))


def test_rounds_end_at_the_deadline_the_quorum_or_the_last_answer():
    turn = turn_of(1, 2, 30, 40)
    for deadline, quorum, seconds, arrived in (
        (5, 1, 5, 2),
        (5, 3, 30, 3),
        (50, 1, 40, 4),
        (np.inf, 1, 40, 4),
        (1.5, 1, 1.5, 1),
        (0.5, 2, 2, 2),
    ):
        found = semi_synchronous(turn, rounds=2, deadline_s=deadline, quorum=quorum)
        assert found.seconds.tolist() == [seconds] * 2
        assert found.arrived.sum(1).tolist() == [arrived] * 2


def test_lost_updates_do_not_hold_up_a_round_for_ever():
    faults = Faults(dropout=0.5)
    turn = turn_of(1, 2, 3, 4)
    found = semi_synchronous(turn, rounds=200, deadline_s=np.inf, quorum=4, seed=0, faults=faults)
    assert np.isfinite(found.seconds).all()
    assert found.arrived.mean() == pytest.approx(0.5, abs=0.05)
    # A round with all answers lasts until the last; one without any answer has no end of its own.
    assert set(found.seconds[found.arrived.all(1)]) == {4.0}
    assert set(found.seconds[~found.arrived.any(1)]) == {0.0}
    capped = semi_synchronous(turn, rounds=200, deadline_s=10, seed=0, faults=faults)
    assert set(capped.seconds[~capped.arrived.all(1)]) == {10.0}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"concurrency": 3}, "concurrency must be at most the 2 clients"),
        ({"events": 0}, "events must be a whole number of at least 1"),
        ({"faults": Faults(dropout=1.0)}, r"faults.dropout must be in \[0, 1\)"),
        ({"faults": Faults(jitter=-1)}, "faults.jitter must be >= 0"),
    ],
)
def test_wrong_numbers_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        arrivals(turn_of(1, 2), **{"events": 3, "concurrency": 2, "seed": 0} | keywords)


def test_wrong_rounds_are_named():
    with pytest.raises(ValueError, match="quorum must be at most the 2 clients"):
        semi_synchronous(turn_of(1, 2), rounds=1, deadline_s=1, quorum=3)
    with pytest.raises(ValueError, match="deadline_s must be above 0"):
        semi_synchronous(turn_of(1, 2), rounds=1, deadline_s=0)
