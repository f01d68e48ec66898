"""The minimum cut and the integer program against every placement of random graphs."""

import itertools

import numpy as np
import pytest

from eejax.partition import (
    LINEAR,
    Costs,
    Layer,
    LayerGraph,
    LinkCodec,
    Tensor,
    cut,
    exact,
    exhaustive,
    milp,
    min_cut,
    objective,
    price,
    total,
)
from eejax.tiers import three_tier


def random_costs(rng, layers, tiers, two_way, setup, forbidden):
    """Costs whose best placements often use many tiers: most layers like one tier."""
    likes = np.sort(rng.integers(tiers, size=layers)) if rng.random() < 0.7 else None
    layer = rng.uniform(0, 10, (layers, tiers))
    if likes is not None:
        layer[np.arange(layers), likes] *= 0.1
    if forbidden:
        ban = rng.random((layers, tiers)) < 0.2
        ban[:, -1] &= rng.random(layers) < 0.5
        ban[np.arange(layers), rng.integers(tiers, size=layers)] = False
        layer[ban] = np.inf
    readers = {}
    for i in range(layers):
        many = min(i + 1, int(rng.integers(1, 4)))
        for j in rng.choice(np.arange(-1, i), size=many, replace=False):
            readers.setdefault(int(j), []).append(i)
    message = np.repeat(np.arange(len(readers)), [len(r) for r in readers.values()])
    shape = (len(readers), tiers - 1)
    half = (1 + layers) // 2
    return Costs(
        layer,
        np.array(list(readers)),
        message,
        np.concatenate([np.array(r) for r in readers.values()]),
        rng.uniform(0, 1, shape),
        rng.uniform(0, 1, shape) if two_way else np.full(shape, np.inf),
        rng.uniform(0, 1, (2, tiers - 1)) * setup,
        np.array([half, layers]),
        np.zeros(shape, int),
    )


def all_totals(costs):
    """Costs of every placement, message by message; nothing of it is shared with the package."""
    layers, tiers = costs.layer.shape
    x = np.array(list(itertools.product(range(tiers), repeat=layers)))
    cost = sum(costs.layer[v, x[:, v]] for v in range(layers))
    for m, producer in enumerate(costs.producer):
        source = x[:, producer] if producer >= 0 else np.zeros(len(x), int)
        read = x[:, costs.consumer[costs.message == m]]
        for k in range(tiers - 1):
            cost = cost + np.where((source <= k) & (read.max(1) > k), costs.up[m, k], 0)
            cost = cost + np.where((source > k) & (read.min(1) <= k), costs.down[m, k], 0)
    for group, stop in zip(costs.setup, costs.setup_stop):
        for k in range(tiers - 1):
            cost = cost + np.where((x[:, :stop] > k).any(1), group[k], 0)
    return x, cost


