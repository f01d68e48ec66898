"""Devices and links: one or many, checked, frozen, compared."""

import dataclasses

import numpy as np
import pytest

from eejax.tiers import DEVICES, LINKS, Device, Link, stack, take
from eejax.tiers.nodes import count, repeat

PI, PHONE, WIFI = DEVICES["raspberry_pi_4"], DEVICES["phone"], LINKS["wifi"]


def device(**fields):
    return dataclasses.replace(PI, **fields)


def link(**fields):
    return dataclasses.replace(WIFI, **fields)


def test_a_single_node_holds_plain_numbers():
    node = device(flops_per_s=np.float32(2), memory_bytes=4)
    assert (node.flops_per_s, node.memory_bytes) == (2.0, 4.0)
    assert type(node.flops_per_s) is type(node.memory_bytes) is float
    assert type(node.name) is str
    assert count(node) == 1


def test_numbers_beside_arrays_hold_for_all_nodes():
    nodes = device(flops_per_s=[1.0, 2.0, 3.0])
    assert count(nodes) == 3
    assert nodes.idle_w.tolist() == [PI.idle_w] * 3
    assert nodes.name.tolist() == ["raspberry_pi_4"] * 3
    assert nodes.flops_per_s.dtype == nodes.idle_w.dtype == np.float64


def test_values_never_change():
    speeds = np.array([1.0, 2.0])
    nodes = device(flops_per_s=speeds)
    speeds[0] = 9
    assert nodes.flops_per_s.tolist() == [1, 2]
    for array in (nodes.flops_per_s, nodes.idle_w, nodes.name):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        nodes.idle_w = 0


def test_equality_compares_every_element():
    assert device() == PI
    assert PI != PHONE
    assert stack([PI, PHONE]) == stack([PI, PHONE])
    assert stack([PI, PHONE]) != stack([PHONE, PI])
    assert stack([PI]) != PI, "one node as an array is not a single node"
    assert PI != WIFI
    with pytest.raises(TypeError, match="unhashable"):
        hash(PI)


def test_stack_take_and_repeat_undo_each_other():
    nodes = stack([PI, stack([PHONE, PI])])
    assert [take(nodes, i) for i in range(3)] == [PI, PHONE, PI]
    assert take(nodes, np.array([1, 0])) == stack([PHONE, PI])
    assert take(nodes, slice(1, None)) == stack([PHONE, PI])
    assert repeat(PI, 3) == stack([PI, PI, PI])
    assert repeat(nodes, 3) is nodes
    with pytest.raises(ValueError, match="holds 3 nodes where 4 are expected"):
        repeat(nodes, 4)


@pytest.mark.parametrize(
    ("nodes", "found"), [([], "nothing"), ([PI, WIFI], "Device, Link"), ([1], "int")]
)
def test_stack_wants_one_class(nodes, found):
    with pytest.raises(ValueError, match=f"of one class, got {found}"):
        stack(nodes)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (device, {"flops_per_s": 0}, r"^flops_per_s must be > 0, got 0$"),
        (device, {"flops_per_s": [1, 2, -3]}, r"^flops_per_s\[2\] must be > 0, got -3$"),
        (device, {"memory_bytes": np.nan}, r"^memory_bytes must be finite and > 0, got nan$"),
        (device, {"overhead_s": -1e-3}, r"^overhead_s must be >= 0, got -0.001$"),
        (device, {"busy_w": 1}, r"^busy_w must be >= idle_w = 2.7, got 1$"),
        (device, {"busy_w": [9, 1]}, r"^busy_w\[1\] must be >= idle_w = 2.7, got 1$"),
        (device, {"idle_w": True}, r"^idle_w must be a number or numbers \[nodes\], got True$"),
        (device, {"idle_w": "2 W"}, r"^idle_w must be a number .*, got '2 W'$"),
        (device, {"idle_w": None}, r"^idle_w must be a number .*, got None$"),
        (device, {"idle_w": [1, "2"]}, r"^idle_w must be a number .*, got \[1, '2'\]$"),
        (device, {"idle_w": [[1], [1, 2]]}, r"^idle_w must be a number "),
        (device, {"idle_w": [[1.0]]}, r"^idle_w must be a number "),
        (device, {"idle_w": []}, r"^idle_w must be a number .*, got \[\]$"),
        (device, {"name": ""}, r"^name must be a string or strings .*, got ''$"),
        (device, {"name": ["a", 1]}, r"^name must be a string or strings .*, got \['a', 1\]$"),
        (device, {"source": None}, r"^source must be a string .*, got None$"),
        (device, {"idle_w": [1, 1], "busy_w": [2, 2, 2]}, r"^idle_w holds 2 nodes, but busy_w ho"),
        (link, {"bandwidth_up_bps": -1}, r"^bandwidth_up_bps must be > 0, got -1$"),
        (link, {"bandwidth_down_bps": np.inf}, r"^bandwidth_down_bps must be finite and > 0"),
        (link, {"loss": 1.0}, r"^loss must be in \[0, 1\), got 1$"),
        (link, {"rtt_s": [0, -0.5]}, r"^rtt_s\[1\] must be >= 0, got -0.5$"),
    ],
)
def test_errors_name_the_field_and_what_is_allowed(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_all_fields_are_wanted_by_name():
    with pytest.raises(TypeError, match="flops_per_s"):
        Device(name="bare", source="nowhere")
    with pytest.raises(TypeError, match="positional"):
        Link("bare")
