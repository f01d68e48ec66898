"""DADS against every placement of random graphs, and the mistakes of its published graph."""

import itertools

import numpy as np
import pytest

from eejax.partition import (
    LINEAR,
    Costs,
    Layer,
    LayerGraph,
    Tensor,
    exhaustive,
    min_cut,
    objective,
    total,
)
from eejax.partition.dads import claim, cut, dads, network
from eejax.tiers import three_tier


def random_costs(rng, layers, forbidden=False):
    """A table of two tiers whose best placement uses both, and in which data go up only."""
    layer = rng.uniform(0, 10, (layers, 2))
    first = np.arange(layers) < rng.integers(layers + 1)
    layer[first, 0] *= 0.1
    layer[~first, 1] *= 0.1
    if forbidden:
        layer[rng.integers(layers), rng.integers(2)] = np.inf
    readers = {}
    for i in range(layers):
        many = min(i + 1, int(rng.integers(1, 4)))
        for j in rng.choice(np.arange(-1, i), size=many, replace=False):
            readers.setdefault(int(j), []).append(i)
    message = np.repeat(np.arange(len(readers)), [len(r) for r in readers.values()])
    none = np.zeros((0, 1))
    return Costs(
        layer,
        np.array(list(readers)),
        message,
        np.concatenate([np.array(r) for r in readers.values()]),
        rng.exponential(2, (len(readers), 1)),
        np.full((len(readers), 1), np.inf),
        none,
        np.zeros(0, int),
        np.zeros((len(readers), 1), int),
    )


def least(costs):
    return min(total(costs, x) for x in itertools.product((0, 1), repeat=len(costs.layer)))


def graph_of(tensors, layers):
    return LayerGraph(
        tuple(Layer(name, 1e6, 0, 10) for name in layers),
        tuple(Tensor(f"t{i}", *row) for i, row in enumerate(tensors)),
        "layer",
    )


def test_cut_is_the_optimum_of_500_random_graphs():
    mixed = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        costs = random_costs(rng, int(rng.integers(1, 7)), forbidden=seed % 5 == 0)
        x, value = cut(costs)
        best = least(costs)
        assert value == pytest.approx(best, rel=1e-8)
        assert total(costs, x) == pytest.approx(best, rel=1e-8)
        mixed += len(set(x)) == 2
    assert mixed > 100


@pytest.mark.parametrize("seed", range(8))
def test_plans_equal_exhaustive_search_and_the_min_cut_of_all_tiers(seed):
    rng = np.random.default_rng(seed)
    readers = {}
    for i in range(6):
        for j in rng.choice(np.arange(-1, i), size=min(i + 1, 2), replace=False):
            readers.setdefault(int(j), []).append(i)
    graph = LayerGraph(
        tuple(Layer(f"l{i}", *rng.uniform(1e5, 1e9, 2), 10) for i in range(6)),
        tuple(
            Tensor(f"t{j}", j, tuple(r), float(10 ** rng.uniform(2, 6))) for j, r in readers.items()
        ),
        "random",
    )
    topology = three_tier(ends=4, edges=2)
    low, high = [(0, 1), (0, 2), (1, 2)][seed % 3]
    other = ({0, 1, 2} - {low, high}).pop()
    banned = [(f"l{i}", other) for i in range(6)]
    reach = np.append(1, np.sort(rng.random(5))[::-1]) if seed % 2 else None
    for target in LINEAR:
        plan = dads(graph, topology, target, tiers=(low, high), reach=reach)
        same = min_cut(graph, topology, target, reach=reach, forbidden=banned)
        plans = exhaustive(graph, topology, target, reach=reach, forbidden=banned)
        best = min(objective(p, target) for p in plans if p.feasible)
        assert objective(plan, target) == pytest.approx(best, rel=1e-8)
        assert objective(same, target) == pytest.approx(best, rel=1e-8)


def test_published_graph_takes_the_input_to_the_cloud_for_nothing(unit_system):
    # All below 11 s, the cut 1 + 2 + 1 s, all above 6 + 1.1 s; without the input 1.1 s.
    graph = graph_of([(-1, (0,), 6), (0, (1,), 2)], "ab")
    keywords = {"layer_seconds": [[1, 0.1], [10, 1]], "answer_nbytes": 0}
    plan = dads(graph, unit_system(), **keywords)
    assert plan.assignment == (0, 1)
    assert plan.latency_s == pytest.approx([4])
    published = claim(graph, unit_system(), **keywords)
    assert published.plan.name == "all-cloud"
    assert published.claimed == pytest.approx(1.1)
    assert published.true == pytest.approx(7.1)
    assert dads(graph, unit_system(), as_published=True, **keywords).name == "all-cloud"


def test_published_graph_lets_data_go_down_for_nothing(unit_system):
    # All below 9 + 1 s, all above 1 + 1 + 9 s. Up and down again: 1 + 1 + 20 + 1 s.
    graph = graph_of([(-1, (0,), 1), (0, (1,), 20)], "ab")
    keywords = {"layer_seconds": [[9, 1], [1, 9]], "answer_nbytes": 0}
    assert dads(graph, unit_system(), **keywords).name == "all-end"
    published = claim(graph, unit_system(), **keywords)
    assert published.plan.assignment == (1, 0)
    assert published.claimed == pytest.approx(2)
    assert published.true == pytest.approx(23)
    # The pinned input alone does not help: still below the optimum of 10 s.
    costs = costs_of([-1, 0], [[0], [1]], [[9, 1], [1, 9]], [1, 20])
    assert cut(costs, reverse=False)[1] == pytest.approx(3)
    assert cut(costs)[1] == pytest.approx(10)


