"""Cost models against numbers worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.tiers import (
    DEVICES,
    Device,
    Link,
    Work,
    compute_joules,
    roofline,
    stack,
    three_tier,
    transfer_joules,
    transfer_seconds,
    work_of,
)
from eejax.tiers import cost as cost_module

DEVICE = Device(
    name="toy",
    flops_per_s=2e9,
    memory_bandwidth_bytes_per_s=1e9,
    memory_bytes=1e9,
    idle_w=2,
    busy_w=10,
    overhead_s=0.001,
    source="made up for this test",
)
LINK = Link(
    name="toy",
    bandwidth_up_bps=8e6,
    bandwidth_down_bps=16e6,
    rtt_s=0.02,
    jitter_s=0.5,
    loss=0.2,
    joules_per_byte_up=4e-6,
    joules_per_byte_down=1e-6,
    source="made up for this test",
)


def test_roofline_is_bound_by_compute_or_by_memory():
    # 4e9 FLOP / 2e9 FLOP/s = 2 s, 1e9 B / 1e9 B/s = 1 s.
    assert roofline(DEVICE, 4e9, 1e9) == pytest.approx(2.001)
    # 4e9 FLOP take 2 s, 3e9 B take 3 s.
    assert roofline(DEVICE, 4e9, 3e9) == pytest.approx(3.001)
    # The ridge: both take 1 s.
    assert roofline(DEVICE, 2e9, 1e9) == pytest.approx(1.001)
    assert roofline(DEVICE, 0, 1e9) == pytest.approx(1.001)
    assert roofline(DEVICE, 0, 0) == 0


def test_roofline_over_nodes_and_cuts():
    devices = stack([DEVICE, dataclasses.replace(DEVICE, flops_per_s=1e9, overhead_s=0)])
    flops = np.array([[2e9], [0.0], [4e9]])
    seconds = roofline(devices, flops, flops / 4)
    np.testing.assert_allclose(seconds, [[1.001, 2], [0, 0], [2.001, 4]])


def test_transfer_is_half_a_round_trip_and_the_bits():
    # 1e6 B = 8e6 bit: 1 s up, 0.5 s down, each over 1 - 0.2; plus 0.01 s.
    assert transfer_seconds(LINK, 1e6, "up") == pytest.approx(0.01 + 1.25)
    assert transfer_seconds(LINK, 1e6, "down") == pytest.approx(0.01 + 0.625)
    np.testing.assert_allclose(transfer_seconds(LINK, [0, 800_000], "up"), [0, 1.01])
    links = stack([LINK, dataclasses.replace(LINK, loss=0.0)])
    np.testing.assert_allclose(transfer_seconds(links, 1e6, "up"), [1.26, 1.01])


def test_energy_of_a_node_is_linear_in_its_load():
    assert compute_joules(DEVICE, 3.0) == 30
    assert compute_joules(DEVICE, 3.0, utilisation=0) == 6
    assert compute_joules(DEVICE, 3.0, utilisation=0.25) == 12
    np.testing.assert_allclose(compute_joules(stack([DEVICE, DEVICE]), [1, 2]), [10, 20])


def test_energy_of_a_transfer_counts_resent_bytes():
    assert transfer_joules(LINK, 1000, "up") == pytest.approx(5e-3)
    assert transfer_joules(LINK, 1000, "down") == pytest.approx(1.25e-3)
    assert transfer_joules(LINK, 0, "up") == 0


def test_a_whole_plan_is_priced_for_all_ends_at_once():
    topology = three_tier(ends=5, edges=2)
    end, edge, _ = topology.tiers
    servers = edge.devices.flops_per_s[topology.ancestor("edge")]
    assert servers.shape == (5,)
    seconds = (
        roofline(end.devices, 1e6, 1e5)
        + transfer_seconds(end.links, 784, "up")
        + roofline(DEVICES["edge_server"], 1e7, 1e6)
    )
    singly = [
        roofline(end.device(i), 1e6, 1e5)
        + transfer_seconds(end.link(i), 784, "up")
        + roofline(edge.device(topology.path(i)[1]), 1e7, 1e6)
        for i in range(5)
    ]
    np.testing.assert_allclose(seconds, singly)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roofline(DEVICE, -1, 0), "flops must be >= 0, got -1"),
        (lambda: roofline(DEVICE, 1, [2, np.nan]), "bytes_moved must be >= 0, got nan"),
        (lambda: transfer_seconds(LINK, -8, "up"), "nbytes must be >= 0, got -8"),
        (lambda: transfer_seconds(LINK, 8, "left"), "direction must be 'up' or 'down', got 'left'"),
        (lambda: transfer_joules(LINK, 8, "UP"), "direction must be 'up' or 'down', got 'UP'"),
        (lambda: compute_joules(DEVICE, -1), "seconds must be >= 0, got -1"),
        (lambda: compute_joules(DEVICE, 1, 1.5), r"utilisation must be in \[0, 1\], got 1.5"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def abstract(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_work_of_a_matrix_product():
    work = work_of(jnp.matmul, abstract(8, 16), abstract(16, 4))
    assert work == Work(2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))


def test_work_of_a_tree_and_of_nothing():
    def layer(params, x):
        return x @ params["w"] + params["b"][None]

    params = {"w": abstract(16, 4), "b": abstract(4)}
    assert work_of(layer, params, abstract(8, 16)).flops == 2 * 8 * 16 * 4 + 8 * 4
    assert work_of(lambda x: x, abstract(8, 16)) == Work(0, 0)


@pytest.mark.parametrize("unroll", [1, 2, 5])
def test_work_of_a_scan_counts_as_often_as_it_runs(unroll):
    def step(x, _):
        # Two products in each of three steps, and another.
        inner = jax.lax.scan(lambda x, _: (x @ jnp.ones((16, 16)) @ jnp.ones((16, 16)), None), x,
                             None, 3)  # fmt: skip
        return inner[0] @ jnp.ones((16, 16)), None

    def loop(x):
        return jax.checkpoint(lambda x: jax.lax.scan(step, x, None, 10, unroll=unroll)[0])(x)

    product = 2 * 8 * 16 * 16
    assert work_of(loop, abstract(8, 16)).flops == pytest.approx(10 * 7 * product, rel=0.01)


def test_work_of_another_loop_is_that_of_its_body():
    def loop(x, most):
        return jax.lax.while_loop(
            lambda c: c[0] < most, lambda c: (c[0] + 1, c[1] @ jnp.ones((16, 16))), (0, x)
        )

    once, often = (work_of(lambda x, n=n: loop(x, n), abstract(8, 16)).flops for n in (2, 50))
    assert once == often == pytest.approx(2 * 8 * 16 * 16, rel=0.01)


def test_work_of_says_when_there_is_no_analysis(monkeypatch):
    class Lowered:
        def lower(self, *args):
            return self

        def cost_analysis(self):
            return None

    monkeypatch.setattr(cost_module.jax, "jit", lambda fn: Lowered())
    with pytest.raises(RuntimeError, match=r"no cost analysis on the backend 'cpu' \(got None"):
        work_of(jnp.sin, abstract(3))
