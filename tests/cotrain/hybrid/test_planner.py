"""What is chosen, what is refused, and why, where it can be worked out by hand."""

import pytest

from eejax.cotrain import tensor
from eejax.cotrain.hybrid import Level, nbytes, plan, text_model

V, SHAPE, TOKENS = 256, tensor.Shape(64, 256, 8, 8, seq=32, layers=4, causal=True), 2048
MODEL = text_model(V, SHAPE)
LEVELS = {"cloud": Level(2, 1e8), "edge": Level(2, 1e9), "end": Level(2, 1e10)}
NODE = {"flops_per_s": 1e12, "memory_bytes": 1e12}


def test_plan_uses_all_devices_and_sorts_by_time():
    found = plan(MODEL, TOKENS, LEVELS, **NODE)
    assert {c.hybrid.devices for c in found} == {8}
    usable = [c for c in found if not c.reason]
    assert found[: len(usable)] == usable
    times = [c.total_seconds for c in usable]
    assert times == sorted(times)
    assert {c.hybrid.scheme for c in usable} == set(tensor.SCHEMES) - {"dp"}
    refused = [c for c in found if c.bound == "shape"]
    assert all("cannot be" in c.reason or "must be" in c.reason for c in refused)
    assert any(c.hybrid.stages == 8 and "layers=4" in c.reason for c in refused)
    for c in usable[::50]:
        assert c.nbytes == nbytes(c.hybrid, MODEL, TOKENS, c.tiers)
        assert c.bound == max(c.seconds, key=c.seconds.get)


def test_what_does_not_fit_says_so():
    free = plan(MODEL, TOKENS, LEVELS, **NODE)
    limit = sorted(c.memory_bytes for c in free if not c.reason)[10]
    tight = plan(MODEL, TOKENS, LEVELS, flops_per_s=1e12, memory_bytes=limit)
    usable = [c for c in tight if not c.reason]
    pruned = [c for c in tight if c.bound == "memory"]
    assert usable
    assert pruned
    assert max(c.memory_bytes for c in usable) <= limit < min(c.memory_bytes for c in pruned)
    assert "bytes of memory" in pruned[0].reason
    assert pruned[0].total_seconds == float("inf")


def test_bound_names_what_hurts():
    def best(cloud, **options):
        levels = {"cloud": Level(2, cloud)}
        return plan(MODEL, TOKENS, levels, **(NODE | options), schedules=("gpipe",))[0]

    assert best(1e5).bound == "link:cloud"
    assert best(1e15, flops_per_s=1e9).bound == "compute"
    # Two stages and one micro-batch: half of the time each waits for the other.
    levels = {"cloud": Level(4, 1e15)}
    only = {"schemes": ("serial",), "schedules": ("gpipe",), "microbatches": (1,)}
    (slow,) = [c for c in plan(MODEL, TOKENS, levels, **NODE, **only) if c.hybrid.stages == 4]
    assert slow.bound == "bubble"


def test_time_of_one_device_is_its_flop():
    (one,) = plan(
        MODEL, TOKENS, {"end": Level(1, 1e9)}, **NODE, schemes=("serial",), microbatches=(1,)
    )
    h = SHAPE.hidden
    layer = 12 * h * h + 2 * SHAPE.seq * h
    # Forward, backward, and the forward again.
    flop = 2 * TOKENS * (3 * h * V + 4 * 3 * layer)
    assert one.seconds == {"compute": flop / 1e12, "bubble": 0, "link:end": 0}


def test_links_of_an_axis_are_the_slowest_it_crosses():
    found = [c for c in plan(MODEL, TOKENS, LEVELS, **NODE) if not c.reason]
    for c in found:
        data, stages, grid = c.hybrid.data, c.hybrid.stages, c.hybrid.devices
        grid //= data * stages
        place = {axis: tier for tier, axes in c.tiers.items() for axis in axes}
        if (data, stages, grid) == (2, 2, 2):
            assert sorted((place["data"], place["stage"])) == ["cloud", "edge"]
            assert place["tensor"] == "end"
        if grid == 4:
            assert place["tensor"] == "edge"
        if grid == 8:
            assert place["tensor"] == "cloud"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops_per_s": 0.0}, "flops_per_s must be above 0"),
        ({"levels": {}}, "at least one tier"),
        ({"levels": {"end": Level(0, 1.0)}}, r"levels\['end'\].devices"),
        ({"levels": {"end": Level(1, 0.0)}}, r"levels\['end'\].bytes_per_s"),
        ({"schemes": ("2e",)}, "did you mean"),
        ({"schedules": ("fuse",)}, "did you mean 'fused'"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    options = {"levels": LEVELS} | NODE | change
    with pytest.raises(ValueError, match=message):
        plan(MODEL, TOKENS, **options)
