"""Cogent against every cut and every way to prune the layers below it."""

import dataclasses
import itertools

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, LinkCodec, Tensor, objective, price
from eejax.partition.cogent import cogent
from eejax.partition.neurosurgeon import neurosurgeon
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier

RATIOS = (0.0, 0.5, 0.75)


def random_chain(rng, layers, free=()):
    return LayerGraph(
        tuple(
            Layer(
                f"l{i}",
                10 ** rng.uniform(7, 11),
                10 ** rng.uniform(5, 8),
                0 if i in free else int(rng.integers(1, 100)) * 16,
            )
            for i in range(layers)
        ),
        tuple(Tensor(f"t{i}", i - 1, (i,), 10 ** rng.uniform(4, 6)) for i in range(layers)),
        "layer",
    )


def random_loss(rng, layers):
    return np.hstack([np.zeros((layers, 1)), np.sort(rng.uniform(0, 0.05, (layers, 2)))])


def every_plan(graph, topology, tiers, loss, max_loss, **keywords):
    """Prices all cuts and ratios; nothing of it is shared with the package but the price."""
    n, (low, high) = len(graph.layers), tiers
    free = [not layer.parameter_bytes for layer in graph.layers]
    for cut in range(n + 1):
        for ratios in itertools.product(range(3), repeat=cut):
            own = [r if not free[i] else None for i, r in enumerate(ratios)]
            if any(r for i, r in enumerate(ratios) if free[i]):
                continue
            lost = sum(loss[i, r] for i, r in enumerate(own) if r is not None)
            keep, alive = [], 1.0
            for i in range(n):
                if not free[i]:
                    alive = 1 - RATIOS[own[i]] if i < cut else 1.0
                keep.append(alive)
            if lost > max_loss or keep[-1] != 1:
                continue
            layers = []
            for i, layer in enumerate(graph.layers):
                before = keep[i - 1] if i else 1.0
                work = keep[i] if free[i] else before * keep[i]
                layers.append(
                    layer._replace(
                        flops=layer.flops * work,
                        bytes_moved=layer.bytes_moved
                        * (keep[i] if free[i] else max(before, keep[i])),
                        parameter_bytes=int(np.ceil(layer.parameter_bytes * work)),
                    )
                )
            tensors = [
                t._replace(nbytes=t.nbytes * (keep[t.producer] if t.producer >= 0 else 1))
                for t in graph.tensors
            ]
            part = graph._replace(layers=tuple(layers), tensors=tuple(tensors))
            yield lost, part, price(part, topology, [low] * cut + [high] * (n - cut), **keywords)


