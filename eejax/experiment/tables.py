"""Tables as plain data: numbers as people read them, in HTML and in the terminal."""

import math
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

Cell = str | int | float | None

NOTHING, BEST = "–", "★"
MARK = f'<span class="mark" title="best">{BEST}</span> '
NUMERIC = re.compile(r"[-+~]?\d|–")
LONG = 20  # Characters of a cell that may be broken into lines.
GAP = 2  # Blanks between columns in the terminal.
PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


class Table(NamedTuple):
    """A table of a report.

    Attributes:
      caption: one sentence.
      columns: names of the columns.
      rows: one list of cells for each row; text stays as it is, None and NaN are a dash.
      best: index of the row to mark.
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    best: int | None = None


def si(value: float | None, unit: str) -> str:
    """Writes a quantity with three significant digits and a decimal prefix.

    Args:
      value: the quantity in ``unit``, such as bytes, seconds or joules.
      unit: its symbol; ``"B"`` never gets a prefix below one.

    Returns:
      Text such as ``"1.2 MB"``; a dash for None, NaN and infinities.

    Example:
      >>> si(1_234_567, "B"), si(0.0034, "s"), si(999_999, "B"), si(0, "J"), si(None, "s")
      ('1.23 MB', '3.4 ms', '1 MB', '0 J', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.2e}")  # First, or 999,999 would become 1000 k.
    exponent = math.floor(math.log10(abs(rounded))) // 3 * 3 if rounded else 0
    exponent = min(max(exponent, 0 if unit == "B" else min(PREFIXES)), max(PREFIXES))
    return f"{number(rounded / 10.0**exponent)} {PREFIXES[exponent]}{unit}".rstrip()


def number(value: float | None) -> str:
    """Writes one number: integers in full, floats with three significant digits.

    Args:
      value: the number.

    Returns:
      Text without an exponent in the range that people read; a dash for None, NaN and infinities.

    Example:
      >>> number(60000), number(0.91234), number(1250.0), number(1e-9), number(None)
      ('60,000', '0.912', '1,250', '1e-09', '–')
    """
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or not math.isfinite(value):
        return NOTHING
    if value and not 1e-5 <= abs(value) < 1e15:
        return f"{value:.3g}"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:,.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def column(cells: Sequence[Cell]) -> list[str]:
    """Formats the cells of one column alike.

    Integers get thousands separators. Floats share as many decimals as give the largest four
    significant digits, fewer if all need fewer; where magnitudes differ too much for that, each has
    three significant digits.

    Args:
      cells: the cells, from top to bottom.

    Returns:
      Their text.

    Example:
      >>> column([60000, None]), column([0.91234, 0.9]), column([12.5, 1e-5]), column(["a", 0.5])
      (['60,000', '–'], ['0.9123', '0.9000'], ['12.5', '0.00001'], ['a', '0.5'])
    """
    floats = [cell for cell in cells if isinstance(cell, float) and math.isfinite(cell)]
    sizes = [abs(x) for x in floats if x]
    decimals = None
    if sizes and max(sizes) < 100 * min(sizes):
        most = max(0, 3 - math.floor(math.log10(max(sizes))))
        decimals = next(
            d for d in range(most + 1) if all(round(x, d) == round(x, most) for x in sizes)
        )

    def text(cell: Cell) -> str:
        if isinstance(cell, str):
            return cell
        if decimals is None or not isinstance(cell, float) or not math.isfinite(cell):
            return number(cell)
        return f"{cell:,.{decimals}f}"

    return [text(cell) for cell in cells]


def check_table(table: Table, where: str = "table") -> None:
    """Refuses a table whose parts do not fit.

    Args:
      table: the table; the types of its fields are right.
      where: how an error calls it.

    Raises:
      ValueError: there is no column, a row has the wrong length, or ``best`` is out of range.
    """
    if not table.columns:
        raise ValueError(f"{where}.columns must name at least one column")
    for i, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ValueError(
                f"{where}.rows[{i}] has {len(row)} cells for {len(table.columns)} columns"
            )
    if table.best is not None and not 0 <= table.best < len(table.rows):
        raise ValueError(
            f"{where}.best must be the index of one of {len(table.rows)} rows, is {table.best}"
        )


