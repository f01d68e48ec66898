"""Where nodes are drawn."""

import numpy as np

from eejax.experiment.drawing import figure_svg
from eejax.experiment.figures import Graph
from eejax.experiment.graph_layout import COLUMNS, place_nodes


def test_edges_go_to_the_right_and_no_two_nodes_meet():
    rng = np.random.default_rng(0)
    edges = sorted({(int(rng.integers(b)), b) for b in range(1, 120) for _ in range(2)})
    x, y, line = place_nodes(120, edges)
    assert len(set(zip(x.tolist(), y.tolist()))) == 120
    assert all(x[a] < x[b] for a, b in edges if line[a] == line[b])
    assert x.max() < COLUMNS


def test_a_long_chain_is_folded():
    _, y, line = place_nodes(60, [(i, i + 1) for i in range(59)])
    assert line.tolist() == [i // COLUMNS for i in range(60)]
    assert len(set(y.tolist())) == 3


def test_a_drawing_names_every_group():
    figure = Graph("t", ["a", "b"], [[0, 1]], ["end", "end"], ["end", "edge"])
    svg = figure_svg(figure)
    assert "Graph of 2 nodes and 1 edges. end: 2 nodes, a, b. edge: 0 nodes." in svg
