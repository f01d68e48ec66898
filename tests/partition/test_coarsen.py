"""Blocks between single tensors."""

import numpy as np
import pytest

from eejax.partition.coarsen import to_blocks
from eejax.partition.graph import Layer, LayerGraph, Tensor


def graph_of(count, reads):
    """Layers 0 to count - 1; ``reads`` gives the consumers of each producer, -1 among them."""
    layers = tuple(Layer(f"l{i}", 10.0**i, 2.0**i, 3 * i) for i in range(count))
    tensors = tuple(Tensor(f"t{p}", p, c, 8.0 + p) for p, c in reads.items())
    return LayerGraph(layers, tensors, "layer")


def test_branches_become_one_block():
    # A residual: 0 -> 1 -> 2 joins 0 at 3, then 4.
    graph = to_blocks(graph_of(5, {-1: (0,), 0: (1, 3), 1: (2,), 2: (3,), 3: (4,)}))
    assert [tuple(layer) for layer in graph.layers] == [
        ("l0", 1, 1, 0),
        ("l1", 10 + 100 + 1000, 2 + 4 + 8, 3 + 6 + 9),
        ("l4", 10_000, 16, 12),
    ]
    assert [tuple(t) for t in graph.tensors] == [
        ("t-1", -1, (0,), 7),
        ("t0", 0, (1,), 8),
        ("t3", 1, (2,), 11),
    ]
    assert graph.granularity == "block of: layer"


def test_a_chain_stays_as_it_is():
    chain = graph_of(4, {-1: (0,), 0: (1,), 1: (2,), 2: (3,)})
    assert to_blocks(chain)[:2] == chain[:2]


def test_no_place_to_cut_makes_one_block():
    # The input is read to the end, so that two tensors are alive everywhere.
    graph = to_blocks(graph_of(3, {-1: (0, 2), 0: (1,), 1: (2,)}))
    assert len(graph.layers) == 1
    assert [tuple(t) for t in graph.tensors] == [("t-1", -1, (0,), 7)]


def test_blocks_join_where_one_tensor_lives_in_random_graphs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(2, 12))
        reads = {-1: [0]}
        for i in range(1, count):
            for producer in set(rng.integers(max(0, i - 3), i, 2).tolist()):
                reads.setdefault(producer, []).append(i)
        graph = graph_of(count, {p: tuple(c) for p, c in sorted(reads.items())})
        blocks = to_blocks(graph)
        alive = [
            sum(t.producer <= i < max(t.consumers) for t in graph.tensors) for i in range(count)
        ]
        assert len(blocks.layers) == 1 + sum(n == 1 for n in alive[:-1])
        for field in range(1, 4):
            whole = sum(layer[field] for layer in graph.layers)
            assert sum(layer[field] for layer in blocks.layers) == whole


def test_faults_are_refused():
    with pytest.raises(ValueError, match="reads no tensor"):
        to_blocks(graph_of(2, {-1: (0,)}))