def table_html(table: Table, number: int) -> str:
    """Renders a table as HTML.

    Args:
      table: the table.
      number: what the caption calls it.

    Returns:
      A ``figure`` whose table scrolls sideways on narrow screens; all text is escaped.
    """
    texts, right = _texts(table)
    head = "".join(_cell("th", "n" if r else "", c, "col") for r, c in zip(right, table.columns))
    body = []
    for i, row in enumerate(texts):
        best = i == table.best
        kinds = ["n" if r else "long" if len(c) > LONG else "" for r, c in zip(right, row)]
        cells = [
            _cell("th", kinds[0], row[0], "row", best),
            *(_cell("td", k, c) for k, c in zip(kinds[1:], row[1:])),
        ]
        start = '<tr class="best">' if best else "<tr>"
        body.append(f"{start}{''.join(cells)}</tr>")
    body = "\n".join(body)
    return (
        f'<figure class="table"><figcaption id="table-{number}"><b>Table {number}.</b> '
        f"{escape(table.caption)}</figcaption>\n"
        f'<div role="region" aria-labelledby="table-{number}" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></figure>"
    )


def table_rich(table: Table, number: int, console: Console) -> RenderableType:
    """Renders a table for the terminal; one block for each row if the columns do not fit.

    Args:
      table: the table.
      number: what the caption calls it.
      console: tells the width.

    Returns:
      What ``console.print`` takes. Text is not read as markup.
    """
    texts, right = _texts(table)
    caption = Text(f"Table {number}. {table.caption}", style="italic")
    # Numbers stay together with their units.
    whole = [[c.replace(" ", "_") if r else c for c, r in zip(row, right)] for row in texts]
    widths = _widths([table.columns, *whole], console.width - 1 - GAP)
    if widths is None:
        return Group(caption, *(_block(table, i, row) for i, row in enumerate(texts)))
    grid = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    grid.add_column("", width=1)
    for name, width, r in zip(table.columns, widths, right):
        grid.add_column(Text(name), justify="right" if r else "left", width=width, vertical="top")
    for i, row in enumerate(texts):
        mark, style = (BEST, "bold") if i == table.best else ("", "")
        grid.add_row(Text(mark), *map(Text, row), style=style)
    return Group(caption, grid)


def _cell(tag: str, kind: str, text: str, scope: str = "", best: bool = False) -> str:
    attributes = (f' scope="{scope}"' if scope else "") + (f' class="{kind}"' if kind else "")
    return f"<{tag}{attributes}>{MARK if best else ''}{escape(text)}</{tag}>"


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Chooses the widths of columns: the widest shrink until all fit, or None.

    No word is broken, and no cell gets much more than three lines.
    """
    columns = [[row[i] for row in rows] for i in range(len(rows[0]))]
    widths = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(w) for c in column for w in c.split(" ")) for column in columns]
    least = [max(word, width // 3) for word, width in zip(words, widths)]
    while sum(widths) + GAP * len(widths) > room:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not wide:
            return None
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _block(table: Table, i: int, row: Sequence[str]) -> RenderableType:
    """Lays one row out as a heading and lines of name and value."""
    block = RichTable.grid(padding=(0, 2, 0, 0))
    block.add_column()
    block.add_column(overflow="fold")
    for name, value in zip(table.columns[1:], row[1:]):
        block.add_row(Text(name), Text(value))
    best = i == table.best
    head = Text(f"{BEST + ' ' if best else ''}{row[0]}", style="bold reverse" if best else "bold")
    return Group(head, Padding(block, (0, 0, 0, 2)))


def _texts(table: Table) -> tuple[list[list[str]], list[bool]]:
    """Formats all cells, and tells which columns hold numbers, with or without a unit."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    right = [
        any(cell is not None for cell in cells)
        and all(not isinstance(cell, str) or NUMERIC.match(cell) for cell in cells)
        for cells in columns
    ]
    formatted = [column(cells) for cells in columns]
    return [[cells[i] for cells in formatted] for i in range(len(table.rows))], right
