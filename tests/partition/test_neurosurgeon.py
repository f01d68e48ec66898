"""Neurosurgeon against every placement of random chains."""

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, Tensor, exhaustive, objective
from eejax.partition.neurosurgeon import GOALS, neurosurgeon
from eejax.tiers import make_topology, three_tier


def chain(seconds, sizes):
    count = len(seconds)
    return LayerGraph(
        tuple(Layer(f"l{i}", 1e6, 0, 10) for i in range(count)),
        tuple(Tensor(f"t{i}", i - 1, (i,), sizes[i]) for i in range(count)),
        "layer",
    )


def test_hand_computed_cuts(unit_system):
    # By layers below: 0: 6 + 0.1 + 1; 1: 1 + 2 + 1; 2: 1 + 10 seconds.
    seconds = [[1, 0.1], [10, 1]]
    keywords = {"layer_seconds": seconds, "answer_nbytes": 0}
    plan = neurosurgeon(chain(seconds, [6, 2]), unit_system(3), **keywords)
    assert plan.assignment == (0, 1)
    assert plan.latency_s == pytest.approx([4])
    # Busy 2 W, waiting 1 W, 3 J a byte: 2 + 3 + 6 J for the cut, 22 J all below, 25.1 J all above.
    plan = neurosurgeon(chain(seconds, [6, 2]), unit_system(3), "end_energy", **keywords)
    assert plan.assignment == (0, 1)
    assert plan.energy_j[0, 0] == pytest.approx(11)
    # Of equal cuts the lower one.
    keywords["layer_seconds"] = [[1, 0], [3, 1]]
    assert neurosurgeon(chain(seconds, [6, 2]), unit_system(3), **keywords).name == "all-end"


@pytest.mark.parametrize("seed", range(30))
def test_equals_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(1, 8))
    seconds = rng.exponential(1, (layers, 3)) * [0.1, 0.05, 0.001]
    graph = chain(seconds, 10 ** rng.uniform(1, 5, layers))
    low, high = [(0, 1), (0, 2), (1, 2)][seed % 3]
    other = ({0, 1, 2} - {low, high}).pop()
    keywords = {
        "layer_seconds": seconds,
        "reach": np.append(1, np.sort(rng.random(layers - 1))[::-1]),
        "setup_s": rng.uniform(0, 0.05, 2),
        "forbidden": [("l0", high)] if seed % 4 == 3 else [],
    }
    banned = keywords | {
        "forbidden": keywords["forbidden"] + [(f"l{i}", other) for i in range(layers)]
    }
    topology = three_tier(ends=3, edges=2)
    for goal in GOALS:
        plan = neurosurgeon(graph, topology, goal, tiers=(low, high), **keywords)
        plans = [p for p in exhaustive(graph, topology, goal, **banned) if p.feasible]
        assert objective(plan, goal) == pytest.approx(objective(plans[0], goal), rel=1e-12)
        assert set(plan.assignment) <= {low, high}


def test_what_it_cannot_do_is_refused():
    graph, topology = chain([1, 1, 1], [9, 9, 9]), three_tier()
    branched = graph._replace(
        tensors=(*graph.tensors[:1], Tensor("skip", 0, (1, 2), 9), *graph.tensors[2:])
    )
    with pytest.raises(ValueError, match=r"'skip' of l0 is read by l1, l2, not by the next layer"):
        neurosurgeon(branched, topology)
    for arguments, message in (
        ({"objective": "energy"}, "minimises latency or end_energy, got 'energy'"),
        ({"two_way": True}, "up only: leave two_way out, or use jointdnn"),
        ({"tiers": ("cloud", "end")}, "must name the lower one first"),
        ({"tiers": ("end",)}, "must be two of end, edge, cloud"),
        ({"tiers": ("end", "clud")}, "did you mean 'cloud'"),
        ({"forbidden": [("l0", "end"), ("l0", "cloud")]}, "every cut is forbidden"),
    ):
        with pytest.raises(ValueError, match=message):
            neurosurgeon(graph, topology, **arguments)
    with pytest.raises(ValueError, match="two tiers or more, got only 'cloud'"):
        neurosurgeon(graph, make_topology(topology.tiers[-1]))
