"""Drawings: valid, the same every time, in the colours of the page, with nothing on top of text."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from eejax.experiment import drawing
from eejax.experiment.drawing import INK, PALETTE, PAPER, figure_svg
from eejax.experiment.figures import Bars, Lines

LINES = Lines(
    "accuracy", "latency", "accuracy",
    {"early exit": ([0.005, 0.01, 0.02, 0.05], [0.88, 0.93, None, 0.96])},
    points={"all end": (0.005, 0.88), "all edge": (0.02, 0.94), "random": (0.021, 0.938)},
    markers={"drift": 0.01}, band={"early exit": ([0.8, 0.9, None, 0.9], [0.9, 1, None, 1])},
    logx=True, xunit="s",
)  # fmt: skip
BARS = Bars("exits", "share", ["end", "edge"], {"before": [0.7, 0.3], "after": [0.4, None]})


def lines(**series):
    return Lines("", "x", "y", series)


FIGURES = {
    "lines": LINES,
    "bars": BARS,
    "stacked": BARS._replace(stacked=True),
    "lying": BARS._replace(horizontal=True),
    "stacked lying": BARS._replace(stacked=True, horizontal=True),
    "log": BARS._replace(log=True, unit="B", series={"a": [784, 4.1e8], "b": [0, None]}),
    "negative": BARS._replace(series={"a": [-1.5, 2]}),
    "zeros": BARS._replace(series={"a": [0, 0]}, stacked=True),
    "only gaps": lines(a=([1, 2], [None, math.nan]), b=([], [])),
    "only gaps, log": lines(a=([1, 2], [None, None]))._replace(logx=True, logy=True),
    "bars of gaps, log": BARS._replace(series={"a": [None, math.inf]}, log=True),
    "one value, log": lines(a=([3], [5]))._replace(logx=True, logy=True),
    "decades": lines(a=([1, 2], [1e-9, 1e9]))._replace(logy=True),
    "points only": Lines("", "x", "y", {}, points={"p": (1, 2), "lost": (None, 1)}),
    "odd names": Lines(
        "", "$x_", r"\frac{", {"_hidden": ([1], [1]), "学习 <b>": ([1], [2]), "": ([1], [3])},
        points={"a\nb": (1, 1)}, markers={"$": 1, "lost": None},
    ),
    "long names": BARS._replace(categories=["a category " * 5, "without_a_blank_" * 5]),
    "arrays": lines(a=(np.arange(60), np.linspace(0, 1e7, 60))),
    "many series": lines(**{f"series {i}": ([0, 1], [0, i]) for i in range(20)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_one_valid_element_without_fixed_colours_or_size(name):
    svg = figure_svg(FIGURES[name], "n")
    root = ET.fromstring(svg)
    assert root.tag.endswith("}svg")
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("viewBox")
    assert root.get("width") is root.get("height") is None
    assert INK not in svg
    assert PAPER not in svg
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "clipPath", "rect", "pattern"}
    for element in root.iter():
        assert element.get("id", "n-").startswith("n-")


def test_equal_figures_are_equal_whatever_style_the_user_has():
    once = figure_svg(LINES, "n")
    user = {"font.size": 30, "xtick.direction": "in", "svg.fonttype": "none"}
    with matplotlib.rc_context(user):
        before = dict(matplotlib.rcParams)
        assert figure_svg(LINES, "n") == once
        assert dict(matplotlib.rcParams) == before
    assert figure_svg(LINES._replace(logx=False), "n") != once


def test_names_are_text_of_the_label_only():
    svg = figure_svg(LINES._replace(ylabel='<script>"&'), "n")
    assert "<script" not in svg
    assert 'of <script>"& over latency' in ET.fromstring(svg).get("aria-label")


def test_a_wrong_figure_is_refused():
    with pytest.raises(ValueError, match="has 1 values for 2 categories"):
        figure_svg(BARS._replace(series={"a": [1]}))


def drawn(figure):
    """The canvas and the axes, to measure in."""
    canvas = Canvas(dpi=72, layout="constrained")
    axes = canvas.subplots()
    (drawing._draw_bars if isinstance(figure, Bars) else drawing._draw_lines)(canvas, axes, figure)
    canvas.draw_without_rendering()
    return canvas, axes


def boxes_of(axes):
    return [text.get_window_extent() for text in axes.texts]


@pytest.mark.parametrize("spread", [0.5, 0.1, 0.02])
def test_labels_of_points_neither_overlap_nor_leave_the_frame(spread):
    at = np.random.default_rng(0).normal(0, spread, (6, 2))
    points = {f"baseline {i}": (1 + x, 1 + y) for i, (x, y) in enumerate(at)}
    figure = lines(a=([0, 2], [0, 2]))._replace(points=points, markers={"drift": 1, "alarm": 1.05})
    _, axes = drawn(figure)
    boxes = boxes_of(axes)
    assert [text.get_text() for text in axes.texts] == [*points, "drift", "alarm"]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    for box in boxes:
        assert (box.min >= frame.min).all()
        assert (box.max <= frame.max).all()


def test_a_label_keeps_off_the_line():
    _, axes = drawn(lines(a=([0, 1, 2], [1, 1, 1]))._replace(points={"chosen": (1, 1)}))
    line = axes.transData.transform((1, 1))[1]
    (box,) = boxes_of(axes)
    assert box.y0 > line or box.y1 < line


@pytest.mark.parametrize(
    ("figure", "written"),
    [
        (BARS, ["0.7", "0.3", "0.4"]),
        (BARS._replace(stacked=True), ["1.1", "0.3"]),
        (BARS._replace(series={"a": [0.91234, 0.5]}), ["0.912", "0.500"]),
        (BARS._replace(series={"a": [60000, 784]}, unit="B"), ["60 kB", "784 B"]),
        (BARS._replace(series={"a": [0, 784]}, log=True), ["784"]),
        # Too many bars, and bars too thin for their numbers.
        (BARS._replace(categories=[str(i) for i in range(13)], series={"a": [1] * 13}), []),
        (BARS._replace(series={f"{i}": [123456, 123456] for i in range(6)}), []),
    ],
)
def test_few_bars_carry_their_values(figure, written):
    _, axes = drawn(figure)
    assert [text.get_text() for text in axes.texts] == written


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("log", [False, True])
def test_categories_without_a_bar_keep_their_place(horizontal, log):
    figure = Bars("", "y", ["a", "b", "c"], {"s": [None, 10, 0]}, horizontal=horizontal, log=log)
    _, axes = drawn(figure)
    limits = axes.get_ylim() if horizontal else axes.get_xlim()
    assert limits == ((2.5, -0.5) if horizontal else (-0.5, 2.5))
    sizes = [bar.get_width() if horizontal else bar.get_height() for bar in axes.patches]
    assert [size for size in sizes if not math.isnan(size)] == [10]  # No edge of an empty bar.
    if not log:
        assert (axes.get_xlim() if horizontal else axes.get_ylim())[0] == 0


def test_the_first_category_of_lying_bars_is_on_top():
    _, axes = drawn(BARS._replace(horizontal=True))
    first, second = (label.get_window_extent().y0 for label in axes.get_yticklabels())
    assert first > second


def test_names_of_categories_do_not_overlap():
    canvas, axes = drawn(BARS._replace(categories=["two words", "a name of some length " * 3]))
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert not boxes[0].overlaps(boxes[1])
    assert boxes[1].y0 >= 0
    _, axes = drawn(BARS._replace(categories=["unbreakable_" * 4, "unbreakable_" * 4]))
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {35}
    assert canvas.bbox.width > 0


def test_a_legend_of_many_series_stays_inside():
    canvas, _ = drawn(FIGURES["many series"])
    (legend,) = canvas.legends
    box = legend.get_window_extent()
    assert box.x0 >= -1
    assert box.x1 <= canvas.bbox.width
    assert len(legend.get_texts()) == 20


def test_colours_come_again_hatched_or_dashed():
    count = len(PALETTE) + 1
    svg = figure_svg(BARS._replace(series={f"{i}": [1, 1] for i in range(count)}))
    assert "<pattern" in svg
    assert "<pattern" not in figure_svg(BARS)
    _, axes = drawn(lines(**{f"s{i}": ([0, 1], [0, 1]) for i in range(count)}))
    assert [line.get_linestyle() for line in axes.lines] == ["-"] * len(PALETTE) + ["--"]


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (lines(a=([1, 60], [0.8, 0.95])), {"0.80", "0.90"}),
        (lines(a=([1, 2], [0, 4e7])), {"10,000,000", "30,000,000"}),
        (lines(a=([1, 2], [0, 4e7]))._replace(yunit="B"), {"10 MB", "30 MB"}),
        (lines(a=([1, 2], [0.004, 0.05]))._replace(yunit="s", logy=True), {"5 ms", "50 ms"}),
        (lines(a=([1, 2], [1, 1e6]))._replace(logy=True), {"1", "100", "1,000,000"}),
        (lines(a=([1, 2], [3.1, 4.2]))._replace(logy=True), {"3.5", "4"}),
        (lines(a=([1, 2], [0, 3])), {"0", "3"}),
    ],
)
def test_ticks_are_readable(figure, expected):
    _, axes = drawn(figure)
    assert expected <= {label.get_text() for label in axes.get_yticklabels()}


def test_whole_numbers_have_whole_ticks():
    _, axes = drawn(lines(round=([1, 2, 3], [0.1, 0.2, 0.3])))
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert all(re.fullmatch(r"−?\d+", tick) for tick in ticks)
