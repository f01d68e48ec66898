"""JointDNN against every placement of random chains, with blocks and within limits."""

import itertools

import numpy as np
import pytest

from eejax.partition import LINEAR, Layer, LayerGraph, Tensor, exhaustive, min_cut, objective
from eejax.partition.jointdnn import jointdnn, jointdnn_ilp
from eejax.tiers import make_topology, three_tier, transfer_seconds


def chain(rng, layers):
    return LayerGraph(
        tuple(Layer(f"l{i}", 1e6, 0, 10) for i in range(layers)),
        tuple(Tensor(f"t{i}", i - 1, (i,), 10 ** rng.uniform(1, 4)) for i in range(layers)),
        "layer",
    )


def up_and_down(rng, layers):
    """Seconds by layer and tier of which each tier is by far the best at some."""
    return rng.uniform(0.5, 1, (layers, 3)) * 10.0 ** rng.integers(-3, 1, (layers, 3))


@pytest.mark.parametrize("seed", range(20))
def test_equals_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(1, 9))
    graph, topology = chain(rng, layers), three_tier(ends=2)
    low, high = [(0, 1), (0, 2), (1, 2)][seed % 3]
    other = ({0, 1, 2} - {low, high}).pop()
    keywords = {
        "layer_seconds": up_and_down(rng, layers),
        "reach": np.append(1, np.sort(rng.random(layers - 1))[::-1]),
    }
    banned = [(f"l{i}", other) for i in range(layers)]
    target = LINEAR[seed % len(LINEAR)]
    for two_way in (True, False):
        exact = min_cut(graph, topology, target, two_way=two_way, forbidden=banned, **keywords)
        plan = jointdnn(graph, topology, target, tiers=(low, high), two_way=two_way, **keywords)
        assert objective(plan, target) == pytest.approx(objective(exact, target), rel=1e-8)
        assert set(plan.assignment) <= {low, high}
    if layers < 6:
        plans = exhaustive(graph, topology, target, two_way=True, forbidden=banned, **keywords)
        plan = jointdnn(graph, topology, target, tiers=(low, high), **keywords)
        least = min(objective(p, target) for p in plans if p.feasible)
        assert objective(plan, target) == pytest.approx(least)


def test_goes_up_and_down_where_one_cut_cannot():
    rng = np.random.default_rng(0)
    seconds = np.array([[0, 9, 9], [9, 9, 0], [0, 9, 9], [9, 9, 0], [0, 9, 9]])
    plan = jointdnn(chain(rng, 5), three_tier(), layer_seconds=seconds)
    assert plan.assignment == (0, 2, 0, 2, 0)


