"""Topologies as data: round trips, TOML, presets with overrides, errors with paths."""

import copy
import dataclasses
import json
import tomllib
from importlib import import_module

import pytest

from eejax.tiers import (
    DEVICES,
    LINKS,
    Device,
    from_dict,
    from_toml,
    load,
    make_tier,
    make_topology,
    three_tier,
    to_dict,
)

DATA = {
    "tiers": [
        {
            "name": "end",
            "nodes": [
                {"count": 2, "device": "phone", "link": "wifi", "parent": 0},
                {"device": "jetson_nano", "link": {"preset": "lte_4g", "rtt_s": 0.05}, "parent": 1},
            ],
        },
        {
            "name": "edge",
            "nodes": [{"count": 2, "device": "edge_server", "link": "wan", "parent": 0}],
        },
        {"name": "cloud", "nodes": [{"device": "cloud_gpu"}]},
    ]
}


def docstring_toml():
    # By import_module, because `load` in the package is the function.
    return import_module("eejax.tiers.load").__doc__.split("```toml")[1].split("```")[0]


@pytest.mark.parametrize(
    "topology",
    [
        three_tier(),
        three_tier(ends=1, edges=1, spread=1.0),
        from_dict(DATA),
        make_topology(make_tier("alone", DEVICES["phone"])),
    ],
    ids=["mixed", "plain", "groups", "one_tier"],
)
def test_round_trip_through_json(topology):
    assert from_dict(json.loads(json.dumps(to_dict(topology)))) == topology


def test_groups_presets_and_overrides():
    topology = from_dict(DATA)
    end, edge, cloud = topology.tiers
    assert (end.nodes, edge.nodes, cloud.nodes) == (3, 2, 1)
    assert end.parent.tolist() == [0, 0, 1]
    assert [end.device(i) for i in range(3)] == [
        DEVICES["phone"],
        DEVICES["phone"],
        DEVICES["jetson_nano"],
    ]
    assert end.link(1) == LINKS["wifi"]
    changed = end.link(2)
    source = f"{LINKS['lte_4g'].source}; changed by the user: rtt_s"
    assert changed == dataclasses.replace(LINKS["lte_4g"], rtt_s=0.05, source=source)
    assert cloud.device(0) == DEVICES["cloud_gpu"]


def test_a_user_who_gives_a_source_is_quoted_as_it_is():
    data = copy.deepcopy(DATA)
    data["tiers"][2]["nodes"] = [
        {"device": {"preset": "cloud_gpu", "name": "h100", "source": "my sheet", "idle_w": 70}}
    ]
    device = from_dict(data).tiers[2].device(0)
    assert (device.name, device.source, device.idle_w) == ("h100", "my sheet", 70)


def test_fields_may_be_lists():
    data = copy.deepcopy(DATA)
    group = data["tiers"][0]["nodes"][0]
    group |= {"device": {"preset": "phone", "flops_per_s": [1e9, 2e9]}, "parent": [1, 0]}
    end = from_dict(data).tiers[0]
    assert end.devices.flops_per_s.tolist() == [1e9, 2e9, DEVICES["jetson_nano"].flops_per_s]
    assert end.parent.tolist() == [1, 0, 1]


def test_toml_of_the_docstring(tmp_path):
    path = tmp_path / "topology.toml"
    path.write_text(docstring_toml(), encoding="utf-8")
    topology = load(path)
    assert topology == from_toml(path) == from_dict(tomllib.loads(docstring_toml()))
    assert [tier.nodes for tier in topology.tiers] == [8, 2, 1]
    assert topology.ancestor("edge").tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert topology.tiers[0].link(7).rtt_s == 0.05


@pytest.mark.parametrize("name", LINKS)
def test_load_by_name(name):
    assert load(name) == three_tier(end_edge=name)


