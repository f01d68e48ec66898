"""Three columns of savings, from counts worked out by hand."""

import pytest

from eejax.coinfer import executed_saving, hindsight_saving, measure_seconds
from eejax.coinfer import saving as saving_module


def test_hindsight_counts_samples_and_executed_counts_rows():
    flops = [1, 3, 6]
    # 100 * 1 + 40 * 3 + 10 * 6 = 280 of 1000.
    assert hindsight_saving([100, 40, 10], flops) == pytest.approx(0.72)
    # 128 * 1 + 64 * 3 + 32 * 6 = 512 of 1280.
    # 128 * 1 + 64 * 3 + 32 * 6 = 512 of the 1000 of 100 samples, and 1280 of them.
    assert executed_saving([128, 64, 32], flops, n=100) == pytest.approx(0.488)
    assert executed_saving([128, 128, 128], flops, n=100) == pytest.approx(-0.28)


def test_against_a_model_without_early_heads_exits_can_cost_more_than_they_save():
    # Heads make 10 of 8: 280 of 800, and 1000 of 800.
    assert hindsight_saving([100, 40, 10], [1, 3, 6], full=8) == pytest.approx(0.65)
    assert hindsight_saving([100, 100, 100], [1, 3, 6], full=8) == pytest.approx(-0.25)


def test_a_wrong_number_of_stages_is_named():
    with pytest.raises(ValueError, match="flops must have one entry for each of 3 stages"):
        hindsight_saving([3, 2, 1], [1, 2])


def test_seconds_are_medians_and_the_ratio_is_paired(monkeypatch):
    # Warm-up of both, then pairs of 1 and 2, 2 and 2, 3 and 12 seconds.
    ticks = iter([0, 99, 0, 99] + [t for a, b in [(1, 2), (2, 2), (3, 12)] for t in (0, a, 0, b)])
    monkeypatch.setattr(saving_module.time, "perf_counter", lambda: next(ticks))
    calls = []
    seconds = measure_seconds(lambda: calls.append("c"), lambda: calls.append("f"), repeats=3)
    assert seconds == (2, 2, 0.5)
    assert calls == ["c", "f"] * 4
