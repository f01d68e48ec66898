"""Slots, messages and phases that the executor reads: by hand, and as few as can be."""

import numpy as np
import pytest

from eejax.cotrain.pipeline import SCHEDULES, fused, gpipe, interleaved, one_f_one_b
from eejax.cotrain.pipeline.plan import assign_slots, make_plan


def test_slots_never_collide_and_are_as_few_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = rng.integers(0, 20, 15)
        intervals = [(int(s), int(s + d)) for s, d in zip(starts, rng.integers(1, 9, 15))]
        slots = assign_slots(intervals)
        for i, (a, b) in enumerate(intervals):
            for j, (c, d) in enumerate(intervals[:i]):
                assert slots[i] != slots[j] or b <= c or d <= a
        depth = max(sum(a <= t < b for a, b in intervals) for t in range(30))
        assert max(slots) + 1 == depth
    assert assign_slots([]) == []


@pytest.mark.parametrize("M", [8, 32])
def test_room_does_not_depend_on_the_number_of_microbatches(M):
    S = 4
    # Stage 0 reads the inputs; stage 1 holds most of what arrives.
    assert make_plan(one_f_one_b(S, M), True)[2:5] == (S - 1, 1, 0)
    assert make_plan(fused(S, M), True)[2:5] == (2 * (S - 2) + 1, 1, 0)
    # Residuals are held by stage 0, too, and what arrives is used at once.
    assert make_plan(one_f_one_b(S, M), False)[2:5] == (1, 1, S)
    assert make_plan(fused(S, M), False)[2:5] == (1, 1, 2 * (S - 1) + 1)
    assert make_plan(gpipe(S, M), True)[2:5] == (M, 1, 0)


def test_gpipe_has_two_phases_with_half_the_code_each():
    first, second = make_plan(gpipe(3, 4), True).phases
    assert (first.start, first.stop, second.start, second.stop) == (0, 6, 6, 12)
    assert [tuple(step) for step in first.steps] == [(True, False, ((0, 1), (1, 2)), ())]
    assert [tuple(step) for step in second.steps] == [(False, True, (), ((1, 0), (2, 1)))]


def test_one_f_one_b_alternates_senders():
    (phase,) = make_plan(one_f_one_b(4, 8), True).phases
    even, odd = phase.steps
    assert (even.activations, even.gradients) == (((0, 1), (2, 3)), ((1, 0), (3, 2)))
    assert (odd.activations, odd.gradients) == (((1, 2),), ((2, 1),))


def test_chunks_close_the_ring_only_while_one_follows():
    """Of a turn of 6 ticks, the last device sends to the first in 3, and the first back in 3."""
    fill, turns = make_plan(interleaved(3, 6, chunks=2), True).phases
    assert (fill.start, fill.stop, turns.start, turns.stop) == (0, 1, 1, 19)
    assert [tuple(step) for step in fill.steps] == [(True, False, ((0, 1),), ())]
    forward, backward = ((0, 1), (1, 2)), ((1, 0), (2, 1))
    assert [step.activations == (*forward, (2, 0)) for step in turns.steps] == [0, 1, 1, 1, 0, 0]
    assert [step.gradients == ((0, 2), *backward) for step in turns.steps] == [1, 1, 1, 0, 0, 0]
    assert {step.activations for step in turns.steps} == {forward, (*forward, (2, 0))}
    assert {step.gradients for step in turns.steps} == {backward, ((0, 2), *backward)}


def messages(plan):
    """Of all devices, in the whole program."""
    return sum(
        (phase.stop - phase.start) // len(phase.steps) * len(step.activations + step.gradients)
        for phase in plan.phases
        for step in phase.steps
    )


@pytest.mark.parametrize("v", [2, 3, 4])
@pytest.mark.parametrize(("S", "M"), [(2, 2), (2, 8), (3, 6), (4, 8), (4, 32), (4, 64), (8, 16)])
def test_messages_of_chunks(S, M, v):
    ratio = messages(make_plan(interleaved(S, M, chunks=v), True)) / (2 * M * (v * S - 1))
    if M >= 2 * S:
        expected = 1 + S / M + (S - 2) ** 2 / (2 * M * (v * S - 1))
        assert ratio == pytest.approx(expected, rel=1e-12)
    assert ratio <= (M + 2 * S - 2) / M
    if (S, M, v) == (4, 32, 2):
        assert messages(make_plan(interleaved(S, M, chunks=v), True)) == 508  # Of 448 needed.


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_read_was_written_for_it(name, recompute):
    """Replays the slots with names in them instead of arrays."""
    schedule = SCHEDULES[name](4, 8)
    plan, rows = make_plan(schedule, recompute), make_plan(schedule, recompute).rows
    depth = schedule.chunks * 4
    xs, dys, saved = ([{} for _ in range(4)] for _ in range(3))
    for t in range(schedule.ticks):
        step_of = next(p for p in plan.phases if p.start <= t < p.stop)
        step = step_of.steps[(t - step_of.start) % len(step_of.steps)]
        sent = {}
        for s in range(4):
            row = {name: getattr(rows, name)[t, s] for name in rows._fields[:-1]}
            m, k = schedule.forward[t, s], schedule.forward_chunk[t, s] * 4 + s
            if row["forward"] >= 0:
                assert step.forward
                assert k == 0 or xs[s][row["forward_input"]] == (m, k)
                saved[s][row["forward_saved"]] = (m, k)
                sent["x", (s + 1) % 4] = (m, k + 1)
            m, k = schedule.backward[t, s], schedule.backward_chunk[t, s] * 4 + s
            if m >= 0:
                assert step.backward
                assert k == 0 or not recompute or xs[s][row["backward_input"]] == (m, k)
                assert recompute or saved[s][row["backward_saved"]] == (m, k)
                assert k == depth - 1 or dys[s][row["backward_gradient"]] == (m, k)
                sent["dy", (s - 1) % 4] = (m, k - 1)
        for s in range(4):
            for kind, ring, slot, pairs in (
                ("x", xs, rows.arriving_input[t, s], step.activations),
                ("dy", dys, rows.arriving_gradient[t, s], step.gradients),
            ):
                if slot >= 0:
                    assert s in [to for _, to in pairs]
                    ring[s][slot] = sent[kind, s]
