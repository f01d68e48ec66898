"""Systems that several solvers are tested on."""

import pytest

from eejax.tiers import Device, Link, make_tier, make_topology


@pytest.fixture
def unit_system():
    """Makes a device and a server with a link that carries a byte in a second."""

    def make(joules_per_byte_up=0):
        device = Device(
            name="unit",
            flops_per_s=1e9,
            memory_bandwidth_bytes_per_s=1e9,
            memory_bytes=1e9,
            idle_w=1,
            busy_w=2,
            overhead_s=0,
            source="made up",
        )
        link = Link(
            name="unit",
            bandwidth_up_bps=8,
            bandwidth_down_bps=8,
            rtt_s=0,
            jitter_s=0,
            loss=0,
            joules_per_byte_up=joules_per_byte_up,
            joules_per_byte_down=0,
            source="made up",
        )
        return make_topology(make_tier("end", device, link, 0), make_tier("cloud", device))

    return make
