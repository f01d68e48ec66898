"""Batch allocation: exact against every split, and what it saves."""

import itertools

import numpy as np
import pytest

from eejax.cotrain.replica import (
    allocate,
    allocation,
    equal,
    measure_speed,
    samples_that_fit,
    step_seconds,
)
from eejax.tiers import DEVICES, roofline, stack


@pytest.mark.parametrize("seed", range(20))
def test_no_split_is_faster(seed):
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.2, 3, 3)
    o = rng.uniform(0, 2, 3) * (seed % 2)
    caps = rng.integers(4, 9, 3) if seed % 3 else None
    b = allocate(s, 11, overhead_s=o, max_samples=caps)
    assert b.sum() == 11
    assert b.min() >= 0
    assert caps is None or (b <= caps).all()
    splits = [c for c in itertools.product(range(12), repeat=3) if sum(c) == 11]
    splits = [c for c in splits if caps is None or (np.array(c) <= caps).all()]
    best = min(step_seconds(c, s, o).max() for c in splits)
    assert step_seconds(b, s, o).max() == pytest.approx(best)


def test_by_hand():
    assert allocate([1.0, 1.0, 1.0, 1.0], 8).tolist() == [2, 2, 2, 2]
    assert allocate([1.0, 3.0], 4).tolist() == [3, 1]
    assert allocate([1.0, 3.0], 4, max_samples=[2, 9]).tolist() == [2, 2]
    # The second node is not worth its start.
    assert allocate([1.0, 1.0], 4, overhead_s=[0, 10]).tolist() == [4, 0]
    assert allocate([1.0], 0).tolist() == [0]


def test_large_batches_and_equal_speeds():
    b = allocate(np.ones(1000), 10_000_500)
    assert b.sum() == 10_000_500
    assert b.max() - b.min() == 1
    s = np.random.default_rng(0).uniform(0.001, 1, 1000)
    b = allocate(s, 1_000_000)
    bound = 1_000_000 / (1 / s).sum()  # Without whole numbers.
    assert bound <= step_seconds(b, s).max() <= bound + s.max()


def test_two_devices_of_the_presets():
    """Modelled speed of one sample: the work is bound by compute on both."""
    devices = stack([DEVICES["raspberry_pi_4"], DEVICES["edge_server"]])
    seconds = roofline(devices, 1e9, 1e3) - devices.overhead_s
    b = allocate(seconds, 1000, overhead_s=devices.overhead_s)
    times, slow = (step_seconds(x, seconds, devices.overhead_s) for x in (b, equal(1000, 2)))
    assert times.max() < slow.max() / 1.9
    ideal = (1000 + (devices.overhead_s / seconds).sum()) / (1 / seconds).sum()
    assert times.max() - ideal <= seconds.max()


def test_memory_bounds():
    assert samples_that_fit([1e3, 10], fixed_bytes=100, bytes_per_sample=100).tolist() == [9, 0]
    assert allocate([1.0, 1.0], 9, max_samples=[9, 0]).tolist() == [9, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate([1.0, 0.0], 4), "seconds_per_sample must be .* > 0"),
        (lambda: allocate([[1.0]], 4), r"seconds_per_sample must be \[nodes\]"),
        (lambda: allocate([1.0], 4, overhead_s=-1), "overhead_s must be >= 0"),
        (lambda: allocate([1.0], 4, max_samples=[3]), r"fit into max_samples \[3\], got 4"),
        (lambda: allocate([1.0], -1), "batch must be >= 0"),
        (lambda: measure_speed(len, sizes=(4, 4)), "two different batch sizes"),
    ],
)
def test_errors_name_the_field(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def fake_clock(monkeypatch, seconds):
    """A step of b samples takes seconds(b, call) on a clock that the test turns."""
    now, calls = [0.0], [0]

    def step(samples):
        calls[0] += 1
        now[0] += seconds(samples, calls[0])

    monkeypatch.setattr(allocation.time, "perf_counter", lambda: now[0])
    return step


def test_measured_speed_is_a_line_through_the_best_times(monkeypatch):
    # The first call of each size compiles, and every second is disturbed.
    step = fake_clock(monkeypatch, lambda b, n: 0.5 + 0.25 * b + (n % 2) * 7)
    speed = measure_speed(step, sizes=(4, 16, 64))
    assert speed == pytest.approx((0.5, 0.25))


def test_measured_speed_refuses_noise(monkeypatch):
    step = fake_clock(monkeypatch, lambda b, n: 1.0)
    with pytest.raises(ValueError, match="too small to measure"):
        measure_speed(step)
