"""Levels of a topology, where they can be worked out by hand."""

import dataclasses

import pytest

from eejax.cotrain.hybrid import Level, levels_of, plan, text_model
from eejax.cotrain.tensor import Shape
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier


def link(up, down):
    return dataclasses.replace(LINKS["lan"], bandwidth_up_bps=up, bandwidth_down_bps=down)


def two_by_three(end_links, edge_links, parent=(0, 0, 0, 1, 1, 1)):
    kinds = [DEVICES["phone"], *[DEVICES["jetson_nano"]] * 5]
    return make_topology(
        make_tier("end", kinds, end_links, parent),
        make_tier("edge", DEVICES["edge_server"], edge_links, 0, 2),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )


def test_the_slowest_stand_for_all():
    links = [link(8e9, 8e9), *[link(16e9, 4e9)] * 5]
    levels, flops, memory = levels_of(two_by_three(links, link(9e8, 6e8)))
    # A link of 6e8 bit/s is shared by three.
    assert levels == {"edge": Level(2, 2.5e7), "end": Level(3, 5e8)}
    assert list(levels) == ["edge", "end"]
    assert flops == min(DEVICES[name].flops_per_s for name in ("phone", "jetson_nano"))
    assert memory == min(DEVICES[name].memory_bytes for name in ("phone", "jetson_nano"))


def test_fast_links_above_carry_no_more_than_those_below():
    levels, *_ = levels_of(two_by_three(link(8e6, 8e6), link(8e9, 8e9)))
    assert levels == {"edge": Level(2, 1e6), "end": Level(3, 1e6)}


def test_one_node_is_one_device():
    levels, *_ = levels_of(make_topology(make_tier("end", DEVICES["phone"])))
    assert levels["end"].devices == 1


def test_irregular_topologies_are_named():
    uneven = two_by_three(link(1e6, 1e6), link(1e6, 1e6), (0, 0, 0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"tier 'end' is no regular grid.*'edge' have from 2 to 4"):
        levels_of(uneven)
    alone = make_topology(make_tier("cloud", DEVICES["cloud_gpu"], nodes=2))
    with pytest.raises(ValueError, match="tier 'cloud' at the top has 2 nodes"):
        levels_of(alone)


def test_a_plan_of_a_topology_names_its_tiers():
    levels, flops, memory = levels_of(three_tier(ends=4, edges=2))
    model = text_model(32, Shape(16, 32, 4, 4, seq=8, layers=4, causal=True))
    best = plan(model, 256, levels, flops_per_s=flops, memory_bytes=memory)[0]
    assert best.hybrid.devices == 4
    assert set(best.nbytes) == {"edge", "end"}
