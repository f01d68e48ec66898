"""QDMP against DADS and every placement of random graphs with and without cut vertices."""

import importlib
import itertools

import numpy as np
import pytest

from eejax.partition import Costs, Layer, LayerGraph, Tensor, min_cut, objective, total
from eejax.partition.dads import cut as whole
from eejax.partition.dads import dads
from eejax.partition.qdmp import cut, cut_vertices, qdmp
from eejax.tiers import three_tier


def blocks(rng, sizes, forbidden=0.0, answers=False):
    """Random graphs in a row: the last layer of each is a cut vertex, unless some have answers."""
    layers = sum(sizes)
    readers, base = {}, -1
    for size in sizes:
        for i in range(base + 1, base + 1 + size):
            many = min(i - base, int(rng.integers(1, 3)))
            for j in rng.choice(np.arange(base, i), size=many, replace=False):
                readers.setdefault(int(j), []).append(i)
        base += size
        if not answers:
            for i in range(base - size + 1, base):
                if i not in readers:
                    readers[i] = [base]
    rows = sorted(readers.items())
    layer = rng.uniform(0, 10, (layers, 2))
    first = np.arange(layers) < rng.integers(layers + 1)
    layer[first, 0] *= 0.1
    layer[~first, 1] *= 0.1
    layer[rng.random(layers) < forbidden, rng.integers(2)] = np.inf
    none = np.zeros((0, 1))
    return Costs(
        layer,
        np.array([j for j, _ in rows]),
        np.repeat(np.arange(len(rows)), [len(r) for _, r in rows]),
        np.concatenate([np.array(r) for _, r in rows]),
        rng.exponential(2, (len(rows), 1)),
        np.full((len(rows), 1), np.inf),
        none,
        np.zeros(0, int),
        np.zeros((len(rows), 1), int),
    )


def test_cut_vertices_of_a_diamond_with_a_tail():
    # input -> 0 -> (1, 2) -> 3 -> 4
    costs = blocks(np.random.default_rng(0), [1, 1, 1, 1, 1])
    diamond = costs._replace(
        producer=np.array([-1, 0, 1, 2, 3]),
        message=np.array([0, 1, 1, 2, 3, 4]),
        consumer=np.array([0, 1, 2, 3, 3, 4]),
    )
    assert cut_vertices(diamond).tolist() == [0, 3, 4]
    # An answer at 2 that nobody reads: no path needs to go through what follows.
    early = diamond._replace(
        producer=np.array([-1, 0, 1, 3]),
        message=np.array([0, 1, 1, 2, 3]),
        consumer=np.array([0, 1, 2, 3, 4]),
    )
    assert cut_vertices(early).tolist() == [0]
    # The input is read again by 3: nothing before it is a cut vertex.
    skip = diamond._replace(
        message=np.array([0, 0, 1, 1, 2, 3, 4]), consumer=np.array([0, 3, 1, 2, 3, 3, 4])
    )
    assert cut_vertices(skip).tolist() == [3, 4]


def test_optimum_of_300_random_graphs():
    inside = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sizes = [int(s) for s in rng.integers(1, 5, size=int(rng.integers(1, 3)))]
        costs = blocks(rng, sizes, forbidden=0.1 * (seed % 3 == 0), answers=seed % 4 == 0)
        best = min(total(costs, x) for x in itertools.product((0, 1), repeat=sum(sizes)))
        if not np.isfinite(best):
            with pytest.raises(ValueError, match="every placement is forbidden"):
                cut(costs)
            continue
        x, value = cut(costs)
        assert value == pytest.approx(best, rel=1e-8)
        assert total(costs, x) == pytest.approx(best, rel=1e-8)
        below = int((x == 0).sum())
        inside += below - 1 not in cut_vertices(costs) and 0 < below < len(x)
    assert inside > 20


def test_answers_on_both_tiers():
    # input -> 0 -> (1, 2), and nobody reads 1 or 2: no last layer decides for all.
    costs = blocks(np.random.default_rng(0), [1, 1, 1])._replace(
        layer=np.array([[1.0, 9], [9, 1], [1, 9]]),
        message=np.array([0, 1, 1]),
        consumer=np.array([0, 1, 2]),
        up=np.array([[9.0], [2], [0]]),
    )
    x, value = cut(costs)
    assert (x.tolist(), value) == ([0, 1, 0], pytest.approx(1 + 2 + 1 + 1))


@pytest.mark.parametrize("sizes", [[60], [6] * 40, [1] * 200, [30, 1, 1, 30]])
def test_equals_dads_on_larger_graphs(sizes, monkeypatch):
    costs = blocks(np.random.default_rng(len(sizes)), sizes)
    seen = []
    room = importlib.import_module("eejax.partition.qdmp")
    monkeypatch.setattr(room, "min_cut", lambda c: seen.append(len(c.layer)) or whole(c))
    x, value = cut(costs)
    assert value == pytest.approx(whole(costs)[1], rel=1e-8)
    assert total(costs, x) == pytest.approx(value)
    # What it cuts is no more than a part of the graph, and nothing of a chain.
    assert sum(seen) <= (60 if len(sizes) < 5 else sum(sizes) / 4)
    if max(sizes) == 1:
        assert not seen


def test_plan_equals_those_of_dads_and_the_min_cut():
    layers = tuple(Layer(f"l{i}", 10.0**f, 1e5, 10) for i, f in enumerate((8, 8, 7, 9, 8, 9)))
    rows = [(-1, (0,), 3e5), (0, (1, 2), 2e4), (1, (3,), 3e4), (2, (3,), 1e4), (3, (4,), 5e3)]
    tensors = [Tensor(f"t{i}", *row) for i, row in enumerate([*rows, (4, (5,), 4e3)])]
    graph, topology = LayerGraph(layers, tuple(tensors), "layer"), three_tier(ends=2)
    banned = [(layer.name, "edge") for layer in layers]
    for target in ("latency", "end_energy", {"latency": 1, "energy": 0.1}):
        plan = qdmp(graph, topology, target)
        assert plan.assignment == dads(graph, topology, target).assignment
        exact = min_cut(graph, topology, target, forbidden=banned)
        assert objective(plan, target) == pytest.approx(objective(exact, target))
    for arguments in ({"two_way": True}, {"setup_s": 1}):
        with pytest.raises(ValueError, match="qdmp"):
            qdmp(graph, topology, **arguments)
