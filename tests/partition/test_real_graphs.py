"""The minimum cut and the integer program on real networks: the ONNX graphs of the onnx wheel."""

from pathlib import Path

import numpy as np
import pytest

from eejax.partition import cut, dads, from_onnx, objective, qdmp, rates_of, tabulate, total
from eejax.partition.milp import solve
from eejax.tiers import three_tier

test_data = pytest.importorskip("onnx.backend.test")
LIGHT = sorted(Path(test_data.__path__[0], "data", "light").glob("*.onnx"))


def graph_of(path, input_dtype, scale):
    """Operators, but for the largest network; features are written in fewer bits."""
    what = "layer" if "densenet" in path.stem else "operator"
    graph = from_onnx(path, what, input_dtype=input_dtype)
    return graph._replace(
        tensors=tuple(
            t if t.producer < 0 else t._replace(nbytes=t.nbytes * scale) for t in graph.tensors
        )
    )


def test_there_are_nine():
    assert len(LIGHT) == 9


@pytest.mark.parametrize("link", ["wifi", "lte_4g"])
@pytest.mark.parametrize("path", LIGHT, ids=[p.stem.removeprefix("light_") for p in LIGHT])
def test_minimum_cut_equals_the_integer_program(path, link):
    topology = three_tier(end_edge=link)
    for input_dtype, scale in (("uint8", 1), ("float32", 1 / 4)):
        graph = graph_of(path, input_dtype, scale)
        rates = rates_of(graph, topology)
        for target in ("latency", {"latency": 1, "end_energy": 0.1}):
            costs = tabulate(rates, target)
            least = total(costs, cut(costs))
            assert total(costs, solve(rates, costs)) == pytest.approx(least, rel=1e-6)
        two = [s(graph, topology, tiers=("end", "edge")) for s in (dads, qdmp)]
        assert objective(two[0], "latency") == pytest.approx(objective(two[1], "latency"))


def test_not_all_of_these_are_easy():
    split = 0
    for path in LIGHT:
        costs = tabulate(rates_of(graph_of(path, "float32", 1 / 4), three_tier(end_edge="wifi")))
        x = cut(costs)
        split += len(np.unique(x)) > 1
        assert total(costs, x) <= min(total(costs, [k] * len(x)) for k in range(3))
    assert split >= 4
