"""Prices of placements against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from eejax.partition import (
    OBJECTIVES,
    Layer,
    LayerGraph,
    Tensor,
    exhaustive,
    objective,
    price,
    pricer,
    rates_of,
    summary,
)
from eejax.tiers import Device, Link, make_tier, make_topology, three_tier


def device(flops_per_s, **fields):
    fields = {"memory_bytes": 1e9, "idle_w": 1, "busy_w": 3, "overhead_s": 0} | fields
    return Device(
        name="toy",
        flops_per_s=flops_per_s,
        memory_bandwidth_bytes_per_s=1e6,
        source="made up for this test",
        **fields,
    )


def link(up, down, rtt_s, joules_up, joules_down):
    """A link of so many bytes a second."""
    return Link(
        name="toy",
        bandwidth_up_bps=8 * up,
        bandwidth_down_bps=8 * down,
        rtt_s=rtt_s,
        jitter_s=0,
        loss=0,
        joules_per_byte_up=joules_up,
        joules_per_byte_down=joules_down,
        source="made up for this test",
    )


END = device(1e6, overhead_s=0.1)
EDGE = device(1e7, idle_w=50, busy_w=100)
CLOUD = device(1e8, idle_w=100, busy_w=200)
RADIO = link(1e5, 2e5, 0.02, 4e-5, 1e-5)
WIRE = link(1e6, 1e6, 0.2, 3e-5, 3e-5)
SYSTEM = make_topology(
    make_tier("end", END, RADIO, 0), make_tier("edge", EDGE, WIRE, 0), make_tier("cloud", CLOUD)
)
CHAIN = LayerGraph(
    (Layer("a", 1e6, 5e5, 100), Layer("b", 2e7, 0, 200), Layer("c", 1e8, 0, 400)),
    (Tensor("x", -1, (0,), 10_000), Tensor("u", 0, (1,), 5000), Tensor("v", 1, (2,), 1000)),
    "layer",
)


def test_chain_over_three_tiers():
    plan = price(CHAIN, SYSTEM, (0, 1, 2), answer_nbytes=1000)
    assert plan.name == "end:a | edge:b | cloud:c"
    assert plan.assignment == (0, 1, 2)
    # a: max(1e6 / 1e6, 5e5 / 1e6) + 0.1; b: 2e7 / 1e7; c: 1e8 / 1e8.
    compute_s = [1.1, 2.0, 1.0]
    # u up: 0.01 + 5000 / 1e5; answer down: 0.01 + 1000 / 2e5. v and answer: 0.1 + 1000 / 1e6.
    transfer_s = [0.06 + 0.015, 0.101 + 0.101]
    np.testing.assert_allclose(plan.parts["compute_s"], [compute_s])
    np.testing.assert_allclose(plan.parts["transfer_s"], [transfer_s])
    np.testing.assert_allclose(plan.latency_s, [4.377])
    # 3 W * 1.1 s; 100 W * 2 s; 200 W * 1 s.
    np.testing.assert_allclose(plan.parts["compute_j"], [[3.3, 200, 200]])
    # 1 W * (4.377 - 1.1) s.
    np.testing.assert_allclose(plan.parts["idle_j"], [3.277])
    # 5000 * 4e-5 + 1000 * 1e-5; 1000 * 3e-5 twice.
    np.testing.assert_allclose(plan.parts["link_j"], [[0.21, 0.06]])
    np.testing.assert_allclose(plan.energy_j, [[3.3 + 3.277 + 0.21, 200.06, 200]])
    assert plan.link_bytes == {
        ("end", "edge"): 5000,
        ("edge", "end"): 1000,
        ("edge", "cloud"): 1000,
        ("cloud", "edge"): 1000,
    }
    assert (plan.feasible, plan.why) == (True, "")
    assert summary(plan) == pytest.approx(
        {
            "latency": 4.377,
            "worst_latency": 4.377,
            "energy": 406.847,
            "end_energy": 6.787,
            "money": 0,
            "bytes": 8000,
            "pipeline": 2.0,
        }
    )


def test_all_end_sends_nothing_and_waits_for_nothing():
    plan = price(CHAIN, SYSTEM, ["end"] * 3)
    assert plan.name == "all-end"
    # 1.1; 20 + 0.1; 100 + 0.1.
    np.testing.assert_allclose(plan.latency_s, [121.3])
    np.testing.assert_allclose(plan.energy_j, [[3 * 121.3, 0, 0]])
    assert set(plan.link_bytes.values()) == {0}


def test_early_exits_weigh_layers_tensors_and_answers():
    # Of 4 samples 2 leave after a, 1 after b, 1 after c.
    plan = price(CHAIN, SYSTEM, (0, 1, 2), reach=[1, 0.5, 0.25], answer_nbytes=1000)
    np.testing.assert_allclose(plan.parts["compute_s"], [[1.1, 1.0, 0.25]])
    # 0.5 * (0.06 + 0.015): who leaves after b or c; 0.25 * 0.202: who leaves after c.
    np.testing.assert_allclose(plan.parts["transfer_s"], [[0.0375, 0.0505]])
    assert plan.link_bytes == {
        ("end", "edge"): 2500,
        ("edge", "end"): 500,
        ("edge", "cloud"): 250,
        ("cloud", "edge"): 250,
    }


def test_an_exit_that_all_take_leaves_the_other_tiers_alone():
    plan = price(CHAIN, SYSTEM, (0, 1, 2), reach=[1, 0, 0])
    np.testing.assert_allclose(plan.latency_s, [1.1])
    np.testing.assert_allclose(plan.energy_j, [[3.3, 0, 0]])
    assert set(plan.link_bytes.values()) == {0}


SKIP = LayerGraph(
    (Layer("a", 1e6, 0, 0), Layer("b", 1e6, 0, 0), Layer("c", 1e6, 0, 0), Layer("d", 1e6, 0, 0)),
    (
        Tensor("x", -1, (0,), 100),
        Tensor("u", 0, (1, 2, 3), 1000),  # Skips b, and b and c.
        Tensor("v", 1, (2,), 10),
        Tensor("w", 2, (3,), 1),
    ),
    "layer",
)


def test_a_tensor_with_many_readers_crosses_a_link_once():
    plan = price(SKIP, SYSTEM, (0, 1, 2, 2), answer_nbytes=0)
    # u to b on the edge and on to c and d in the cloud, v from b to c.
    assert plan.link_bytes["end", "edge"] == 1000
    assert plan.link_bytes["edge", "cloud"] == 1010
    # 0.01 + 1000 / 1e5; 0.1 + 1000 / 1e6 and 0.1 + 10 / 1e6.
    np.testing.assert_allclose(plan.parts["transfer_s"], [[0.02, 0.20101]])


def test_a_tensor_crosses_for_the_likeliest_reader_beyond_the_link():
    plan = price(SKIP, SYSTEM, (0, 1, 2, 2), reach=[1, 0.5, 0.2, 0.1], answer_nbytes=0)
    assert plan.link_bytes["end", "edge"] == pytest.approx(0.5 * 1000)
    assert plan.link_bytes["edge", "cloud"] == pytest.approx(0.2 * 1010)


def test_the_input_crosses_for_a_late_reader():
    graph = SKIP._replace(tensors=(SKIP.tensors[0]._replace(consumers=(0, 3)), *SKIP.tensors[1:]))
    plan = price(graph, SYSTEM, (0, 0, 0, 1), answer_nbytes=0)
    assert plan.link_bytes["end", "edge"] == 100 + 1000 + 1


def test_unequal_ends_take_their_own_paths():
    slow, fast = END, dataclasses.replace(END, flops_per_s=2e6, overhead_s=0.0)
    weak = dataclasses.replace(EDGE, flops_per_s=5e6, busy_w=60)
    topology = make_topology(
        make_tier("end", [slow, fast, slow], [RADIO, RADIO, link(1e4, 2e5, 0.02, 0, 0)], [0, 1, 1]),
        make_tier("edge", [EDGE, weak], [WIRE, link(1e6, 1e6, 0.4, 0, 0)], 0),
        make_tier("cloud", CLOUD),
    )
    plan = price(CHAIN, topology, (0, 1, 2), answer_nbytes=1000)
    np.testing.assert_allclose(plan.parts["compute_s"], [[1.1, 2, 1], [0.5, 4, 1], [1.1, 4, 1]])
    # The last radio: 0.01 + 5000 / 1e4 up; the second wire: 0.2 + 1000 / 1e6 each way.
    np.testing.assert_allclose(
        plan.parts["transfer_s"], [[0.075, 0.202], [0.075, 0.402], [0.525, 0.402]]
    )
    latency = [4.377, 5.977, 7.027]
    np.testing.assert_allclose(plan.latency_s, latency)
    np.testing.assert_allclose(plan.energy_j[:, 1], [200.06, 240, 240])
    assert objective(plan, "latency") == pytest.approx(np.mean(latency))
    assert objective(plan, "worst_latency") == pytest.approx(7.027)


def test_one_tier_has_no_links():
    plan = price(CHAIN, make_topology(make_tier("cloud", CLOUD)), [0, 0, 0])
    np.testing.assert_allclose(plan.latency_s, [0.5 + 0.2 + 1.0])
    assert (plan.name, plan.link_bytes, plan.parts["link_j"].shape) == ("all-cloud", {}, (1, 0))


def test_breakdown_adds_up_for_every_plan():
    for plan in exhaustive(SKIP, three_tier(ends=5, edges=2), reach=[1, 1, 0.5, 0.25]):
        parts = plan.parts
        np.testing.assert_allclose(
            parts["compute_s"].sum(1) + parts["transfer_s"].sum(1), plan.latency_s
        )
        joules = parts["compute_j"].sum(1) + parts["idle_j"] + parts["link_j"].sum(1)
        np.testing.assert_allclose(joules, plan.energy_j.sum(1))


def test_a_faster_link_never_slows_a_plan():
    def system(rate):
        wire = link(1e6 * rate, 1e6 * rate, 0.2, 0, 0)
        return make_topology(
            make_tier("end", END, RADIO, 0), make_tier("edge", EDGE, wire, 0), SYSTEM.tiers[2]
        )

    slow, fast = (
        {plan.name: plan for plan in exhaustive(SKIP, system(rate), reach=[1, 0.9, 0.9, 0.3])}
        for rate in (1, 10)
    )
    for name, plan in slow.items():
        assert (fast[name].latency_s <= plan.latency_s).all()
        uses = plan.link_bytes["edge", "cloud"] > 0
        assert (fast[name].latency_s < plan.latency_s).all() == uses


def test_memory_of_the_smallest_node_in_use_decides():
    tight, tiny = (dataclasses.replace(EDGE, memory_bytes=b) for b in (599, 1))
    topology = make_topology(
        make_tier("end", END, RADIO, [1, 1]),
        make_tier("edge", [EDGE, tight, tiny], WIRE, 0),  # The last serves nobody.
        make_tier("cloud", CLOUD),
    )
    plan = price(CHAIN, topology, [1, 1, 2])
    assert plan.feasible
    plan = price(CHAIN, topology, [0, 1, 1])
    assert not plan.feasible
    assert plan.why == "edge: 600 bytes of parameters do not fit the 599 bytes of node 1 (toy)"


def test_names_of_plans():
    count = 7
    graph = LayerGraph(
        tuple(Layer(f"l{i}", 1, 1, 1) for i in range(count)),
        tuple(Tensor(f"t{i}", -1, (i,), 1) for i in range(count)),
        "layer",
    )
    run = pricer(rates_of(graph, SYSTEM))
    assert run([0, 0, 0, 0, 1, 1, 2]).name == "end:l0..l3 | edge:l4+l5 | cloud:l6"
    assert run([0, 2, 0, 2, 2, 2, 0]).name == "end:l0+l2+l6 | cloud:l1+l3..l5"
    assert run([2] * count).name == "all-cloud"
    assert run([2] * count, "offload").name == "offload"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: price(CHAIN, SYSTEM, (0, 2, 1)),
            "assignment puts 'c' on 'edge', below 'cloud' where what it reads is made",
        ),
        (lambda: price(CHAIN, SYSTEM, (0, 1)), "assignment must name 3 tiers, got 2"),
        (lambda: price(CHAIN, SYSTEM, (0, 1, 3)), r"tier index must be in \[0, 3\), got 3"),
        (
            lambda: price(CHAIN, SYSTEM, ("end", "egde", "cloud")),
            "tier 'egde' is none of end, edge, cloud; did you mean 'edge'?",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), reach=[1, 1]),
            r"reach must be 3 probabilities \[layers\], got shape \(2,\)",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), reach=[0.9, 0.5, 0.5]),
            r"reach\[0\] must be 1: .* got 0.9",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), reach=[1, 0.5, 0.6]),
            r"reach\[2\] must be in \[0, reach\[1\]\], got 0.6",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), reach=[1, 0.5, -0.1]),
            r"reach\[2\] must be in \[0, reach\[1\]\], got -0.1",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), reach=[1, np.nan, 0]),
            r"reach\[1\] must be in \[0, reach\[0\]\], got nan",
        ),
        (
            lambda: price(CHAIN, SYSTEM, (0, 0, 0), answer_nbytes=-1),
            "answer_nbytes must be >= 0, got -1",
        ),
        (
            lambda: price(CHAIN._replace(tensors=()), SYSTEM, (0, 0, 0)),
            r"layers\[0\] 'a' reads no tensor",
        ),
        (
            lambda: objective(price(CHAIN, SYSTEM, (0, 0, 0)), "latencies"),
            "objective 'latencies' is none of .*; did you mean 'latency'?",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_objectives_are_those_of_the_summary():
    plan = price(CHAIN, SYSTEM, (0, 1, 1))
    assert summary(plan) == {name: objective(plan, name) for name in OBJECTIVES}
