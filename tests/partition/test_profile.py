"""Profiles: what is read, what is refused, and the seconds of tiers."""

import copy
import json

import numpy as np
import pytest

from eejax.partition.graph import Layer, LayerGraph, Tensor
from eejax.partition.profile import Profile, from_profile, layer_seconds, to_profile
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier
from eejax.tiers.cost import roofline

DATA = {
    "format": "eejax-profile",
    "version": 1,
    "granularity": "layer",
    "source": "made up for this test",
    "layers": [
        {
            "name": "conv",
            "seconds": {"phone": 0.02, "raspberry_pi_4": 0.04},
            "parameter_bytes": 400,
            "flops": 1e6,
            "bytes_moved": 1e5,
        },
        {
            "name": "dense",
            "seconds": {"raspberry_pi_4": 0.01, "phone": 0.005},
            "parameter_bytes": 5000,
            "flops": 1e5,
            "bytes_moved": 1e6,
        },
    ],
    "tensors": [
        {"name": "image", "producer": None, "consumers": ["conv"], "nbytes": 784},
        {"name": "features", "producer": "conv", "consumers": ["dense"], "nbytes": 1568},
    ],
}


def test_a_profile_is_a_graph_with_seconds(tmp_path):
    profile = from_profile(DATA)
    assert profile.graph == LayerGraph(
        (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e5, 1e6, 5000)),
        (Tensor("image", -1, (0,), 784), Tensor("features", 0, (1,), 1568)),
        "layer",
    )
    assert {name: s.tolist() for name, s in profile.seconds.items()} == {
        "phone": [0.02, 0.005],
        "raspberry_pi_4": [0.04, 0.01],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(to_profile(profile)))
    again = from_profile(path)
    assert again.graph == profile.graph
    assert to_profile(again) == to_profile(profile) == from_json(DATA)


def from_json(data):
    return json.loads(json.dumps(data))


def test_work_may_be_left_out():
    data = copy.deepcopy(DATA)
    for row in data["layers"]:
        del row["flops"], row["bytes_moved"]
    assert [layer[1:] for layer in from_profile(data).graph.layers] == [(0, 0, 400), (0, 0, 5000)]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 2, "version must be 1, got 2"),
        (("format",), "onnx", "format must be 'eejax-profile', got 'onnx'"),
        (("layer",), [], "profile has the unknown field 'layer'; did you mean 'layers'"),
        (("layers",), [], r"layers must be a list, not empty"),
        (("layers",), {"conv": 1}, r"layers must be a list, not empty"),
        (("layers", 0), 7, r"layers\[0\] must be an object of fields, got 7"),
        (("layers", 1, "name"), "conv", r"layers\[1\]\.name 'conv' is used before"),
        (("layers", 1, "seconds", "phone"), -1, r"layers\[1\]\.seconds\.phone must be .* got -1"),
        (("layers", 1, "seconds", "phone"), float("nan"), r"seconds\.phone must be .* got nan"),
        (("layers", 1, "seconds", "phone"), "fast", r"seconds\.phone must be .* got 'fast'"),
        (("layers", 1, "seconds", "phon"), 1, r"unknown field 'phon'; did you mean 'phone'"),
        (("layers", 1, "seconds"), {"phone": 1}, r"misses field 'raspberry_pi_4'"),
        (("layers", 0, "parameter_bytes"), True, r"layers\[0\]\.parameter_bytes must be a number"),
        (("tensors", 1, "producer"), "cnv", r"tensors\[1\]\.producer 'cnv' is no layer; did you"),
        (("tensors", 1, "consumers"), ["conv"], r"without cycles"),
        (("tensors", 1, "consumers"), [], r"layers\[1\] 'dense' reads no tensor"),
        (("tensors", 1, "consumers"), "dense", r"tensors\[1\]\.consumers must be a list, got 'd"),
        (("tensors", 0, "consumers"), ["dense"], r"layers\[0\] 'conv' reads no tensor"),
        (("tensors", 1, "nbytes"), float("inf"), r"tensors\[1\]\.nbytes must be .* finite"),
        (("granularity",), "", "granularity must be a string"),
    ],
)
def test_faults_name_the_field(place, value, message):
    data = copy.deepcopy(DATA)
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        from_profile(data)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        from_profile(tmp_path / "none.json")
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: "):
        from_profile(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json: profile must be an object"):
        from_profile(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"a\.json: profile misses field 'format'"):
        from_profile(path)


def one(seconds, **columns):
    graph = from_profile(DATA).graph
    return Profile(graph, {"edge": np.array(seconds)} | columns, "made up")


def test_seconds_by_name_of_tier_and_by_devices():
    ends = make_tier(
        "end",
        [DEVICES["phone"], DEVICES["raspberry_pi_4"], DEVICES["phone"]],
        LINKS["wifi"],
        parent=0,
    )
    topology = make_topology(ends, make_tier("edge", DEVICES["edge_server"]))
    data = copy.deepcopy(DATA)
    for i, row in enumerate(data["layers"]):
        row["seconds"]["edge"] = 0.001 * (i + 1)
    # The mean over two phones and a Raspberry Pi.
    expected = [[(2 * 0.02 + 0.04) / 3, 0.001], [(2 * 0.005 + 0.01) / 3, 0.002]]
    np.testing.assert_allclose(layer_seconds(from_profile(data), topology), expected)


def test_factors_scale_one_device():
    seconds = layer_seconds(one([0.001, 0.01]), three_tier(), factors={"end": 400, "cloud": 0.5})
    np.testing.assert_allclose(seconds, [[0.4, 0.001, 0.0005], [4, 0.01, 0.005]])


def test_ratio_of_rooflines_keeps_the_efficiency_of_layers():
    topology = three_tier()
    here = topology.tiers[1].device(0)
    graph = one([0, 0]).graph
    # Layers twice and ten times as slow as the roofline are so everywhere.
    flops, moved = np.array([layer[1:3] for layer in graph.layers]).T
    profile = Profile(graph, {"mine": roofline(here, flops, moved) * [2, 10]}, "made up")
    seconds = layer_seconds(profile, topology, measured_on=here)
    for k, tier in enumerate(topology.tiers):
        fastest = roofline(tier.devices, flops[:, None], moved[:, None]).mean(1)
        np.testing.assert_allclose(seconds[:, k], fastest * [2, 10])


@pytest.mark.parametrize(
    ("profile", "keywords", "message"),
    [
        (one([1, 1]), {}, r"tier 'end' has no seconds: the profile holds those of edge; give"),
        (one([1, 1]), {"factors": {"ends": 2}}, "tier 'ends' is none of .*; did you mean 'end'"),
        (one([1, 1]), {"factors": {"end": 0}}, r"factors\['end'\] must be finite and > 0, got 0"),
        (
            one([1, 1], phone=np.ones(2)),
            {"factors": {"end": 2}},
            "must hold one device to be scaled, got edge, phone",
        ),
    ],
)
def test_tiers_without_seconds(profile, keywords, message):
    with pytest.raises(ValueError, match=message):
        layer_seconds(profile, three_tier(), **keywords)


def test_measured_on_needs_work():
    graph = one([1, 1]).graph
    idle = graph._replace(
        layers=tuple(layer._replace(flops=0, bytes_moved=0) for layer in graph[0])
    )
    with pytest.raises(ValueError, match="measured_on needs the flops and bytes_moved"):
        layer_seconds(
            Profile(idle, {"a": np.ones(2)}, "made up"), three_tier(), measured_on=DEVICES["phone"]
        )
