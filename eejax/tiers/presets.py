"""Named devices and links with their sources, and a three-tier topology made of them.

The numbers are starting points, meant to be right in their order of magnitude; none was measured
for this package, so replace the fields you know. Sustained compute is taken as a quarter of the
peak.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from eejax.names import suggest
from eejax.tiers.nodes import Device, Link, fields_of, stack
from eejax.tiers.topology import Topology, make_tier, make_topology

_SUSTAINED = 0.25  # Of the peak; a rule of thumb for networks at small batches.
_GIB = 2**30
_TYPICAL = "typical value, not measured here"


def _device(name: str, **fields) -> Device:
    peak = fields.pop("peak_flops_per_s")
    source = (
        f"{fields.pop('source')}; FLOP/s are {_SUSTAINED:g} of the {peak / 1e9:g} GFLOP/s fp32 "
        f"peak; sustained fraction and launch overhead: {_TYPICAL}"
    )
    return Device(name=name, flops_per_s=_SUSTAINED * peak, source=source, **fields)


_DEVICES = (
    _device(
        "microcontroller",
        peak_flops_per_s=0.96e9,
        memory_bandwidth_bytes_per_s=1e9,
        memory_bytes=2**20,
        idle_w=0.1,
        busy_w=0.5,
        overhead_s=1e-4,
        source="STM32H7 class, 1 Cortex-M7 x 480 MHz x 2 FLOP/cycle (one FMA), 1 MB SRAM; memory "
        f"bandwidth (the bus peaks at 1.92 GB/s) and power without radio: {_TYPICAL}",
    ),
    _device(
        "raspberry_pi_3",
        peak_flops_per_s=38.4e9,
        memory_bandwidth_bytes_per_s=2e9,
        memory_bytes=1 * _GIB,
        idle_w=1.4,
        busy_w=3.7,
        overhead_s=1e-3,
        source="Raspberry Pi 3B, 4 Cortex-A53 x 1.2 GHz x 8 FLOP/cycle, 1 GB LPDDR2; memory "
        f"bandwidth and power of the board: {_TYPICAL}",
    ),
    _device(
        "raspberry_pi_4",
        peak_flops_per_s=48e9,
        memory_bandwidth_bytes_per_s=5e9,
        memory_bytes=4 * _GIB,
        idle_w=2.7,
        busy_w=6.4,
        overhead_s=5e-4,
        source="Raspberry Pi 4B, 4 Cortex-A72 x 1.5 GHz x 8 FLOP/cycle, 4 GB LPDDR4; memory "
        f"bandwidth as published for STREAM, power of the board: {_TYPICAL}",
    ),
    _device(
        "phone",
        peak_flops_per_s=140.8e9,
        memory_bandwidth_bytes_per_s=10e9,
        memory_bytes=6 * _GIB,
        idle_w=0.8,
        busy_w=4.0,
        overhead_s=3e-4,
        source="mid-range phone, CPU only: 4 big cores x 2.2 GHz x 16 FLOP/cycle; memory and "
        f"power: {_TYPICAL}",
    ),
    _device(
        "jetson_nano",
        peak_flops_per_s=235.9e9,
        memory_bandwidth_bytes_per_s=25.6e9,
        memory_bytes=4 * _GIB,
        idle_w=2.0,
        busy_w=10.0,
        overhead_s=5e-4,
        source="NVIDIA Jetson Nano: 128 Maxwell cores x 921.6 MHz x 2 FLOP/cycle, 4 GB LPDDR4 "
        f"at 25.6 GB/s peak, 10 W mode; idle power: {_TYPICAL}",
    ),
    _device(
        "edge_server",
        peak_flops_per_s=1280e9,
        memory_bandwidth_bytes_per_s=80e9,
        memory_bytes=64 * _GIB,
        idle_w=60.0,
        busy_w=200.0,
        overhead_s=1e-4,
        source="server CPU: 16 cores x 2.5 GHz x 32 FLOP/cycle (AVX2 with two FMA units); "
        f"memory and power: {_TYPICAL}",
    ),
    _device(
        "cloud_gpu",
        peak_flops_per_s=8100e9,
        memory_bandwidth_bytes_per_s=320e9,
        memory_bytes=16 * _GIB,
        idle_w=10.0,
        busy_w=70.0,
        overhead_s=1e-4,
        source="NVIDIA T4 data sheet: 16 GB GDDR6 at 320 GB/s peak, 70 W board, host not "
        f"included; idle power: {_TYPICAL}",
    ),
)
DEVICES: Mapping[str, Device] = MappingProxyType({device.name: device for device in _DEVICES})
"""Devices by name."""


def _radio_joules_per_byte(slope: float, base: float, mbps: float) -> float:
    """Energy of a busy radio of ``slope * mbps + base`` mW; a mW per Mbit/s is one nJ per bit."""
    return 8e-9 * (slope + base / mbps)


def _radio(name: str, up_mbps, down_mbps, slope_up, slope_down, base, **fields) -> Link:
    return Link(
        name=name,
        bandwidth_up_bps=up_mbps * 1e6,
        bandwidth_down_bps=down_mbps * 1e6,
        joules_per_byte_up=_radio_joules_per_byte(slope_up, base, up_mbps),
        joules_per_byte_down=_radio_joules_per_byte(slope_down, base, down_mbps),
        loss=0.0,  # Resent packets are part of a measured throughput already.
        source="uplink: mean of the United States in Hu et al., DADS, 2019, Table I; downlink: as "
        "used by Eshratifar et al., JointDNN, 2018; energy of the device's radio alone: power "
        "model of Huang et al., A Close Examination of Performance and Power Characteristics of "
        f"4G LTE Networks, 2012, Table 4; downlink, energy, round trip and jitter: {_TYPICAL}",
        **fields,
    )


_LINKS = (
    _radio("wifi", 18.88, 54.97, 283.17, 137.01, 132.86, rtt_s=0.005, jitter_s=0.002),
    _radio("lte_4g", 5.85, 13.76, 438.39, 51.97, 1288.04, rtt_s=0.07, jitter_s=0.015),
    _radio("hspa_3g", 1.1, 2.0275, 868.98, 122.12, 817.88, rtt_s=0.15, jitter_s=0.04),
    Link(
        name="lan",
        bandwidth_up_bps=1e9,
        bandwidth_down_bps=1e9,
        rtt_s=0.0005,
        jitter_s=0.0001,
        loss=0.0,
        joules_per_byte_up=4e-8,
        joules_per_byte_down=4e-8,
        source="1 Gbit/s switched Ethernet (IEEE 802.3ab); round trip, jitter and 5 nJ/bit for "
        f"two ports and a switch: {_TYPICAL}",
    ),
    Link(
        name="wan",
        bandwidth_up_bps=100e6,
        bandwidth_down_bps=100e6,
        rtt_s=0.04,
        jitter_s=0.005,
        loss=0.0,
        joules_per_byte_up=2.16e-5,
        joules_per_byte_down=2.16e-5,
        source="fibre access and Internet to a region of a cloud; 2.7 uJ/bit for transport "
        "after Baliga et al., Green Cloud Computing: Balancing Energy in Processing, Storage, "
        f"and Transport, 2011; all: {_TYPICAL}",
    ),
)
LINKS: Mapping[str, Link] = MappingProxyType({link.name: link for link in _LINKS})
"""Links by name."""


def three_tier(
    ends: int = 8,
    edges: int = 2,
    *,
    end_devices: Sequence[str] = ("raspberry_pi_4", "phone", "jetson_nano"),
    spread: float = 2.0,
    end_edge: str = "wifi",
    edge_cloud: str = "wan",
) -> Topology:
    """Makes one cloud, some edge servers, and unequal end devices.

    End devices are ordered by edge, and edges serve numbers of them that differ by at most one. The
    mix is the same on each edge and not random: number ``j`` of the ``n`` on an edge is
    ``end_devices[j % len(end_devices)]`` with compute and memory bandwidth times
    ``spread ** (j / (n - 1) - 1 / 2)``, which stands for age, heat and other load.

    Args:
      ends: number of end devices.
      edges: number of edge servers; those beyond ``ends`` have no children.
      end_devices: names in `DEVICES`.
      spread: speed of the last device of an edge over that of the first beside the mix, >= 1.
      end_edge: name in `LINKS` of the links between end and edge.
      edge_cloud: name in `LINKS` of the links between edge and cloud.

    Returns:
      A topology of the tiers ``end``, ``edge`` and ``cloud``.

    Raises:
      ValueError: a number is too small, or a name is unknown; tells the nearest one.

    Example:
      >>> topology = three_tier(ends=5, edges=2, end_edge="lte_4g")
      >>> topology.tiers[0].parent.tolist()
      [0, 0, 0, 1, 1]
    """
    for name, value in (("ends", ends), ("edges", edges)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if not (np.isfinite(spread) and spread >= 1):
        raise ValueError(f"spread must be finite and >= 1, got {spread!r}")
    if not end_devices or isinstance(end_devices, str):
        raise ValueError(f"end_devices must be a sequence of names, got {end_devices!r}")
    mix = stack([_find(DEVICES, name, "end_devices") for name in end_devices])

    parent = np.sort(np.arange(ends) % edges)
    siblings = np.bincount(parent, minlength=edges)
    first = np.cumsum(siblings) - siblings
    position = np.arange(ends) - first[parent]
    rank = position / np.maximum(siblings[parent] - 1, 1)
    # A lone device is neither the fast nor the slow one.
    speed = np.where(siblings[parent] > 1, spread ** (rank - 0.5), 1.0)
    kind = position % len(end_devices)
    devices = {name: values[kind] for name, values in fields_of(mix).items()}
    devices["flops_per_s"] = devices["flops_per_s"] * speed
    devices["memory_bandwidth_bytes_per_s"] = devices["memory_bandwidth_bytes_per_s"] * speed
    if spread > 1:
        note = f"; speed scaled by three_tier(spread={spread:g})"
        devices["source"] = (mix.source + note)[kind]

    return make_topology(
        make_tier("end", Device(**devices), _find(LINKS, end_edge, "end_edge"), parent),
        make_tier("edge", DEVICES["edge_server"], _find(LINKS, edge_cloud, "edge_cloud"), 0, edges),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )


def _find(presets: Mapping[str, Any], name: str, argument: str) -> Any:
    if name not in presets:
        names = ", ".join(presets)
        raise ValueError(f"{argument} {name!r} is none of {names}{suggest(name, presets)}")
    return presets[name]
