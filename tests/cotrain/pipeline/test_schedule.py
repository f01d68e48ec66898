"""Schedules against the formulas of their papers, tables by hand, and what `check` refuses."""

from itertools import pairwise

import numpy as np
import pytest

from eejax.cotrain.pipeline import (
    SCHEDULES,
    bubble,
    check,
    fused,
    gpipe,
    interleaved,
    one_f_one_b,
    pipedream,
    stash,
    timeline,
    times,
)

SIZES = pytest.mark.parametrize(
    ("S", "M"), [(1, 1), (1, 5), (2, 1), (4, 4), (4, 16), (3, 7), (8, 32)]
)


@SIZES
@pytest.mark.parametrize("make", [gpipe, one_f_one_b, fused, pipedream])
@pytest.mark.parametrize("cost", [(1, 2), (1, 1), (2, 5)])
def test_bubble_is_the_formula(make, S, M, cost):
    assert bubble(make(S, M), *cost) == pytest.approx((S - 1) / (M + S - 1), abs=1e-12)


@SIZES
@pytest.mark.parametrize("make", [gpipe, fused])
def test_lockstep_costs_nothing_more(make, S, M):
    assert bubble(make(S, M), lockstep=True) == pytest.approx((S - 1) / (M + S - 1), abs=1e-12)


def test_lockstep_costs_one_f_one_b_a_third():
    """A forward waits for the backward of its neighbour: 38 ticks, in the middle of 2 each."""
    assert bubble(one_f_one_b(4, 16), lockstep=True) == pytest.approx(1 / 3)
    # In the limit a stage works 3 of 4 units.
    assert bubble(one_f_one_b(2, 1000), lockstep=True) == pytest.approx(1 / 4, abs=1e-3)


@pytest.mark.parametrize(("S", "M", "v"), [(4, 8, 2), (4, 4, 3), (2, 6, 2), (3, 6, 4), (1, 3, 2)])
@pytest.mark.parametrize("lockstep", [False, True])
def test_interleaving_divides_the_bubble(S, M, v, lockstep):
    schedule = interleaved(S, M, chunks=v)
    formula = (S - 1) / (v * M + S - 1)
    assert bubble(schedule, lockstep=lockstep) == pytest.approx(formula, abs=1e-12)
    assert schedule.ticks == v * M + v * S + S - 2
    # Megatron: warm-up forwards 2 (S - 1 - s) + (v - 1) S, and one more.
    expected = [min(2 * (S - 1 - s) + (v - 1) * S + 1, v * M) for s in range(S)]
    assert stash(schedule) == expected


def test_one_chunk_is_fused():
    one, other = interleaved(4, 8, chunks=1), fused(4, 8)
    for a, b in zip(one[1:5], other[1:5]):
        np.testing.assert_array_equal(a, b)


@SIZES
def test_stash_and_ticks(S, M):
    stages = range(S)
    assert stash(gpipe(S, M)) == [M] * S
    assert stash(one_f_one_b(S, M)) == [min(S - s, M) for s in stages]
    assert stash(fused(S, M)) == [min(2 * (S - 1 - s) + 1, M) for s in stages]
    assert gpipe(S, M).ticks == one_f_one_b(S, M).ticks == 2 * (M + S - 1)
    assert fused(S, M).ticks == M + 2 * S - 2


def test_one_f_one_b_by_hand():
    schedule = one_f_one_b(2, 3)
    assert schedule.forward.T.tolist() == [
        [0, -1, 1, -1, 2, -1, -1, -1],
        [-1, 0, -1, 1, -1, 2, -1, -1],
    ]
    assert schedule.backward.T.tolist() == [
        [-1, -1, -1, 0, -1, 1, -1, 2],
        [-1, -1, 0, -1, 1, -1, 2, -1],
    ]
    forward, backward = times(schedule)
    assert forward.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert backward.tolist() == [[3, 2], [5, 4], [7, 6]]


def test_pipedream_has_no_bubble_in_the_long_run():
    assert bubble(pipedream(4, 3000)) < 1e-3
    assert pipedream(4, 8).name == "pipedream"


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_timeline_keeps_every_dependency(name, lockstep):
    schedule = SCHEDULES[name](4, 8)
    tasks = timeline(schedule, 1, 2, lockstep=lockstep)
    depth = schedule.chunks * 4
    assert len(tasks) == 2 * 8 * depth
    at = {(t.kind, t.microbatch, t.chunk * 4 + t.stage): t for t in tasks}
    for (kind, m, k), task in at.items():
        before = (kind, m, k - 1 if kind == "forward" else k + 1)
        needs = at.get(before, at["forward", m, k] if kind == "backward" else None)
        assert needs is None or needs.end <= task.start
    for s in range(4):
        own = sorted((t.start, t.end) for t in tasks if t.stage == s)
        assert all(a[1] <= b[0] for a, b in pairwise(own))


def broken(name, kind, tick, stage, value):
    schedule = SCHEDULES[name](3, 4)
    table = getattr(schedule, kind).copy()
    table[tick, stage] = value
    return schedule._replace(**{kind: table})


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            broken("gpipe", "forward", 0, 0, -1),
            "gpipe: the forward of micro-batch 0 at stage 0 runs 0",
        ),
        (broken("gpipe", "forward", 0, 0, 1), "micro-batch 0 at stage 0 runs 0 times, not once"),
        (broken("fused", "backward", 7, 2, 3), "backward of micro-batch 3 at stage 2 runs 2 times"),
        (
            gpipe(2, 2)._replace(forward=gpipe(2, 2).forward[:, ::-1]),
            "forward of micro-batch 0 at stage 1 .* tick 0, but needs what stage 0 runs in tick 1",
        ),
        (
            gpipe(2, 2)._replace(backward=gpipe(2, 2).backward[:, ::-1]),
            "backward of micro-batch 0 at stage 0 .* tick 3, but needs what stage 1 runs in tick 4",
        ),
        (
            fused(1, 3)._replace(forward=fused(1, 3).forward[::-1]),
            "backward of micro-batch 0 at stage 0 runs in tick 0, before its forward in tick 2",
        ),
    ],
)
def test_check_names_the_broken_dependency(schedule, message):
    with pytest.raises(ValueError, match=message):
        check(schedule)


@pytest.mark.parametrize("make", [gpipe, one_f_one_b, fused, interleaved, pipedream])
def test_numbers_are_checked(make):
    with pytest.raises(ValueError, match="stages must be at least 1, got 0"):
        make(0, 4)
    with pytest.raises(ValueError, match="microbatches must be at least 1, got -1"):
        make(4, -1)


def test_interleaving_names_the_next_number_of_microbatches():
    with pytest.raises(ValueError, match="multiple of the 4 stages, got 6; the next is 8"):
        interleaved(4, 6)
    with pytest.raises(ValueError, match="chunks must be at least 1, got 0"):
        interleaved(4, 8, chunks=0)
