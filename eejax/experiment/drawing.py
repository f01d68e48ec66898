"""Draws figures as SVG that takes the colours of the page around it.

Text and axes are drawn in ``currentColor`` and gaps in the variable ``--paper``, so one drawing
suits light and dark pages. The colours of series are those of Okabe and Ito, which people of any
colour vision tell apart; where they run out they come again, dashed or hatched. Text is drawn as
paths, so a figure looks the same everywhere, and equal figures are equal byte for byte.

References:
  Okabe and Ito, Color Universal Design: How to Make Figures and Presentations That Are Friendly to
  Colorblind People, 2008.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from eejax.experiment.figures import FEW, Bars, Figure, Graph, Lines, check_figure, describe, floats
from eejax.experiment.graph_layout import place_nodes
from eejax.experiment.tables import column, si

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c8c8c", "#f0e442")
INK, PAPER = "#123456", "#fedcba"  # Stand for the page's own colours until the SVG is written.
HORIZONTAL, VERTICAL = ("right", "center", "left"), ("top", "center", "bottom")
LONG = 26  # Characters of a name in one line.
WIDTH = 5.8  # Inches; text of 9.5 points stays readable on a screen of 400 pixels.


def figure_svg(figure: Figure, name: str = "figure") -> str:
    """Draws a figure.

    Args:
      figure: the figure.
      name: begins all ids inside, so that several figures share a page.

    Returns:
      One element ``svg``, without width and height, with `describe` as its text for screen readers.

    Raises:
      ValueError: parts do not fit, see `check_figure`.

    Example:
      >>> svg = figure_svg(Bars("Traffic", "bytes", ["end to edge"], {"data": [784]}, unit="B"))
      >>> svg[:4], svg[-6:]
      ('<svg', '</svg>')
    """
    check_figure(figure)
    import matplotlib.style
    from matplotlib.figure import Figure as Canvas

    # Not matplotlib.rc_context alone: the user's own style must not change a report.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # A letter that the font lacks is an empty box, which is better than no report.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas = Canvas(dpi=72, layout="constrained")
        axes = canvas.subplots()
        _DRAW[type(figure)](canvas, axes, figure)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue(), name, describe(figure))


_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "eejax",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": INK,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
    "hatch.linewidth": 1.2,
} | dict.fromkeys(
    ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK
)


def _draw_lines(canvas: Any, axes: Any, figure: Lines) -> None:
    canvas.set_size_inches(WIDTH, 3.4)
    axes.grid(axis="y")
    handles, labels = {}, []
    for i, (label, xy) in enumerate(figure.series.items()):
        x, y = map(floats, xy)
        colour = PALETTE[i % len(PALETTE)]
        if label in figure.band:
            low, high = map(floats, figure.band[label])
            axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        dots = "o" if len(x) <= 2 * FEW else None
        dashes = "-" if i < len(PALETTE) else "--"
        handles[label] = axes.plot(x, y, color=colour, linestyle=dashes, marker=dots)[0]
    for label, xy in figure.points.items():
        x, y = floats(xy)
        if math.isnan(x + y):
            continue
        axes.plot(x, y, marker="D", markersize=5.5, color=INK, markeredgecolor=PAPER)
        labels.append((label, (x, y), "data"))
    for label, x in figure.markers.items():
        if math.isnan(floats(x)):
            continue
        axes.axvline(x, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        labels.append((label, (x, 0.97), axes.get_xaxis_transform()))
    axes.set(xlabel=figure.xlabel, ylabel=figure.ylabel)
    axes.margins(x=0.12 if figure.points else 0.03, y=0.12 if labels else 0.06)
    xs, ys = zip(*figure.series.values(), *figure.points.values())
    _scale(axes, "x", figure.logx, figure.xunit, xs)
    _scale(axes, "y", figure.logy, figure.yunit, ys)
    if len(figure.series) > 1 or figure.points:
        _legend(canvas, handles)
    _place(canvas, axes, labels)


def _draw_bars(canvas: Any, axes: Any, figure: Bars) -> None:
    count, groups = len(figure.categories), len(figure.series)
    lying = figure.horizontal
    rows = count * (1 if figure.stacked else max(1, groups / 2))
    canvas.set_size_inches(WIDTH, 1.3 + 0.26 * rows if lying else 3.4)
    draw = axes.barh if lying else axes.bar
    axes.grid(axis="x" if lying else "y")
    places, base, handles, ends = np.arange(count), np.zeros(count), {}, []
    width = 0.78 if figure.stacked else 0.82 / groups
    for i, (label, values) in enumerate(figure.series.items()):
        values = floats(values)
        start = {"left" if lying else "bottom": base}
        at = places if figure.stacked else places + (i - (groups - 1) / 2) * width
        # Where nothing is, no edge may be drawn.
        handles[label] = draw(
            at, np.where(values == 0, np.nan, values), width, **start,
            color=PALETTE[i % len(PALETTE)], edgecolor=PAPER, linewidth=0.8,
            hatch="////" if i >= len(PALETTE) else None,
        )  # fmt: skip
        ends += list(zip(at, values))
        if figure.stacked:
            base = base + np.nan_to_num(values)
    axis, other = ("y", "x") if lying else ("x", "y")
    names = [textwrap.fill(name, LONG) for name in figure.categories]
    axes.set(**{f"{axis}ticks": places, f"{axis}ticklabels": names})
    axes.set(**{f"{other}label": figure.ylabel})
    axes.tick_params(axis, length=0)
    axes.margins(**{other: 0.14 if lying else 0.1})
    if figure.stacked:
        ends = list(zip(places, base))
    values = np.array([value for _, value in ends])
    _scale(axes, other, figure.log, figure.unit, [values])
    # Not what matplotlib chooses, since gaps and zeros take their place too.
    axes.set(**{f"{axis}lim": (count - 0.5, -0.5) if lying else (-0.5, count - 0.5)})
    positive = values[values > 0]
    if figure.log and positive.size:
        axes.set(**{f"{other}lim": (positive.min() / 3, None)})
    elif (values < 0).any():
        (axes.axvline if lying else axes.axhline)(0, color=INK, linewidth=0.7)
    else:
        axes.set(**{f"{other}lim": (0, None if positive.size else 1)})
    if groups > 1:
        _legend(canvas, handles)
    if not lying:
        _fit_names(axes, figure.categories)
    if len(ends) <= FEW:
        _write_values(canvas, axes, figure, ends)


def _write_values(canvas: Any, axes: Any, figure: Bars, ends: Sequence[tuple]) -> None:
    """Writes the values at the ends of their bars, or none if one would cover something."""
    canvas.draw_without_rendering()
    bars = [bar.get_window_extent() for bar in axes.patches]
    if figure.unit:
        texts = [si(value, figure.unit) for _, value in ends]
    else:
        texts = column([float(f"{value:.3g}") if value % 1 else int(value) for _, value in ends])
    labels = []
    for (at, value), text in zip(ends, texts):
        if not math.isnan(value) and not (figure.log and value == 0):
            away, side = (3, 2) if value >= 0 else (-3, 0)
            labels.append(axes.annotate(
                text, (value, at) if figure.horizontal else (at, value),
                (away, 0) if figure.horizontal else (0, away),
                textcoords="offset points", fontsize=8,
                ha=HORIZONTAL[side] if figure.horizontal else "center",
                va="center" if figure.horizontal else VERTICAL[side],
            ))  # fmt: skip
    boxes = [label.get_window_extent() for label in labels]
    if any(box.overlaps(other) for i, box in enumerate(boxes) for other in bars + boxes[:i]):
        for label in labels:
            label.remove()


def _scale(axes: Any, axis: str, log: bool, unit: str, values: Sequence[Any]) -> None:
    """Chooses scale, ticks and their text."""
    from matplotlib import ticker

    seen = np.concatenate([np.ravel(floats(v)) for v in values])
    seen = seen[np.isfinite(seen)]
    side = getattr(axes, f"{axis}axis")
    log = log and bool((seen > 0).any())
    if log:
        seen = seen[seen > 0]
        axes.set(**{f"{axis}scale": "log"})
        decades = math.log10(seen.max() / seen.min())
        locator = ticker.LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
        side.set_major_locator(locator if decades >= 0.8 else ticker.MaxNLocator(5))
        side.set_minor_formatter(ticker.NullFormatter())
    else:
        whole = bool((seen == np.round(seen)).all())
        side.set_major_locator(ticker.MaxNLocator(6, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    if unit:
        side.set_major_formatter(ticker.FuncFormatter(lambda value, _: si(value, unit)))
    elif log or (seen.size and abs(seen).max() >= 1e4):
        side.set_major_formatter(ticker.StrMethodFormatter("{x:,.7g}" if log else "{x:,.0f}"))
    else:
        side.set_major_formatter(ticker.ScalarFormatter())  # As many decimals at all ticks.


def _legend(canvas: Any, handles: dict[str, Any]) -> None:
    """Puts the legend above, in as few rows as fit."""
    place = "outside upper left"
    for ncols in range(len(handles), 0, -1):
        legend = canvas.legend(handles.values(), handles.keys(), loc=place, ncols=ncols)
        if ncols == 1 or legend.get_window_extent().width < 0.97 * canvas.bbox.width:
            return
        legend.remove()


def _fit_names(axes: Any, names: Sequence[str]) -> None:
    """Breaks the names of categories into lines, or turns and clips them if a word is too long."""
    room = 72 // len(names)
    if all(len(word) <= room for name in names for word in name.split()):
        axes.set_xticklabels([textwrap.fill(name, room) for name in names])
    else:
        clipped = [name if len(name) <= LONG else f"{name[: LONG - 1]}…" for name in names]
        axes.set_xticklabels(
            clipped, rotation=35 if len(names) <= 16 else 90, ha="right", rotation_mode="anchor"
        )


def _draw_graph(canvas: Any, axes: Any, figure: Graph) -> None:
    x, y, line = place_nodes(len(figure.nodes), figure.edges)
    canvas.set_size_inches(WIDTH, min(1.4 + 0.16 * np.ptp(y), 7.5))
    for a, b in figure.edges:
        if line[a] == line[b]:
            arc = f"arc3,rad={0.25 if x[b] - x[a] > 1 else 0}"
            look = {"arrowstyle": "-", "color": INK, "alpha": 0.45, "linewidth": 0.7}
            axes.annotate(
                "", (x[b], y[b]), (x[a], y[a]), arrowprops=look | {"connectionstyle": arc}
            )
    handles = {}
    for i, group in enumerate(figure.order):
        mine = np.array([g == group for g in figure.groups])
        handles[f"{group} ({mine.sum()})"] = axes.scatter(
            x[mine], y[mine], s=26 if len(x) <= 200 else 10, zorder=3,
            color=PALETTE[i % len(PALETTE)], marker="osD^v"[i % 5],
        )  # fmt: skip
    axes.set_axis_off()
    axes.margins(0.04)
    _legend(canvas, handles)


_DRAW = {Bars: _draw_bars, Graph: _draw_graph, Lines: _draw_lines}


def _place(canvas: Any, axes: Any, labels: Sequence[tuple[str, Any, Any]]) -> None:
    """Writes each label at the place around its point where it covers least."""
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # What is measured now must stay.
    covered = np.concatenate([np.empty((0, 2)), *(_path(line) for line in axes.lines)])
    covered = covered[np.isfinite(covered).all(1)]
    taken, frame = [], axes.get_window_extent()

    def cost(box: Any) -> tuple:
        outside = (box.min < frame.min).any() or (box.max > frame.max).any()
        inside = ((covered > box.min - 1) & (covered < box.max + 1)).all(1).sum()
        return sum(box.overlaps(other) for other in taken), outside, inside

    for label, xy, system in labels:
        texts = [
            axes.annotate(
                label, xy, (dx, dy), xycoords=system, textcoords="offset points", fontsize=8.5,
                ha=HORIZONTAL[int(np.sign(dx)) + 1], va=VERTICAL[int(np.sign(dy)) + 1],
            )
            for dx, dy in _AROUND
        ]  # fmt: skip
        boxes = [text.get_window_extent() for text in texts]
        costs = [cost(box) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best].padded(1))
        for text in texts[:best] + texts[best + 1 :]:
            text.remove()


_AROUND = [
    (7, 0), (-7, 0), (0, 7), (0, -7), (5, 5), (5, -5), (-5, 5), (-5, -5),
    (6, 14), (6, -14), (-6, 14), (-6, -14), (6, 26), (6, -26), (-6, 26), (-6, -26),
]  # fmt: skip


def _path(line: Any) -> np.ndarray:
    """Samples a line densely, in pixels ``[n, 2]``."""
    ends = line.get_transform().transform(line.get_xydata())
    steps = np.linspace(0, 1, 20)[:, None, None]
    return np.concatenate([ends, ((1 - steps) * ends[:-1] + steps * ends[1:]).reshape(-1, 2)])


def _inline(svg: str, name: str, text: str) -> str:
    """Makes a file into an element for a page, in the colours of the page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, #fff)")
    start = f'<svg role="img" aria-label="{escape(text)}" stroke-linejoin="round"'
    return svg.replace("<svg", start, 1)