def test_load_errors(tmp_path):
    with pytest.raises(ValueError, match=r"topology 'lte' is none of wifi, .*\.toml file; did you"):
        load("lte")
    with pytest.raises(FileNotFoundError, match=r"missing\.toml"):
        load(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("tiers = [")
    with pytest.raises(ValueError, match=r"broken\.toml: Invalid|broken\.toml: .*line 1"):
        load(str(broken))
    broken.write_bytes(b'name = "\xff"')
    with pytest.raises(ValueError, match=r"broken\.toml: 'utf-8' codec"):
        load(str(broken))
    broken.write_text("tiers = []")
    with pytest.raises(
        ValueError, match=r"broken\.toml: tiers must be a list, not empty, got \[\]"
    ):
        load(str(broken))


BARE_LINK = dataclasses.asdict(LINKS["lan"])


def without(table, name):
    return {field: value for field, value in table.items() if field != name}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((), {"tier": []}, "^topology has the unknown field 'tier'; did you mean 'tiers'"),
        ((), {}, "^topology misses field 'tiers'$"),
        ((), [], r"^topology must be a table of fields, got \[\]$"),
        (("tiers",), {}, "^tiers must be a list, not empty, got {}$"),
        (("tiers", 0), {"nodes": []}, r"^tiers\[0\] misses field 'name'$"),
        (("tiers", 0, "name"), 7, r"^tiers\[0\].name must be a string, not empty, got 7$"),
        (("tiers", 1, "name"), "end", r"^tiers\[1\].name 'end' is used by a tier below already$"),
        (("tiers", 0, "nodes"), [], r"^tiers\[0\].nodes must be a list, not empty, got \[\]$"),
        (("tiers", 0, "nodes", 1), "phone", r"^tiers\[0\].nodes\[1\] must be a table of fields"),
        (
            ("tiers", 0, "nodes", 0, "cuont"),
            2,
            r"'cuont'; did you mean 'count'\?; fields are count",
        ),
        (("tiers", 0, "nodes", 0, "count"), 0, r"nodes\[0\].count must be an integer >= 1, got 0"),
        (("tiers", 0, "nodes", 0, "count"), True, r"count must be an integer >= 1, got True"),
        (("tiers", 0, "nodes", 0, "device"), 3, r"\.device must be a table of fields, got 3"),
        (
            ("tiers", 0, "nodes", 0, "device"),
            "fone",
            r"^tiers\[0\].nodes\[0\].device 'fone' is none of .*; did you mean 'phone'\?$",
        ),
        (
            ("tiers", 0, "nodes", 1, "link", "preset"),
            ["wan"],
            r"^tiers\[0\].nodes\[1\].link.preset \['wan'\] is none of wifi",
        ),
        (
            ("tiers", 0, "nodes", 1, "link", "rtt"),
            0.1,
            r"^tiers\[0\].nodes\[1\].link has the unknown field 'rtt'; did you mean 'rtt_s'\?",
        ),
        (
            ("tiers", 0, "nodes", 1, "link", "bandwidth_up_bps"),
            -1,
            r"^tiers\[0\].nodes\[1\].link.bandwidth_up_bps must be > 0, got -1$",
        ),
        (
            ("tiers", 0, "nodes", 0, "device"),
            {"preset": "phone", "idle_w": [0.5, -0.5]},
            r"^tiers\[0\].nodes\[0\].device.idle_w\[1\] must be >= 0, got -0.5$",
        ),
        (
            ("tiers", 0, "nodes", 0, "device"),
            {"preset": "phone", "idle_w": [1, 1, 1]},
            r"^tiers\[0\].nodes\[0\].device holds 3 nodes where 2 are expected$",
        ),
        (
            ("tiers", 0, "nodes", 0, "device"),
            {"preset": "phone", "idle_w": "low"},
            r"device.idle_w must be a number or numbers \[nodes\], got 'low'$",
        ),
        (
            ("tiers", 0, "nodes", 1, "link"),
            without(BARE_LINK, "loss"),
            r"^tiers\[0\].nodes\[1\].link misses field 'loss'$",
        ),
        (
            ("tiers", 0, "nodes", 0),
            {"device": "phone", "parent": 0},
            r"^tiers\[0\].nodes\[0\] misses field 'link'$",
        ),
        (
            ("tiers", 1, "nodes", 0),
            {"device": "phone", "parent": 0},
            r"^tiers\[1\].nodes\[0\] misses field 'link', which goes with 'parent'$",
        ),
        (
            ("tiers", 1, "nodes", 0),
            {"device": "phone", "count": 2},
            r"^tiers\[1\].links and parent must be given: without them 'edge' has no path to 'clo",
        ),
        (
            ("tiers", 0, "nodes", 0, "parent"),
            [0, 0, 1],
            r"^tiers\[0\].nodes\[0\].parent must be a node index or 2 of them, got \[0, 0, 1\]$",
        ),
        (("tiers", 0, "nodes", 0, "parent"), [[0], [0, 1]], r"^tiers\[0\].nodes\[0\].parent: "),
        (("tiers", 0, "nodes", 0, "parent"), 0.5, r"parent must be a node index .*, got 0.5$"),
        (
            ("tiers", 0, "nodes", 1, "parent"),
            2,
            r"^tiers\[0\].parent\[2\] must be in \[0, 2\), the nodes of 'edge', got 2$",
        ),
        (
            ("tiers", 2, "nodes", 0),
            {"device": "phone", "link": "wan", "parent": 0},
            r"^tiers\[2\].links must be None: no tier is above$",
        ),
    ],
)
def test_errors_name_the_place(place, value, message):
    data = copy.deepcopy(DATA)
    if not place:
        data = value
    else:
        *way, last = place
        table = data
        for step in way:
            table = table[step]
        table[last] = value
    with pytest.raises(ValueError, match=message):
        from_dict(data)