@pytest.mark.parametrize("seed", range(12))
def test_best_of_all_cuts_and_ratios(seed):
    rng = np.random.default_rng(seed)
    free = [(), (1,), (2, 3), (3,)][seed % 4]
    graph, topology = random_chain(rng, 4, free), three_tier(ends=2)
    loss, goal = random_loss(rng, 4), ("latency", "end_energy")[seed // 2 % 2]
    tiers = [(0, 1), (0, 2), (1, 2)][seed % 3]
    keywords = {"reach": [1, 0.8, 0.8, 0.5]} if seed % 5 == 4 else {}
    for max_loss in (0.0, 0.03, 1.0):
        plans = list(every_plan(graph, topology, tiers, loss, max_loss, **keywords))
        found = cogent(
            graph,
            topology,
            goal,
            ratios=RATIOS,
            loss=loss,
            max_loss=max_loss,
            tiers=tiers,
            **keywords,
        )
        least = min(objective(plan, goal) for *_, plan in plans)
        cost = objective(found.plan, goal)
        assert cost == pytest.approx(least, rel=1e-9)
        assert found.loss <= max_loss
        # The same pruned graph is among them, with the same loss and price.
        same = [row for row in plans if row[1] == found.graph]
        assert any(
            row[2].assignment == found.plan.assignment and row[0] == pytest.approx(found.loss)
            for row in same
        )
        if max_loss == 0:
            assert found.graph == graph


def test_golden_pruning():
    layers = (Layer("a", 8e9, 0, 4000), Layer("b", 8e9, 0, 4000), Layer("c", 1e12, 0, 4000))
    tensors = tuple(Tensor(f"t{i}", i - 1, (i,), 8e6 / 100**i) for i in range(3))
    graph, topology = LayerGraph(layers, tensors, "layer"), three_tier(ends=1, edges=1)
    loss = [[0, 0.02, 0.9], [0, 0.02, 0.9], [0, 0, 0]]
    found = cogent(graph, topology, ratios=RATIOS, loss=loss, max_loss=0.05, tiers=(0, 1))
    assert found.plan.name == "end:a+b | edge:c"
    assert found.ratios == (0.5, 0.5, 0.0)
    assert found.loss == pytest.approx(0.04)
    # Half of the outputs of a; a quarter of b; half of the inputs of c, and of what crosses.
    assert [row.flops for row in found.graph.layers] == [4e9, 2e9, 5e11]
    assert [row.parameter_bytes for row in found.graph.layers] == [2000, 1000, 2000]
    assert found.plan.link_bytes["end", "edge"] == 400
    pi = topology.tiers[0].device(0)
    assert found.plan.parts["compute_s"][0, 0] == pytest.approx(
        6e9 / pi.flops_per_s + 2 * pi.overhead_s
    )


def test_both_together_beat_two_steps():
    rng = np.random.default_rng(5)
    better = 0
    for _ in range(20):
        graph, topology, loss = random_chain(rng, 5), three_tier(), random_loss(rng, 5)
        given = {"ratios": RATIOS, "loss": loss, "max_loss": 0.2}
        joint = objective(cogent(graph, topology, **given).plan, "latency")
        steps = cogent(graph, topology, in_two_steps=True, **given)
        whole = neurosurgeon(graph, topology)
        assert steps.plan.assignment == whole.assignment
        assert joint <= objective(steps.plan, "latency") * (1 + 1e-12)
        assert objective(steps.plan, "latency") <= objective(whole, "latency") * (1 + 1e-12)
        better += joint < objective(steps.plan, "latency") * 0.99
    assert better >= 5


def test_pruning_makes_room():
    graph = random_chain(np.random.default_rng(0), 3)
    held = sum(layer.parameter_bytes for layer in graph.layers)
    end = dataclasses.replace(DEVICES["raspberry_pi_4"], memory_bytes=held - 1.0)
    slow = dataclasses.replace(LINKS["wifi"], bandwidth_up_bps=100)
    topology = make_topology(make_tier("end", end, slow, 0), make_tier("top", DEVICES["cloud_gpu"]))
    given = {"ratios": RATIOS, "loss": np.zeros((3, 3)), "max_loss": 0.0}
    found = cogent(graph, topology, **given)
    assert found.plan.name == "all-end"
    assert found.plan.feasible
    whole = cogent(graph, topology, **(given | {"ratios": (0,), "loss": np.zeros((3, 1))}))
    assert whole.plan.name != "all-end"


def test_measured_seconds_shrink_as_flops():
    graph = random_chain(np.random.default_rng(0), 2)
    found = cogent(
        graph,
        three_tier(ends=1, edges=1),
        ratios=RATIOS,
        loss=np.zeros((2, 3)),
        max_loss=0.0,
        layer_seconds=[[8, 99, 99], [99, 99, 40]],
    )
    assert found.plan.assignment == (0, 2)
    assert found.plan.parts["compute_s"].tolist() == [[2, 0, 10]]


def test_what_it_cannot_do_is_refused():
    graph, topology = random_chain(np.random.default_rng(0), 3), three_tier()
    given = {"ratios": RATIOS, "loss": np.zeros((3, 3)), "max_loss": 0.0}
    for arguments, message in (
        ({"two_way": True}, "cogent sends data up only"),
        ({"setup_s": 0.1}, "knows no set-up costs"),
        ({"codecs": [LinkCodec("c", 1)]}, "leave codecs out"),
        ({"ratios": (0.5, 0.1, 0)}, "ratios must lie in"),
        ({"ratios": (0, 0.1, 1)}, "ratios must lie in"),
        ({"loss": np.zeros((2, 3))}, r"loss must be \[layers, ratios\] = \(3, 3\)"),
        ({"loss": np.ones((3, 3))}, "and 0 for ratio 0"),
        ({"max_loss": -1}, "max_loss must be >= 0"),
        ({"forbidden": [("l0", t) for t in (0, 2)]}, "no cut is feasible"),
        ({"objective": "worst_latency"}, "no sum over layers"),
    ):
        with pytest.raises(ValueError, match=message):
            cogent(graph, topology, **(given | arguments))
    skip = graph._replace(tensors=(*graph.tensors, Tensor("skip", 0, (2,), 9)))
    with pytest.raises(ValueError, match="cogent cuts chains only"):
        cogent(skip, topology, **given)