@pytest.mark.parametrize("seed", range(8))
def test_measured_blocks(seed):
    rng = np.random.default_rng(seed)
    layers = 6
    graph, topology = chain(rng, layers), make_topology(*three_tier().tiers)
    layer = up_and_down(rng, layers)[:, [0, 2]]
    blocks = np.full((layers, layers, 2), np.nan)
    for i in range(layers):
        for j in range(i, layers):
            # A block takes less than its layers, one after the other.
            blocks[i, j] = layer[i : j + 1].sum(0) * rng.uniform(0.3, 1) ** (j - i)
    links = [tier.link(0) for tier in topology.tiers[:-1]]

    def cost(x):
        edges = [0, *(i for i in range(1, layers) if x[i] != x[i - 1]), layers]
        compute = sum(blocks[i, j - 1, x[i]] for i, j in itertools.pairwise(edges))
        made = (0, *x)
        sent = sum(
            transfer_seconds(link, graph.tensors[i].nbytes, "up" if x[i] else "down")
            for link in links
            for i in range(layers)
            if x[i] != made[i]
        )
        return compute + sent + sum(transfer_seconds(link, 4, "down") * x[-1] for link in links)

    least = min(map(cost, itertools.product((0, 1), repeat=layers)))
    plan = jointdnn(graph, topology, block_seconds=blocks)
    assert objective(plan, "latency") == pytest.approx(least)
    assert cost([k // 2 for k in plan.assignment]) == pytest.approx(least)
    # Blocks that are the sums of their layers change nothing.
    for i in range(layers):
        for j in range(i, layers):
            blocks[i, j] = layer[i : j + 1].sum(0)
    seconds = np.stack([layer[:, 0], np.zeros(layers), layer[:, 1]], 1)
    for target in ("latency", "end_energy"):
        plan = jointdnn(graph, topology, target, block_seconds=blocks)
        plain = jointdnn(graph, topology, target, layer_seconds=seconds)
        assert plan.assignment == plain.assignment
        assert objective(plan, target) == pytest.approx(objective(plain, target))


def test_fused_layers_stay_together():
    # Alone the second layer is faster above, but not when it runs with the others in one program.
    blocks = np.zeros((3, 3, 2))
    blocks[..., 0] = [[1, 1.2, 1.4], [0, 9, 9.2], [0, 0, 1]]
    blocks[..., 1] = [[5, 9, 9], [0, 0.1, 5], [0, 0, 9]]
    graph = chain(np.random.default_rng(0), 3)
    plan = jointdnn(graph, three_tier(), block_seconds=blocks)
    assert plan.name == "all-end"
    assert plan.latency_s.mean() == pytest.approx(1.4)
    seconds = np.stack([[1, 9, 1], [9, 9, 9], [5, 0.1, 9]], 1)
    assert jointdnn(graph, three_tier(), layer_seconds=seconds).assignment == (0, 2, 0)


@pytest.mark.parametrize("seed", range(6))
def test_integer_program_keeps_the_limits(seed):
    rng = np.random.default_rng(seed)
    graph, topology = chain(rng, 5), three_tier(ends=2)
    keywords = {"layer_seconds": up_and_down(rng, 5)}
    banned = [(f"l{i}", "edge") for i in range(5)]
    plans = [
        plan
        for plan in exhaustive(graph, topology, two_way=True, forbidden=banned, **keywords)
        if plan.feasible
    ]
    uses = {
        "battery_j": lambda plan: objective(plan, "end_energy"),
        "cloud_s": lambda plan: plan.parts["compute_s"][:, 2].mean(),
        "deadline_s": lambda plan: objective(plan, "latency"),
    }
    plan = jointdnn_ilp(graph, topology, **keywords)
    assert objective(plan, "latency") == pytest.approx(objective(plans[0], "latency"), rel=1e-5)
    for name, use in uses.items():
        target = "end_energy" if name == "deadline_s" else "latency"
        most = float(np.quantile([use(p) for p in plans], 0.3)) * (1 + 1e-6)
        least = min(objective(p, target) for p in plans if use(p) <= most)
        plan = jointdnn_ilp(graph, topology, target, **{name: most}, **keywords)
        assert use(plan) <= most * (1 + 1e-6)
        assert objective(plan, target) == pytest.approx(least, rel=1e-5)
    with pytest.raises(ValueError, match=r"no placement is feasible .* latency <= 1e-09"):
        jointdnn_ilp(graph, topology, deadline_s=1e-9, **keywords)


def test_what_it_cannot_do_is_refused():
    graph, topology = chain(np.random.default_rng(0), 3), three_tier()
    branched = graph._replace(
        tensors=(*graph.tensors[:1], Tensor("skip", 0, (1, 2), 9), *graph.tensors[2:])
    )
    blocks = np.ones((3, 3, 2))
    for solver in (jointdnn, jointdnn_ilp, lambda *a: jointdnn(*a, block_seconds=blocks)):
        with pytest.raises(ValueError, match="'skip' of l0 is read by l1, l2, not by the next"):
            solver(branched, topology)
    for arguments, message in (
        ({"setup_s": 0.1}, "jointdnn knows no set-up costs"),
        ({"block_seconds": np.ones((3, 2))}, r"must be \[3, 3, 2\], got \(3, 2\)"),
        ({"block_seconds": -blocks}, "finite and >= 0 wherever i <= j"),
        ({"block_seconds": blocks, "reach": [1, 1, 0.5]}, "cannot be combined with reach"),
        ({"forbidden": [("l1", "end"), ("l1", "cloud")]}, "every placement is forbidden"),
    ):
        with pytest.raises(ValueError, match=message):
            jointdnn(graph, topology, **arguments)
