"""Figures as data: what fits together, and what it says in words."""

import math

import pytest

from eejax.experiment.figures import Bars, Graph, Lines, check_figure, describe

LINES = Lines("t", "x", "y", {"a": ([1, 2], [3.0, None])})
BARS = Bars("t", "y", ["p", "q"], {"a": [1, None]})


@pytest.mark.parametrize(
    "figure",
    [
        LINES,
        BARS,
        LINES._replace(logx=True, logy=True, points={"p": (1, 2), "lost": (None, math.nan)}),
        LINES._replace(series={}, points={"p": (1, 2)}),
        LINES._replace(series={"a": ([], [])}),
        LINES._replace(band={"a": ([1, None], [4, None])}, markers={"m": -1.0}),
        BARS._replace(series={"a": [-1, 1]}),
        BARS._replace(series={"a": [0, 1]}, log=True),
    ],
)
def test_gaps_and_combinations_that_are_right(figure):
    check_figure(figure)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (LINES._replace(series={}), r"f \('t'\): there are neither series nor points"),
        (LINES._replace(series={"a": ([1], [1, 2])}), r"series\['a'\] has 1 x and 2 y"),
        (LINES._replace(band={"b": ([1], [1])}), r"band\['b'\] belongs to no series; .* a"),
        (LINES._replace(band={"a": ([1, 2], [1])}), r"band\['a'\] must be as long as its series"),
        (LINES._replace(logx=True, series={"a": ([0], [1])}), r"x of 'a' must be above 0"),
        (LINES._replace(logy=True, points={"p": (1, -1)}), r"y of 'p' must be above 0"),
        (LINES._replace(logx=True, markers={"m": 0}), r"markers must be above 0"),
        (LINES._replace(logy=True, band={"a": ([0, 1], [1, 1])}), r"band\['a'\] must be above 0"),
        (BARS._replace(categories=[], series={}), r"f \('t'\): there are no bars"),
        (BARS._replace(series={"a": [1]}), r"series\['a'\] has 1 values for 2 categories"),
        (BARS._replace(stacked=True, log=True), r"log must be false for stacked bars"),
        (BARS._replace(stacked=True, series={"a": [1, -1]}), r"series\['a'\] must be >= 0"),
        (BARS._replace(log=True, series={"a": [1, -1]}), r"series\['a'\] must be >= 0"),
    ],
)
def test_parts_must_fit(figure, message):
    with pytest.raises(ValueError, match=message):
        check_figure(figure, "f")


def test_a_figure_in_words():
    figure = Lines(
        "", "latency", "accuracy",
        {"exit": ([0.1, 0.2, 0.3], [0.5, 0.9, 0.8]), "diverged": ([1], [math.nan])},
        points={"all cloud": (0.048, 0.95)}, markers={"drift": 0.2}, xunit="s",
    )  # fmt: skip
    assert describe(figure) == (
        "Line chart of accuracy over latency. exit: from 0.5 to 0.9, at the end 0.8. diverged: no "
        "values. all cloud: 0.95 at 48 ms. drift at 200 ms."
    )
    many = Bars("", "bytes", [f"c{i}" for i in range(13)], {"a": [*range(1000, 14000, 1000)]})
    assert describe(many._replace(unit="B")).endswith("a: from 1 kB to 13 kB, at the end 13 kB.")


GRAPH = Graph("t", ["p", "q", "r"], [[0, 1], [0, 2]], ["end", "end", "cloud"], ["end", "cloud"])


def test_a_graph_says_who_is_where():
    check_figure(GRAPH)
    assert describe(GRAPH) == (
        "Graph of 3 nodes and 2 edges. end: 2 nodes, p, q. cloud: 1 nodes, r."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": ["end"]}, "a group for each of the 3 nodes"),
        ({"order": ["end"]}, "group 'cloud' is not in the order end"),
        ({"edges": [[1, 0]]}, r"edge \[1, 0\] must be two ascending indices below 3"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_figure(GRAPH._replace(**fields))