def test_cut_is_the_best_of_all_placements_of_500_graphs():
    rng = np.random.default_rng(0)
    used = np.zeros(5, int)
    for trial in range(500):
        tiers = 2 + trial % 3
        layers = int(rng.integers(tiers, {2: 9, 3: 7, 4: 7}[tiers]))
        costs = random_costs(rng, layers, tiers, trial // 3 % 2, trial // 6 % 2, trial // 12 % 2)
        x, expected = all_totals(costs)
        if not np.isfinite(expected).any():
            with pytest.raises(ValueError, match="every placement is forbidden"):
                cut(costs)
            continue
        found = cut(costs)
        assert total(costs, found) == pytest.approx(expected.min(), rel=1e-9)
        used[len(set(found.tolist()))] += 1
        some = int(rng.integers(len(x)))
        assert total(costs, x[some]) == pytest.approx(expected[some])
    # Else the test would say little.
    assert used[1] < 250, used
    assert used[3] > 50, used
    assert used[4] > 10, used


def random_graph(rng, layers, memory=1):
    readers = {}
    for i in range(layers):
        many = min(i + 1, int(rng.integers(1, 3)))
        for j in rng.choice(np.arange(-1, i), size=many, replace=False):
            readers.setdefault(int(j), []).append(i)
    return LayerGraph(
        tuple(
            Layer(f"l{i}", *rng.uniform(1e5, 1e9, 2), int(rng.integers(memory)) + 1)
            for i in range(layers)
        ),
        tuple(
            Tensor(f"t{j}", j, tuple(r), float(10 ** rng.uniform(2, 6))) for j, r in readers.items()
        ),
        "random",
    )


@pytest.mark.parametrize("seed", range(20))
def test_plans_equal_those_of_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    graph, topology = random_graph(rng, 6), three_tier(ends=4, edges=2)
    keywords = {
        "reach": np.concatenate([[1], np.sort(rng.random(5))[::-1]]),
        "answer_nbytes": 40,
        "two_way": bool(seed % 2),
        "setup_s": rng.uniform(0, 0.1, 2) * (seed // 2 % 2),
        "usd_per_hour": rng.random(3),
        "usd_per_gb": rng.random(2),
        "forbidden": [("l1", "cloud"), ("l4", "end")] if seed // 4 % 2 else [],
    }
    weights = {"latency": 1, "end_energy": 0.3, "bytes": 1e-6}
    for target in (*LINEAR, weights):
        plans = exhaustive(graph, topology, target, **keywords)
        least = min(objective(p, target) for p in plans if p.feasible)
        plan = min_cut(graph, topology, target, **keywords)
        assert objective(plan, target) == pytest.approx(least, rel=1e-8, abs=1e-12)
        assert plan.feasible
        if seed < 4:
            same = milp(graph, topology, target, **keywords)
            assert objective(same, target) == pytest.approx(least, rel=1e-5, abs=1e-9)


def test_integer_program_equals_the_cut_on_larger_graphs():
    rng = np.random.default_rng(1)
    graph, topology = random_graph(rng, 60), three_tier()
    for keywords in ({}, {"two_way": True, "setup_s": 0.01}):
        a = min_cut(graph, topology, **keywords)
        b = milp(graph, topology, **keywords)
        assert objective(b, "latency") == pytest.approx(objective(a, "latency"), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_memory_is_kept_by_exact_and_not_by_the_cut(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 6, memory=3 * 10**9)  # An end device of the preset has 4 GB.
    topology = three_tier()
    plans = exhaustive(graph, topology, "energy")
    least = min(objective(p, "energy") for p in plans if p.feasible)
    plan = exact(graph, topology, "energy")
    assert plan.feasible
    assert objective(plan, "energy") == pytest.approx(least, rel=1e-5)


def test_limits_hold():
    rng = np.random.default_rng(3)
    graph, topology = random_graph(rng, 6), three_tier()
    plans = exhaustive(graph, topology, "end_energy")
    deadline = float(np.median([objective(p, "latency") for p in plans]))
    within = [p for p in plans if p.feasible and objective(p, "latency") <= deadline]
    least = min(objective(p, "end_energy") for p in within)
    plan = milp(graph, topology, "end_energy", limits={"latency": deadline})
    assert objective(plan, "end_energy") == pytest.approx(least, rel=1e-5)
    with pytest.raises(ValueError, match=r"no placement is feasible .* and latency <= 1e-06"):
        milp(graph, topology, limits={"latency": 1e-6})


def test_codec_is_chosen_for_each_hop():
    layers = (Layer("a", 1e6, 0, 1), Layer("b", 1e12, 0, 1))
    tensors = (Tensor("x", -1, (0,), 1e6), Tensor("u", 0, (1,), 1e6))
    graph, topology = LayerGraph(layers, tensors, "layer"), three_tier()
    # Small, but slow to write: worth it on the slower link alone.
    small = LinkCodec("small", [np.inf, 1e5], seconds=[[0.0, 0.0], [0.02, 0.5]])
    plain = price(graph, topology, ["end", "cloud"])
    coded = price(graph, topology, ["end", "cloud"], codecs=[small])
    hop = [price(graph, topology, ["end", "cloud"], codecs=[small], choice=c) for c in CHOICES]
    assert coded.latency_s.mean() == pytest.approx(min(p.latency_s.mean() for p in hop))
    assert hop[0].latency_s.mean() == plain.latency_s.mean()
    assert plain.codecs == {}
    assert hop[1].codecs == {("end", "edge"): {"u": "small"}, ("edge", "cloud"): {"u": "graph"}}
    assert hop[1].link_bytes["end", "edge"] == 1e5
    plan = min_cut(graph, topology, codecs=[small])
    least = min(objective(p, "latency") for p in exhaustive(graph, topology, codecs=[small]))
    assert objective(plan, "latency") == pytest.approx(least)


CHOICES = [[[0, 0], [a, b]] for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))]


def test_wrong_arguments_are_named():
    graph, topology = random_graph(np.random.default_rng(0), 3), three_tier()
    for keywords, message in (
        ({"objective": "latancy"}, "objective 'latancy' .* did you mean 'latency'"),
        ({"objective": "worst_latency"}, "no sum over layers"),
        ({"objective": {}}, "objective must weigh at least one"),
        ({"objective": {"latency": -1}}, "weight of 'latency' must be >= 0"),
        ({"forbidden": [("l9", "end")]}, "there is no layer 'l9'"),
        ({"setup_s": -1}, "setup_s must be finite and >= 0"),
        ({"layer_seconds": np.ones((2, 3))}, r"layer_seconds must be of shape \(3, 3\)"),
        (
            {"forbidden": [("l0", t) for t in ("end", "edge", "cloud")]},
            "layer 0 is forbidden on every tier",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            min_cut(graph, topology, **keywords)
    free = tuple(layer._replace(flops=0, bytes_moved=0) for layer in graph.layers)
    with pytest.raises(ValueError, match="neither FLOP nor bytes moved; give layer_seconds"):
        min_cut(graph._replace(layers=free), topology)


def test_an_unusable_codec_is_never_chosen_and_nothing_free_is_forbidden():
    layers = (Layer("a", 1e6, 0, 1), Layer("b", 1e12, 0, 1))
    tensors = (Tensor("x", -1, (0,), 1e6), Tensor("u", 0, (1,), 1e6))
    graph = LayerGraph(layers, tensors, "layer")
    never = LinkCodec("never", [np.inf, np.inf])
    plan = price(graph, three_tier(ends=1), ["end", "cloud"], codecs=[never])
    assert set(plan.codecs["end", "edge"].values()) == {"graph"}
    # Costs nothing but where it must not be.
    layer = np.array([[np.inf, 0.0], [0.0, np.inf], [0.0, 0.0]])
    costs = Costs(
        layer,
        np.array([-1, -1, 0]),
        np.array([0, 1, 2]),
        np.array([0, 1, 2]),
        np.zeros((3, 1)),
        np.full((3, 1), np.inf),
        np.zeros((1, 1)),
        np.array([3]),
        np.zeros((3, 1), int),
    )
    assert cut(costs).tolist() == [1, 0, 1]
