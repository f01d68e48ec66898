"""Figures as plain data, and what they show in words; `drawing` draws them."""

import math
from typing import Any, NamedTuple

import numpy as np

from eejax.experiment.tables import number, si

Values = list[float | None]

FEW = 12  # So many values are said or written one by one.


class Lines(NamedTuple):
    """Lines over a common axis, and single points beside them.

    Attributes:
      title: one sentence, shown below the figure.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      series: ``{label: (x, y)}``, each ``[n]``; None and NaN are gaps.
      points: ``{label: (x, y)}``, labelled where they are, such as baselines.
      markers: ``{label: x}``, vertical lines, such as the moment of a drift.
      band: ``{label of a series: (low, high)}``, each ``[n]``: its spread.
      logx: whether the horizontal axis is logarithmic.
      logy: whether the vertical axis is logarithmic.
      xunit: unit of ``x``, such as ``"s"``; written with prefixes, as `tables.si` does.
      yunit: unit of ``y``.
    """

    title: str
    xlabel: str
    ylabel: str
    series: dict[str, tuple[Values, Values]]
    points: dict[str, tuple[float | None, float | None]] = {}  # noqa: RUF012
    markers: dict[str, float | None] = {}  # noqa: RUF012
    band: dict[str, tuple[Values, Values]] = {}  # noqa: RUF012
    logx: bool = False
    logy: bool = False
    xunit: str = ""
    yunit: str = ""

    kind = "lines"


class Bars(NamedTuple):
    """Bars by category, beside each other or stacked.

    Attributes:
      title: one sentence, shown below the figure.
      ylabel: name of the axis of the values.
      categories: ``[n]`` names.
      series: ``{label: values}``, each ``[n]``; None and NaN are gaps.
      stacked: whether the series add up; their sum is then written on the bars.
      horizontal: whether bars lie, which suits long names and many categories.
      log: whether the axis of the values is logarithmic; not for stacked bars, whose parts cannot
        be compared on it.
      unit: unit of the values, such as ``"B"``.
    """

    title: str
    ylabel: str
    categories: list[str]
    series: dict[str, Values]
    stacked: bool = False
    horizontal: bool = False
    log: bool = False
    unit: str = ""

    kind = "bars"


class Graph(NamedTuple):
    """A directed graph drawn from left to right, its nodes coloured by group.

    Attributes:
      title: one sentence, shown below the figure.
      nodes: names ``[n]``, so ordered that edges go up.
      edges: pairs of indices of nodes, ``[[from, to], ...]``.
      groups: the group of each node, ``[n]``.
      order: the groups as the legend lists them.
    """

    title: str
    nodes: list[str]
    edges: list[list[int]]
    groups: list[str]
    order: list[str]

    kind = "graph"


Figure = Lines | Bars | Graph