def test_a_link_without_preset_needs_all_fields_and_no_more():
    data = copy.deepcopy(DATA)
    data["tiers"][0]["nodes"][1]["link"] = BARE_LINK
    assert from_dict(data).tiers[0].link(2) == LINKS["lan"]


def test_a_device_may_be_a_file_beside_the_topology(tmp_path):
    fields = {f.name: getattr(DEVICES["phone"], f.name) for f in dataclasses.fields(Device)}
    lines = "".join(f"{k} = {json.dumps(v)}\n" for k, v in (fields | {"name": "mine"}).items())
    (tmp_path / "mine.toml").write_text(lines)
    (tmp_path / "mine.json").write_text(json.dumps(fields))
    text = """
[[tiers]]
name = "end"
nodes = [
  {device = {file = "mine.toml"}, link = "wifi", parent = 0},
  {device = {file = "mine.json", busy_w = 9}, link = "wifi", parent = 0},
]
[[tiers]]
name = "cloud"
nodes = [{device = "cloud_gpu"}]
"""
    path = tmp_path / "system.toml"
    path.write_text(text)
    devices = from_toml(path).tiers[0].devices
    assert devices.name.tolist() == ["mine", "phone"]
    assert devices.busy_w.tolist() == [4, 9]
    assert devices.source[1].endswith("; changed by the user: busy_w")
    (tmp_path / "mine.toml").write_text(lines.replace("idle_w", "idel_w"))
    with pytest.raises(ValueError, match=r"device.file mine.toml has .* 'idel_w'; did you mean"):
        from_toml(path)
    path.write_text(text.replace('{file = "mine.toml"}', '{file = "x.toml", preset = "phone"}'))
    with pytest.raises(ValueError, match="preset or file, not both"):
        from_toml(path)
    path.write_text(text.replace("mine.toml", "none.toml"))
    with pytest.raises(FileNotFoundError):
        from_toml(path)


def test_a_chain_of_devices_and_links(tmp_path):
    topology = load("phone, wifi, edge_server, wan, cloud_gpu")
    assert topology.names == ("end", "edge", "cloud")
    assert [tier.devices.name[0] for tier in topology.tiers] == [
        "phone",
        "edge_server",
        "cloud_gpu",
    ]
    assert topology.tiers[1].link(0).name == "wan"
    fields = {f.name: getattr(DEVICES["phone"], f.name) for f in dataclasses.fields(Device)}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(fields | {"name": "mine"}))
    four = load(f"{path},lan,phone,wifi,edge_server,wan,cloud_gpu")
    assert four.names == ("tier0", "tier1", "tier2", "tier3")
    assert four.tiers[0].devices.name[0] == "mine"
    for text in ("phone,wifi", ",wifi,phone"):
        with pytest.raises(ValueError, match="must alternate devices and links"):
            load(text)
    with pytest.raises(ValueError, match="did you mean 'phone'"):
        load("phon,wifi,cloud_gpu")
