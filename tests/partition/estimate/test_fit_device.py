"""A device fitted to layers that were timed on it."""

import dataclasses

import numpy as np
import pytest

from eejax.partition.estimate import errors, fit_device
from eejax.tiers import DEVICES, roofline

TRUE = dataclasses.replace(
    DEVICES["phone"], flops_per_s=5e9, memory_bandwidth_bytes_per_s=2e9, overhead_s=2e-5
)
RNG = np.random.default_rng(0)
FLOPS = 10 ** RNG.uniform(4, 9, 80)
MOVED = 10 ** RNG.uniform(4, 8, 80)


def test_the_three_numbers_are_found():
    fitted, held = fit_device(DEVICES["phone"], FLOPS, MOVED, roofline(TRUE, FLOPS, MOVED))
    for field in ("flops_per_s", "memory_bandwidth_bytes_per_s", "overhead_s"):
        assert getattr(fitted, field) == pytest.approx(getattr(TRUE, field), rel=0.01), field
    assert fitted.busy_w == TRUE.busy_w
    assert fitted.source.endswith("; fitted to 80 measured layers")
    assert held.p90 < 0.01
    assert held.samples == 80


def test_noise_is_in_the_errors():
    noisy = roofline(TRUE, FLOPS, MOVED) * np.exp(RNG.normal(0, 0.3, 80))
    fitted, held = fit_device(DEVICES["phone"], FLOPS, MOVED, noisy)
    assert fitted.flops_per_s == pytest.approx(5e9, rel=0.2)
    assert 0.1 < held.median < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": np.zeros(80)}, "seconds > 0"),
        ({"flops": np.zeros(80), "bytes_moved": np.zeros(80)}, "must have FLOP or bytes"),
        ({"seconds": np.ones(79)}, r"\[layers\]"),
        ({"folds": 81}, r"folds must be in \[2, 80\], the number of samples, got 81"),
    ],
)
def test_errors_name_the_argument(change, message):
    given = {"flops": FLOPS, "bytes_moved": MOVED, "seconds": np.ones(80)} | change
    with pytest.raises(ValueError, match=message):
        fit_device(DEVICES["phone"], **given)


def test_relative_errors_by_hand():
    # 0.1, 0, 0.5; in sum 5.1 of 7.
    found = errors([1.1, 2.0, 2.0], [1.0, 2.0, 4.0])
    assert found == pytest.approx((0.1, 0.42, 1.9 / 7, 3))
    with pytest.raises(ValueError, match="measured must be > 0"):
        errors([1.0], [0.0])
    with pytest.raises(ValueError, match="one shape, not empty"):
        errors([1.0], [1.0, 2.0])
