"""Edgent against every exit and cut."""

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, LinkCodec, Tensor, price
from eejax.partition.edgent import edgent
from eejax.tiers import three_tier

EXITS = {"e0": 0.6, "e1": 0.7, "e2": 0.9}


def branchy(rng):
    """Three blocks in a row, each with an exit of its own."""
    names = ["b0", "e0", "b1", "e1", "b2", "e2"]
    layers = tuple(Layer(n, 10 ** rng.uniform(6, 10), 0, 10) for n in names)
    rows = (("x", -1, (0,)), ("u0", 0, (1, 2)), ("u1", 2, (3, 4)), ("u2", 4, (5,)))
    tensors = tuple(Tensor(*row, 10 ** rng.uniform(2, 5)) for row in rows)
    return LayerGraph(layers, tensors, "block")


CHAINS = {"e0": ["b0", "e0"], "e1": ["b0", "b1", "e1"], "e2": ["b0", "b1", "b2", "e2"]}


def every_plan(graph, topology, tiers, **keywords):
    layer = {row.name: row for row in graph.layers}
    low, high = tiers
    for name, chain in CHAINS.items():
        part = LayerGraph(
            tuple(layer[n] for n in chain),
            tuple(
                graph.tensors[i]._replace(producer=i - 1, consumers=(i,)) for i in range(len(chain))
            ),
            "block",
        )
        for cut in range(len(chain) + 1):
            assignment = [low] * cut + [high] * (len(chain) - cut)
            yield name, price(part, topology, assignment, **keywords)


@pytest.mark.parametrize("seed", range(12))
def test_most_accurate_exit_that_meets_the_deadline(seed):
    rng = np.random.default_rng(seed)
    graph, topology = branchy(rng), three_tier(ends=3)
    tiers = [(0, 1), (0, 2), (1, 2)][seed % 3]
    goal, reduce = [("latency", np.mean), ("worst_latency", np.max)][seed % 2]
    plans = list(every_plan(graph, topology, tiers))
    least = {n: min(reduce(p.latency_s) for m, p in plans if m == n) for n in EXITS}
    for deadline in np.quantile(list(least.values()), [0, 0.5, 1]) * 1.001:
        met = [n for n in EXITS if least[n] <= deadline]
        found = edgent(graph, topology, goal, accuracy=EXITS, deadline_s=deadline, tiers=tiers)
        assert found.exit == max(met, key=EXITS.get)
        assert found.accuracy == EXITS[found.exit]
        assert [layer.name for layer in found.graph.layers] == CHAINS[found.exit]
        assert reduce(found.plan.latency_s) == pytest.approx(least[found.exit])
    with pytest.raises(ValueError, match=r"no exit meets .*; the fastest, 'e"):
        edgent(graph, topology, goal, accuracy=EXITS, deadline_s=min(least.values()) / 2)


def test_of_equally_accurate_exits_the_fastest():
    graph = branchy(np.random.default_rng(0))
    plans = every_plan(graph, three_tier(), (0, 2))
    fastest, _ = min(plans, key=lambda pair: pair[1].latency_s.mean())
    for names in (EXITS, reversed(EXITS)):
        same = dict.fromkeys(names, 0.9)
        assert edgent(graph, three_tier(), accuracy=same, deadline_s=1e3).exit == fastest


def test_keywords_follow_the_layers_and_tensors():
    graph = branchy(np.random.default_rng(0))
    seconds = np.array([[1, 9, 9], [99, 99, 99], [9, 9, 2], [9, 9, 3], [99, 99, 99], [0, 0, 0]])
    keywords = {"layer_seconds": seconds, "codecs": [LinkCodec("tiny", [np.inf, 1, 1, 1])]}
    found = edgent(
        graph,
        three_tier(ends=1, edges=1),
        accuracy={"e1": 0.7},
        deadline_s=10,
        forbidden=[("e0", "end"), ("b1", "edge")],
        **keywords,
    )
    assert found.plan.name == "end:b0 | cloud:b1+e1"
    assert found.plan.parts["compute_s"].tolist() == [[1, 0, 5]]
    assert found.plan.codecs["end", "edge"] == {"u0": "tiny"}
    with pytest.raises(ValueError, match="no exit has a feasible plan"):
        edgent(
            graph,
            three_tier(),
            accuracy={"e0": 0.7},
            deadline_s=10,
            forbidden=[("b0", "end"), ("b0", "cloud")],
        )


def test_what_it_cannot_do_is_refused():
    graph, topology = branchy(np.random.default_rng(0)), three_tier()
    given = {"accuracy": EXITS, "deadline_s": 1.0}
    for arguments, message in (
        ({"objective": "energy"}, "minimises latency or worst_latency, got 'energy'"),
        ({"two_way": True}, "leave two_way out"),
        ({"reach": np.ones(6)}, "leave reach out"),
        ({"accuracy": {}}, "accuracy must name at least one exit"),
        ({"accuracy": {"e3": 1}}, "there is no layer 'e3'; did you mean"),
        ({"deadline_s": 0}, "deadline_s must be > 0"),
        ({"forbidden": [("e9", "end")]}, "there is no layer 'e9'"),
    ):
        with pytest.raises(ValueError, match=message):
            edgent(graph, topology, **(given | arguments))
    skip = graph._replace(tensors=(*graph.tensors, Tensor("skip", 0, (4,), 9)))
    with pytest.raises(ValueError, match="'skip' of b0 is read by b2"):
        edgent(skip, topology, **given)
