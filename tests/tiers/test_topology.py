"""Tiers on top of each other: paths, errors, and a million nodes."""

import dataclasses
import time

import numpy as np
import pytest

from eejax.tiers import DEVICES, LINKS, Tier, Topology, make_tier, make_topology, stack

PI, PHONE, SERVER = (DEVICES[name] for name in ("raspberry_pi_4", "phone", "edge_server"))
WIFI, LTE, WAN = (LINKS[name] for name in ("wifi", "lte_4g", "wan"))


def small():
    """Five ends on edges 0 and 2, edge 1 without children, and one cloud."""
    return make_topology(
        make_tier("end", [PI, PHONE, PI, PI, PHONE], WIFI, [0, 2, 2, 0, 2]),
        make_tier("edge", SERVER, [WAN, LTE, WAN], 0),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )


def test_nodes_and_links_of_a_tier():
    end, edge, cloud = small().tiers
    assert (end.nodes, len(edge), cloud.nodes) == (5, 3, 1)
    assert (end.device(1), end.link(1)) == (PHONE, WIFI)
    assert (edge.device(2), edge.link(1)) == (SERVER, LTE)
    assert edge.parent.tolist() == [0, 0, 0]
    assert end.parent.dtype == np.int64
    with pytest.raises(ValueError, match="tier 'cloud' is the top one"):
        cloud.link(0)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=f"tier 'end' has nodes 0 to 4, got {wrong}"):
            end.device(wrong)
        with pytest.raises(ValueError, match=f"tier 'end' has nodes 0 to 4, got {wrong}"):
            end.link(wrong)


def test_paths_ancestors_and_children_agree():
    topology = small()
    assert topology.names == ("end", "edge", "cloud")
    assert [topology.path(i) for i in range(5)] == [
        (0, 0, 0),
        (1, 2, 0),
        (2, 2, 0),
        (3, 0, 0),
        (4, 2, 0),
    ]
    for tier in range(3):
        paths = [topology.path(end)[tier] for end in range(5)]
        assert topology.ancestor(tier).tolist() == paths
    assert [topology.children("edge", i).tolist() for i in range(3)] == [[0, 3], [], [1, 2, 4]]
    assert topology.children("cloud", 0).tolist() == [0, 1, 2]
    assert topology.children("end", 0).tolist() == []


def test_one_tier_or_five_are_fine():
    alone = make_topology(make_tier("robot", PI))
    assert alone.path(0) == (0,)
    assert alone.ancestor("robot").tolist() == [0]
    levels = [make_tier(f"level{i}", PI, WIFI, 0) for i in range(4)]
    tower = make_topology(*levels, make_tier("top", PI))
    assert tower.path(0) == (0, 0, 0, 0, 0)
    assert tower.tier_index("level3") == tower.tier_index(3) == 3


def test_unknown_tiers_and_nodes():
    topology = small()
    with pytest.raises(
        ValueError, match="tier 'egde' is none of end, edge, cloud; did you mean 'e"
    ):
        topology.tier_index("egde")
    with pytest.raises(ValueError, match=r"tier 'fog' is none of end, edge, cloud$"):
        topology.ancestor("fog")
    with pytest.raises(ValueError, match=r"tier index must be in \[0, 3\), got 3"):
        topology.children(3, 0)
    with pytest.raises(ValueError, match="tier 'edge' has nodes 0 to 2, got 3"):
        topology.children("edge", 3)
    with pytest.raises(ValueError, match="tier 'end' has nodes 0 to 4, got -1"):
        topology.path(-1)


def test_equality_and_immutability():
    topology = small()
    assert topology == small()
    moved = dataclasses.replace(topology.tiers[0], parent=np.array([0, 2, 2, 0, 1]))
    assert topology != make_topology(moved, *topology.tiers[1:])
    with pytest.raises(ValueError, match="read-only"):
        topology.tiers[0].parent[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        topology.tiers = ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name must be a string, not empty, got ''"),
        ({"parent": None}, "parent must be given with links"),
        ({"links": None}, "links must be given with parent"),
        ({"parent": [0, 0, 0]}, "links hold 2 nodes where 3 are expected|devices holds 2"),
        ({"parent": [0.0, 1.0]}, "parent must be 2 node indices"),
        ({"parent": True}, "parent must be 2 node indices"),
        ({"links": [WIFI, WIFI, WIFI]}, "devices holds 2 nodes where 3 are expected"),
        ({"nodes": 3}, "devices holds 2 nodes where 3 are expected"),
        ({"nodes": 0}, "nodes must be an integer >= 1, got 0"),
        ({"nodes": 2.0}, "nodes must be an integer >= 1, got 2.0"),
        ({"devices": [WIFI, WIFI]}, r"devices must be a Device with fields \[nodes\]"),
    ],
)
def test_make_tier_names_what_is_wrong(arguments, message):
    good = {"name": "end", "devices": [PI, PHONE], "links": WIFI, "parent": 0}
    with pytest.raises(ValueError, match=message):
        make_tier(**(good | arguments))


def test_tier_wants_arrays():
    with pytest.raises(ValueError, match=r"devices must be a Device with fields \[nodes\].*make_t"):
        Tier("end", PI)
    with pytest.raises(ValueError, match="links hold 1 nodes, devices 2"):
        Tier("end", stack([PI, PI]), stack([WIFI]), np.zeros(2, int))
    with pytest.raises(ValueError, match="parent must be 1 node indices"):
        Tier("end", stack([PI]), stack([WIFI]), np.zeros(2, int))


CLOUD = make_tier("cloud", PI)


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "tiers must hold at least one tier"),
        ([PI], r"tiers\[0\] must be a Tier"),
        (
            [make_tier("end", PI), CLOUD],
            r"tiers\[0\].links and parent must be given: without them 'end' has no path to 'cloud'",
        ),
        ([make_tier("end", PI, WIFI, 0)], r"tiers\[0\].links must be None: no tier is above"),
        (
            [make_tier("end", PI, WIFI, [0, 0, 1]), CLOUD],
            r"tiers\[0\].parent\[2\] must be in \[0, 1\), the nodes of 'cloud', got 1",
        ),
        ([make_tier("end", PI, WIFI, -1), CLOUD], r"tiers\[0\].parent\[0\] .*, got -1"),
        ([make_tier("cloud", PI, WIFI, 0), CLOUD], r"tiers\[1\].name 'cloud' is used by a tier b"),
    ],
)
def test_topology_names_what_is_wrong(tiers, message):
    with pytest.raises(ValueError, match=message):
        Topology(tuple(tiers))


def test_a_million_end_devices_are_a_handful_of_arrays():
    ends, edges = 1_000_000, 1000
    speeds = np.linspace(1e9, 2e9, ends)
    start = time.perf_counter()
    topology = make_topology(
        make_tier(
            "end", dataclasses.replace(PI, flops_per_s=speeds), WIFI, np.arange(ends) % edges
        ),
        make_tier("edge", SERVER, WAN, 0, nodes=edges),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )
    children = topology.children("edge", 7)
    ancestors = topology.ancestor("edge")
    seconds = time.perf_counter() - start
    assert seconds < 1.0
    assert topology.tiers[0].device(ends - 1).flops_per_s == 2e9
    assert children.tolist() == list(range(7, ends, edges))
    assert ancestors[:3].tolist() == [0, 1, 2]
