"""Counts in closed form, against the formulas of the papers as they stand."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor import layout, lower_bound, theory

T, H, F = 1024, 128, 512


def mlp(scheme, **sizes):
    """Elements of the perceptron without biases, forward and backward."""
    lo = layout(scheme)
    up = theory.linear(lo.up, sizes, T, H, F, bias=False)
    return up.total + theory.linear(lo.down, sizes, T, F, H, bias=False).total


@pytest.mark.parametrize("n", [2, 8, 64])
def test_closed_forms_in_one_dimension(n):
    assert mlp("1d", t=n) == pytest.approx(4 * (n - 1) / n * T * H)
    assert mlp("1d_sp", t=n) == pytest.approx(4 * (n - 1) / n * T * H)
    assert mlp("fsdp", d=n) == pytest.approx(2 * (n - 1) / n * 2 * H * F)
    assert mlp("dp", d=n) == pytest.approx(2 * (n - 1) / n * 2 * H * F)


@pytest.mark.parametrize("q", [2, 4, 8])
def test_closed_forms_in_more_dimensions(q):
    both = T * (H + F)
    assert mlp("2d", r=q, c=q) == pytest.approx(2 * (q - 1) / q**2 * (both + 2 * H * F))
    d = 4
    tesseract = 2 * (q - 1) / q**2 * (both / d + 2 * H * F) + 2 * (d - 1) / d * 2 * H * F / q**2
    assert mlp("2.5d", d=d, r=q, c=q) == pytest.approx(tesseract)
    assert mlp("3d", i=q, j=q, l=q) == pytest.approx(4 * (q - 1) / q**3 * (both + H * F))
    p, (r, c) = 2 * q * q, (2 * q, q)
    ours = 2 * ((c - 1) / p * 2 * T * H + (r - 1) / p * 2 * H * F)
    assert mlp("2d_opt", r=r, c=c) == pytest.approx(ours)


def test_2d_opt_holds_its_special_cases():
    assert mlp("2d_opt", r=8, c=1) == mlp("fsdp", d=8)
    assert mlp("2d_opt", r=1, c=8) == mlp("1d_sp", t=8)
    best = min(
        ((r, 64 // r) for r in (1, 2, 4, 8, 16, 32, 64)),
        key=lambda g: mlp("2d_opt", r=g[0], c=g[1]),
    )
    assert best not in ((64, 1), (1, 64))


def test_lower_bound_in_its_three_ranges():
    # Long and thin: every device needs the small matrix, 8 x 4, less its share.
    assert lower_bound(1000, 8, 4, 2) == pytest.approx(8 * 4 - 8 * 4 / 2)
    # Between: 2 sqrt(mnk^2/p) + mn/p less what is there.
    assert lower_bound(64, 64, 8, 16) == pytest.approx(2 * (64 * 64 * 64 / 16) ** 0.5 - 1024 / 16)
    # Cubes on a cube of devices: 3 n^2/p^(2/3) - 3 n^2/p.
    assert lower_bound(64, 64, 64, 64) == pytest.approx(3 * 64**2 * (1 / 16 - 1 / 64))
    assert lower_bound(64, 64, 64, 1) == 0


def test_memory_of_a_device():
    lo, sizes = layout("2.5d"), {"d": 2, "r": 2, "c": 4}
    tree = {
        "w": jax.ShapeDtypeStruct((16, 32), "float32"),
        "b": jax.ShapeDtypeStruct((32,), "int8"),
    }
    assert theory.local_size(tree, {"w": lo.w_up, "b": lo.up.b}, sizes) == 16 * 32 // 8 + 32 // 4
    assert theory.local_size(tree, {"w": P(None, None), "b": P()}, sizes) == 16 * 32 + 32
    assert theory.layer_input(lo, sizes, T, H) == T * H // 16
