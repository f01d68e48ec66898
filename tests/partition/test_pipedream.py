"""PipeDream's dynamic programs against every division there is."""

import itertools

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, Tensor, exhaustive, objective
from eejax.partition.pipedream import pipedream, replicate
from eejax.tiers import three_tier


def random_graph(rng, layers):
    readers = {}
    for i in range(layers):
        for j in {i - 1, int(rng.integers(-1, i)) if i else -1}:
            readers.setdefault(j, []).append(i)
    return LayerGraph(
        tuple(Layer(f"l{i}", 10 ** rng.uniform(7, 11), 1e5, 10) for i in range(layers)),
        tuple(
            Tensor(f"t{j}", j, tuple(r), 10 ** rng.uniform(2, 6))
            for j, r in sorted(readers.items())
        ),
        "random",
    )


@pytest.mark.parametrize("seed", range(12))
def test_plan_is_the_best_of_those_that_keep_the_order(seed):
    rng = np.random.default_rng(seed)
    graph, topology = random_graph(rng, 6), three_tier(ends=1, edges=1)
    keywords = {
        "reach": np.concatenate([[1], np.sort(rng.random(5))[::-1]]) if seed % 2 else None,
        "setup_s": 0.01 * (seed % 3),
        "forbidden": [("l2", "edge")] if seed % 4 == 3 else [],
    }
    plans = exhaustive(graph, topology, "pipeline", **keywords)
    kept = [p for p in plans if p.feasible and list(p.assignment) == sorted(p.assignment)]
    plan = pipedream(graph, topology, **keywords)
    assert objective(plan, "pipeline") == pytest.approx(objective(kept[0], "pipeline"))
    assert plan.feasible


def test_replicas_draw_more_layers_to_their_tier():
    layers = tuple(Layer(f"l{i}", 1e11, 0, 10) for i in range(40))
    tensors = tuple(Tensor(f"t{i}", i - 1, (i,), 1000) for i in range(40))
    graph, topology = LayerGraph(layers, tensors, "layer"), three_tier(ends=1, edges=1)
    alone = pipedream(graph, topology).assignment.count(1)
    assert pipedream(graph, topology, replicas=(1, 4, 1)).assignment.count(1) > alone


def divisions(layers, machines):
    """Every sequence of (start, stop, replicas)."""
    for cuts in range(min(layers, machines)):
        for inner in itertools.combinations(range(1, layers), cuts):
            edges = [0, *inner, layers]
            for reps in itertools.product(range(1, machines + 1), repeat=cuts + 1):
                if sum(reps) <= machines:
                    yield list(zip(edges, edges[1:], reps))


@pytest.mark.parametrize("seed", range(10))
def test_replicated_stages_are_the_best_of_all_divisions(seed):
    rng = np.random.default_rng(seed)
    seconds, out, held = rng.random(5), 10 ** rng.uniform(5, 9, 5), 10 ** rng.uniform(5, 9.5, 5)

    def slowest(division):
        times = []
        for start, stop, m in division:
            sync = 2 * (m - 1) / m * held[start:stop].sum() / 1e9
            times.append(max(seconds[start:stop].sum(), sync) / m)
            times += [2 * out[start - 1] / 1e9] * (start > 0)
        return max(times)

    least = min(map(slowest, divisions(5, 4)))
    time, stages = replicate(seconds, out, held, machines=4, bytes_per_s=1e9)
    assert time == pytest.approx(least)
    assert slowest(stages) == pytest.approx(least)


def test_wrong_arguments_are_named():
    graph, topology = random_graph(np.random.default_rng(0), 3), three_tier()
    for keywords, message in (
        ({"objective": "latency"}, "must be 'pipeline'"),
        ({"two_way": True}, "two_way must be False"),
        ({"replicas": (1, 2)}, "replicas must be 3 numbers"),
        ({"forbidden": [("l1", t) for t in (0, 1, 2)]}, "every placement is forbidden"),
    ):
        with pytest.raises(ValueError, match=message):
            pipedream(graph, topology, **keywords)
    with pytest.raises(ValueError, match="a layer each"):
        replicate([1.0], [1.0], [], machines=1, bytes_per_s=1)
