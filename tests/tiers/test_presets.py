"""Presets: sourced numbers, and the documented mix of three_tier."""

import numpy as np
import pytest

from eejax.tiers import DEVICES, LINKS, three_tier


def test_every_preset_is_named_and_tells_its_source():
    for presets in (DEVICES, LINKS):
        for name, node in presets.items():
            assert node.name == name
            assert "typical value, not measured here" in node.source
    with pytest.raises(TypeError):
        DEVICES["mine"] = DEVICES["phone"]


def test_published_bandwidths():
    uplinks = {name: LINKS[name].bandwidth_up_bps for name in ("hspa_3g", "lte_4g", "wifi")}
    assert uplinks == {"hspa_3g": 1.1e6, "lte_4g": 5.85e6, "wifi": 18.88e6}


def test_a_microcontroller_sustains_a_quarter_of_one_fma_a_cycle():
    device = DEVICES["microcontroller"]
    # 480e6 cycles/s * 2 FLOP / 4.
    assert (device.flops_per_s, device.memory_bytes) == (240e6, 1_048_576)
    assert device.overhead_s == 1e-4


def test_radio_energy_is_the_published_power_at_full_rate():
    # LTE up: 438.39 mW/Mbps * 5.85 Mbps + 1288.04 mW = 3852.6215 mW, for 5.85e6 / 8 bytes a second.
    assert LINKS["lte_4g"].joules_per_byte_up == pytest.approx(3.8526215 / (5.85e6 / 8))
    assert LINKS["wifi"].joules_per_byte_down == pytest.approx(
        (137.01 * 54.97 + 132.86) * 1e-3 / (54.97e6 / 8)
    )


def test_tiers_grow_faster_from_end_to_cloud():
    names = ("microcontroller", "raspberry_pi_3", "raspberry_pi_4", "jetson_nano")
    speeds = [
        *(DEVICES[name].flops_per_s for name in names),
        DEVICES["edge_server"].flops_per_s,
        DEVICES["cloud_gpu"].flops_per_s,
    ]
    assert speeds == sorted(speeds)


def test_three_tier_mixes_devices_the_same_way_on_each_edge():
    topology = three_tier(ends=7, edges=2, end_devices=("phone", "jetson_nano"), spread=4.0)
    end, edge, cloud = topology.tiers
    assert topology.names == ("end", "edge", "cloud")
    assert (end.nodes, edge.nodes, cloud.nodes) == (7, 2, 1)
    assert end.parent.tolist() == [0, 0, 0, 0, 1, 1, 1]
    phone, nano = "phone", "jetson_nano"
    assert end.devices.name.tolist() == [phone, nano, phone, nano, phone, nano, phone]
    base = [DEVICES[name].flops_per_s for name in end.devices.name]
    # Edge 0: 4 ** (0, 1/3, 2/3, 1) / 2; edge 1: 4 ** (0, 1/2, 1) / 2.
    factors = [0.5, 4 ** (1 / 3) / 2, 4 ** (2 / 3) / 2, 2, 0.5, 1, 2]
    np.testing.assert_allclose(end.devices.flops_per_s, np.multiply(base, factors))
    memory = [DEVICES[name].memory_bandwidth_bytes_per_s for name in end.devices.name]
    np.testing.assert_allclose(
        end.devices.memory_bandwidth_bytes_per_s, np.multiply(memory, factors)
    )
    assert all("speed scaled by three_tier(spread=4)" in s for s in end.devices.source)
    assert end.link(3) == LINKS["wifi"]
    assert edge.link(1) == LINKS["wan"]


def test_three_tier_without_spread_keeps_the_presets():
    end = three_tier(ends=4, edges=1, spread=1.0).tiers[0]
    assert [end.device(i).name for i in range(4)] == [
        "raspberry_pi_4",
        "phone",
        "jetson_nano",
        "raspberry_pi_4",
    ]
    assert all(end.device(i) == DEVICES[end.device(i).name] for i in range(4))


def test_three_tier_with_lone_ends_and_idle_edges():
    topology = three_tier(ends=2, edges=3, end_devices=("phone",), spread=9.0)
    assert topology.tiers[0].devices.flops_per_s.tolist() == [DEVICES["phone"].flops_per_s] * 2
    assert topology.children("edge", 2).tolist() == []


def test_three_tier_is_deterministic_and_takes_other_links():
    assert three_tier() == three_tier()
    topology = three_tier(end_edge="hspa_3g", edge_cloud="lan")
    assert topology.tiers[0].link(0) == LINKS["hspa_3g"]
    assert topology.tiers[1].link(0) == LINKS["lan"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ends": 0}, "ends must be an integer >= 1, got 0"),
        ({"edges": 1.5}, "edges must be an integer >= 1, got 1.5"),
        ({"edges": True}, "edges must be an integer >= 1, got True"),
        ({"spread": 0.5}, "spread must be finite and >= 1, got 0.5"),
        ({"spread": float("nan")}, "spread must be finite and >= 1, got nan"),
        ({"end_devices": ()}, r"end_devices must be a sequence of names, got \(\)"),
        ({"end_devices": "phone"}, "end_devices must be a sequence of names, got 'phone'"),
        ({"end_devices": ["fone"]}, "end_devices 'fone' is none of .*; did you mean 'phone'?"),
        ({"end_edge": "lte"}, "end_edge 'lte' is none of .*; did you mean 'lte_4g'?"),
        ({"edge_cloud": "LANS"}, "edge_cloud 'LANS' is none of wifi, lte_4g, hspa_3g, lan, wan$"),
    ],
)
def test_three_tier_names_the_wrong_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        three_tier(**arguments)