def check_figure(figure: Figure, where: str = "figure") -> None:
    """Refuses a figure whose parts do not fit.

    Args:
      figure: the figure; the types of its fields are right.
      where: how an error calls it.

    Raises:
      ValueError: lengths differ, a band belongs to no series, a value does not suit the axis, or
        there is nothing to draw.
    """

    def refuse(problem: str) -> None:
        raise ValueError(f"{where} ({figure.title!r}): {problem}")

    def positive(name: str, values: Any) -> None:
        if (floats(values) <= 0).any():
            refuse(f"{name} must be above 0 on a logarithmic axis")

    if isinstance(figure, Graph):
        count = len(figure.nodes)
        if not count or len(figure.groups) != count:
            refuse(f"there must be a group for each of the {count} nodes, and at least one node")
        for group in figure.groups:
            if group not in figure.order:
                refuse(f"group {group!r} is not in the order {', '.join(figure.order)}")
        for edge in figure.edges:
            if len(edge) != 2 or not 0 <= edge[0] < edge[1] < count:
                refuse(f"edge {edge} must be two ascending indices below {count}")
        return
    if isinstance(figure, Bars):
        count = len(figure.categories)
        if not count or not figure.series:
            refuse("there are no bars")
        if figure.stacked and figure.log:
            refuse("log must be false for stacked bars, whose parts cannot be compared on it")
        for label, values in figure.series.items():
            if len(values) != count:
                refuse(f"series[{label!r}] has {len(values)} values for {count} categories")
            if (figure.stacked or figure.log) and (floats(values) < 0).any():
                refuse(f"series[{label!r}] must be >= 0 in stacked bars and on a logarithmic axis")
        return
    if not figure.series and not figure.points:
        refuse("there are neither series nor points")
    for label, (x, y) in figure.series.items():
        if len(x) != len(y):
            refuse(f"series[{label!r}] has {len(x)} x and {len(y)} y")
    for label, edges in figure.band.items():
        if label not in figure.series:
            refuse(f"band[{label!r}] belongs to no series; choose from {', '.join(figure.series)}")
        if {len(edge) for edge in edges} != {len(figure.series[label][0])}:
            refuse(f"band[{label!r}] must be as long as its series")
    for axis, log in enumerate((figure.logx, figure.logy)):
        if log:
            for label, xy in [*figure.series.items(), *figure.points.items()]:
                positive(f"{'xy'[axis]} of {label!r}", xy[axis])
    if figure.logx:
        positive("markers", list(figure.markers.values()))
    if figure.logy:
        for label, (low, _) in figure.band.items():
            positive(f"band[{label!r}]", low)


def describe(figure: Figure) -> str:
    """Says in words what a figure shows, for those who cannot see it.

    Args:
      figure: the figure.

    Returns:
      A few sentences with the range of every series.

    Example:
      >>> describe(Bars("Who leaves where", "samples", ["exit 1", "exit 2"], {"test": [80, 20]}))
      'Bar chart of samples for exit 1, exit 2. test: 80, 20.'
    """
    if isinstance(figure, Graph):
        parts = [f"Graph of {len(figure.nodes)} nodes and {len(figure.edges)} edges"]
        for group in figure.order:
            mine = [n for n, g in zip(figure.nodes, figure.groups) if g == group]
            listed = ", ".join(mine) if len(mine) <= FEW else f"{mine[0]} to {mine[-1]}"
            parts.append(f"{group}: {len(mine)} nodes" + (f", {listed}" if mine else ""))
    elif isinstance(figure, Bars):
        parts = [f"Bar chart of {figure.ylabel} for {', '.join(figure.categories)}"]
        for label, values in figure.series.items():
            few = ", ".join(amount(value, figure.unit) for value in values)
            parts.append(f"{label}: {few if len(values) <= FEW else _range(values, figure.unit)}")
    else:
        parts = [f"Line chart of {figure.ylabel} over {figure.xlabel}"]
        for label, (_, y) in figure.series.items():
            parts.append(f"{label}: {_range(y, figure.yunit)}")
        for label, (x, y) in figure.points.items():
            parts.append(f"{label}: {amount(y, figure.yunit)} at {amount(x, figure.xunit)}")
        for label, x in figure.markers.items():
            parts.append(f"{label} at {amount(x, figure.xunit)}")
    return ". ".join(parts) + "."


def floats(values: Any) -> np.ndarray:
    """Makes a float64 array in which gaps, None and infinities are NaN."""
    array = np.array(values, np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def amount(value: float | None, unit: str) -> str:
    """Writes a value with its unit, see `tables.si`, or as a bare number."""
    return si(value, unit) if unit else number(value)


def _range(values: Values, unit: str) -> str:
    seen = [value for value in floats(values).tolist() if math.isfinite(value)]
    if not seen:
        return "no values"
    low, high, last = (amount(value, unit) for value in (min(seen), max(seen), seen[-1]))
    return f"from {low} to {high}, at the end {last}"
