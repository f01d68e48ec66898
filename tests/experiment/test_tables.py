"""Numbers as people read them, and tables that fit."""

import io
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from eejax.experiment.tables import (
    BEST,
    Table,
    check_table,
    column,
    number,
    si,
    table_html,
    table_rich,
)

PLAN = Table(
    "Where to cut.",
    ["plan", "end", "latency", "energy of the end", "slower"],
    [
        ["early exit", "stage 1", si(0.0148, "s"), si(0.0112, "J"), 1.0],
        ["all cloud", None, si(0.0475, "s"), si(0.094, "J"), 3.209],
    ],
    best=0,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_234_567, "B", "1.23 MB"),
        (1_200_000, "B", "1.2 MB"),
        (999, "B", "999 B"),
        (999_499, "B", "999 kB"),
        (999_500, "B", "1 MB"),
        (0.25, "B", "0.25 B"),  # A mean; there are no millibytes.
        (0, "B", "0 B"),
        (0.0034, "s", "3.4 ms"),
        (-0.0034, "s", "-3.4 ms"),
        (61.0, "s", "61 s"),
        (2.5e-7, "J", "250 nJ"),
        (12.5e9, "FLOP/s", "12.5 GFLOP/s"),
        (3e21, "B", "3,000,000 PB"),
        (1e-15, "s", "0.001 ps"),
        (1500, "", "1.5 k"),
        (np.float32(0.5), "s", "500 ms"),
        (None, "s", "–"),
        (math.nan, "s", "–"),
        (math.inf, "B", "–"),
    ],
)
def test_si(value, unit, text):
    assert si(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (1234567.0, "1,234,567"),
        (12.3456, "12.3"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1.234e-7, "1.23e-07"),
        (1.5e20, "1.5e+20"),
        (10**400, f"{10**400:,}"),  # No float.
        (math.nan, "–"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([0.91234, 0.5, 0.75], ["0.9123", "0.5000", "0.7500"]),
        ([0.25, 0.5, None, 0.0], ["0.25", "0.50", "–", "0.00"]),
        ([1234.5, 999.4], ["1,234", "999"]),
        ([3.0, 12.0], ["3", "12"]),
        ([120.0, 0.0123], ["120", "0.0123"]),  # No number of decimals suits both.
        ([5, 0.5, "x", math.inf], ["5", "0.5", "x", "–"]),
        ([], []),
    ],
)
def test_a_column_is_written_alike(cells, texts):
    assert column(cells) == texts


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table("", [], []), r"t\.columns must name at least one column"),
        (Table("", ["a", "b"], [[1, 2], [1]]), r"t\.rows\[1\] has 1 cells for 2 columns"),
        (Table("", ["a"], [[1]], best=1), r"t\.best must be the index of one of 1 rows, is 1"),
        (Table("", ["a"], [[1]], best=-1), r"t\.best must be .* is -1"),
    ],
)
def test_parts_must_fit(table, message):
    with pytest.raises(ValueError, match=message):
        check_table(table, "t")


def test_html_has_headings_numbers_and_one_best_row():
    root = ET.fromstring(table_html(PLAN, 7))
    assert "".join(root.find("figcaption").itertext()) == "Table 7. Where to cut."
    heads = root.findall(".//thead//th")
    assert [head.text for head in heads] == PLAN.columns
    assert [head.get("class") for head in heads] == [None, None, "n", "n", "n"]
    first, second = root.findall(".//tbody/tr")
    assert (first.get("class"), second.get("class")) == ("best", None)
    assert "".join(first.find("th").itertext()) == f"{BEST} early exit"
    assert first.find("th").get("scope") == "row"
    assert [cell.text for cell in second.findall("td")] == ["–", "47.5 ms", "94 mJ", "3.209"]


def shown(table, width):
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(table_rich(table, 1, console))
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_the_terminal_shows_every_word_whole_at_any_width(width):
    text = shown(PLAN, width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("early", "cloud", "stage", "14.8 ms", "47.5 ms", "94 mJ", "3.209"):
        assert word in text
    assert "…" not in text
    assert text.count(BEST) == 1
    (best,) = (line for line in text.splitlines() if BEST in line)
    assert "early" in best


def test_columns_that_do_not_fit_become_blocks():
    assert len(shown(PLAN, 80).splitlines()) == 4
    lines = [line.rstrip() for line in shown(PLAN, 30).splitlines()]
    assert lines[:4] == [
        "Table 1. Where to cut.",
        f"{BEST} early exit",
        "  end                stage 1",
        "  latency            14.8 ms",
    ]


def test_text_is_no_markup():
    table = Table("[red]c[/]", ["[b]h"], [["[link=x]cell[/link]"]])
    for part in ("[red]c[/]", "[b]h", "[link=x]cell[/link]"):
        assert part in shown(table, 80)


def test_a_table_without_rows():
    table = Table("Nothing crossed a link.", ["from", "to"], [])
    assert "from  to" in shown(table, 80)
    assert ET.fromstring(table_html(table, 1)).find(".//tbody").text.strip() == ""