def costs_of(producer, readers, layer, up):
    message = np.repeat(np.arange(len(readers)), [len(r) for r in readers])
    up = np.array(up, float)[:, None]
    none = np.zeros((0, 1))
    return Costs(
        np.array(layer, float),
        np.array(producer),
        message,
        np.concatenate(readers),
        up,
        np.full_like(up, np.inf),
        none,
        np.zeros(0, int),
        np.zeros(up.shape, int),
    )


def test_a_tensor_of_exactly_two_readers_is_paid_once():
    # a below, the others above: 1 + 4 + 3. Paid twice it is 12, so all above, 1 + 5 + 3, wins.
    costs = costs_of(
        [-1, 0, 1, 2], [[0], [1, 2], [3], [3]], [[1, 5], [5, 1], [5, 1], [5, 1]], [1, 4, 10, 10]
    )
    x, value = cut(costs)
    assert (x.tolist(), value) == ([0, 1, 1, 1], pytest.approx(8))
    x, value = cut(costs, out_degree=2)
    assert (x.tolist(), value) == ([1, 1, 1, 1], pytest.approx(9))
    assert network(costs).vertices == 2 + 4 + 1 + 1
    assert network(costs, out_degree=2).vertices == 2 + 4 + 1


def test_published_graph_on_random_graphs():
    collapsed = above = below = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        costs = random_costs(rng, 6)
        best = least(costs)
        below += cut(costs, pin=0.0, reverse=False)[1] < best * (1 - 1e-6)
        # Either defect alone is enough.
        assert cut(costs, reverse=False)[1] <= best * (1 + 1e-8)
        assert cut(costs, pin=0.0)[1] <= best * (1 + 1e-8)
        # A cloud that is faster at everything takes all.
        fast = costs._replace(layer=costs.layer[:, :1] * [1, 0.05], up=costs.up * 10)
        collapsed += bool(cut(fast, pin=0.0, reverse=False)[0].all())
        above += bool(cut(fast)[0].all())
    assert below > 75
    assert collapsed == 150
    assert above < 100


def test_tau_of_qdmp_is_a_pin():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        costs = random_costs(rng, 6)
        tau = np.diff(costs.layer[:, ::-1]).sum() + costs.up[costs.producer < 0].sum()
        assert cut(costs, pin=max(tau, 0) * 1.001 + 1e-3)[1] == pytest.approx(cut(costs)[1])


def test_heavy_load_balances_the_stages(unit_system):
    # All below 6 s in one stage; the cut 3, 3.5 and 0.1 s: slower in all, but faster in turn.
    graph = graph_of([(-1, (0,), 20), (0, (1,), 3.5)], "ab")
    keywords = {"layer_seconds": [[3, 0.1], [3, 0.1]], "answer_nbytes": 0}
    light = dads(graph, unit_system(), **keywords)
    heavy = dads(graph, unit_system(), "pipeline", **keywords)
    assert (light.name, objective(light, "pipeline")) == ("all-end", pytest.approx(6))
    assert (heavy.assignment, objective(heavy, "pipeline")) == ((0, 1), pytest.approx(3.5))
    for rate, plan in ((0.1, light), (0.2, heavy)):
        assert dads(graph, unit_system(), frames_per_s=rate, **keywords).name == plan.name
    with pytest.raises(ValueError, match=r"frames_per_s must be below 0.286, .* got 0.5"):
        dads(graph, unit_system(), frames_per_s=0.5, **keywords)


def test_heavy_load_is_a_3_approximation(unit_system):
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        readers = {}
        for i in range(6):
            for j in rng.choice(np.arange(-1, i), size=min(i + 1, 2), replace=False):
                readers.setdefault(int(j), []).append(i)
        graph = graph_of(
            [(j, tuple(r), float(rng.exponential(2))) for j, r in readers.items()], "abcdef"
        )
        keywords = {"layer_seconds": rng.exponential([2, 0.5], (6, 2)), "answer_nbytes": 0}
        plans = exhaustive(graph, unit_system(), **keywords)
        best = min(objective(p, "pipeline") for p in plans)
        light = dads(graph, unit_system(), **keywords)
        plan = dads(graph, unit_system(), "pipeline", **keywords)
        assert objective(plan, "pipeline") <= objective(light, "pipeline")
        ratios.append(objective(plan, "pipeline") / best)
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) <= 3
    assert np.median(ratios) < 1.01


def test_what_it_cannot_do_is_refused():
    graph, topology = graph_of([(-1, (0,), 6), (0, (1,), 2)], "ab"), three_tier()
    for arguments, message in (
        ({"two_way": True}, "dads sends data up only"),
        ({"setup_s": 0.1}, "dads knows no set-up costs"),
        ({"as_published": True, "setup_s": 0.1}, "no place for two_way and setup_s"),
        ({"objective": "worst_latency"}, "no sum over layers"),
        ({"forbidden": [("a", "end"), ("a", "cloud")]}, "layer 0 is forbidden on both tiers"),
        ({"forbidden": [("a", "end"), ("b", "cloud")]}, "every placement is forbidden"),
    ):
        with pytest.raises(ValueError, match=message):
            dads(graph, topology, **arguments)
