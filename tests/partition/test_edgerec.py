"""EdgeRec's placement of embeddings against numbers by hand."""

import dataclasses

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, Tensor, objective, price
from eejax.partition.edgerec import edgerec
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier

LAYERS = (
    Layer("items", 0, 3200, 230_000_000),
    Layer("users", 10, 64, 10_000),
    Layer("behaviour", 2e6, 4e6, 3_000_000),
    Layer("rank", 1e6, 2e6, 2_000_000),
)
TENSORS = (
    Tensor("ids", -1, (0, 1), 200),
    Tensor("rows", 0, (2, 3), 3200),
    Tensor("user", 1, (2,), 64),
    Tensor("hidden", 2, (3,), 256),
)
GRAPH = LayerGraph(LAYERS, TENSORS, "layer")


def phone_and_cloud(memory_bytes):
    phone = dataclasses.replace(DEVICES["phone"], memory_bytes=memory_bytes)
    return make_topology(
        make_tier("end", phone, LINKS["wifi"], parent=0), make_tier("cloud", DEVICES["cloud_gpu"])
    )


def test_only_the_table_is_too_large_for_the_phone():
    found = edgerec(GRAPH, phone_and_cloud(100_000_000))
    # 10,000 bytes for 10 FLOP are many, a dense layer has 2 for each.
    assert found.embeddings == ("items", "users")
    assert found.plan.assignment == (1, 1, 0, 0)
    assert found.plan.feasible
    assert [(p.name, p.feasible) for p in found.alternatives] == [
        ("all-cloud", True),
        ("all-end", False),
    ]
    # The identifiers go up once; rows and user come down once each, for all of their readers.
    assert found.plan.link_bytes == {("end", "cloud"): 200, ("cloud", "end"): 3264}


def test_golden_latency():
    topology = phone_and_cloud(100_000_000)
    phone, cloud, link = (
        topology.tiers[0].device(0),
        topology.tiers[1].device(0),
        topology.tiers[0].link(0),
    )

    def send(nbytes, bps):
        return link.rtt_s / 2 + 8 * nbytes / bps / (1 - link.loss)

    def run(device, row):
        busy = max(
            row.flops / device.flops_per_s, row.bytes_moved / device.memory_bandwidth_bytes_per_s
        )
        return busy + device.overhead_s

    expected = (
        send(200, link.bandwidth_up_bps)
        + sum(run(cloud, row) for row in LAYERS[:2])
        + send(3200, link.bandwidth_down_bps)
        + send(64, link.bandwidth_down_bps)
        + sum(run(phone, row) for row in LAYERS[2:])
    )
    assert edgerec(GRAPH, topology).plan.latency_s[0] == pytest.approx(expected)


def test_memory_is_what_makes_it_pay():
    roomy = edgerec(GRAPH, phone_and_cloud(1_000_000_000))
    assert roomy.alternatives[0].name in ("all-end", "all-cloud")
    assert all(plan.feasible for plan in roomy.alternatives)
    # With room for the table, nothing has to cross.
    assert roomy.plan.latency_s > min(p.latency_s for p in roomy.alternatives)
    narrow = edgerec(GRAPH, phone_and_cloud(4_000_000))
    assert not narrow.plan.feasible
    assert "5,000,000 bytes of parameters do not fit" in narrow.plan.why


def test_plan_is_priced_as_any_other():
    topology = three_tier(ends=3)
    keywords = {"answer_nbytes": 100, "setup_s": 0.01, "usd_per_gb": 0.1}
    for goal in ("latency", "energy", {"latency": 1, "money": 5}):
        found = edgerec(
            GRAPH, topology, goal, embeddings=["items"], tiers=("end", "edge"), **keywords
        )
        same = price(GRAPH, topology, [1, 0, 0, 0], two_way=True, **keywords)
        assert found.plan.name == "end:users..rank | edge:items"
        assert objective(found.plan, goal) == objective(same, goal)
        first, second = (objective(plan, goal) for plan in found.alternatives)
        assert first <= second


def test_wrong_arguments_are_named():
    for keywords, message in (
        ({"embeddings": ["item"]}, "there is no layer 'item'; did you mean 'items'"),
        ({"embeddings": []}, "must name at least one"),
        ({"two_way": False}, "two_way cannot be False"),
        ({"bytes_per_flop": 0}, "bytes_per_flop must be > 0"),
        ({"bytes_per_flop": np.inf}, "no layer has more than inf bytes"),
        ({"objective": "worst_latency"}, "no sum over layers"),
        ({"tiers": ("cloud", "end")}, "the lower one first"),
    ):
        with pytest.raises(ValueError, match=message):
            edgerec(GRAPH, three_tier(), **keywords)
