"""Reports: data out and in again, one safe page, and the terminal."""

import datetime
import io
import json
import re
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from eejax.experiment.cli import main
from eejax.experiment.figures import Bars, Lines
from eejax.experiment.report import (
    Report,
    Section,
    from_json,
    print_report,
    save_report,
    to_html,
    to_json,
    write_report,
)
from eejax.experiment.tables import Table
from eejax.experiment.workdir import RunDir

EVIL = "<script>alert(1)</script>\"'&<!-- ]]> [red]x[/]"
DATE = datetime.datetime(2025, 11, 24, 23, 30, tzinfo=datetime.UTC)


def make_report(word="word"):
    """A report with ``word`` in every field that holds text."""
    lines = Lines(
        word, f"{word} x", f"{word} y", {f"{word} a": ([0.0, 1.0], [0.5, None])},
        points={f"{word} p": (0.5, 0.6)}, markers={f"{word} m": 0.5},
        band={f"{word} a": ([0.4, None], [0.6, None])}, xunit="s", yunit=word,
    )  # fmt: skip
    bars = Bars(word, f"{word} y", [f"{word} c"], {f"{word} s": [3], f"{word} t": [None]}, True)
    table = Table(word, [word, "n"], [[word, 1], [f"{word} best", 0.25], ["", None]], best=1)
    text = f"First {word}.\n\nSecond {word}."
    sections = (Section(word, text, (table, table), (lines, bars)), Section(f"{word} 2", ""))
    return Report(f"Title {word}", f"Summary {word}", sections)


@pytest.fixture
def run(tmp_path):
    workdir = RunDir(tmp_path / "run")
    workdir.root.mkdir()
    workdir.write_json("config.json", {"seed": 0})
    return workdir


def test_json_comes_back_equal():
    for word in ("word", EVIL):
        report = make_report(word)
        value = json.loads(json.dumps(to_json(report), allow_nan=False))
        assert from_json(value) == report
        assert to_json(from_json(value)) == value


def test_arrays_become_lists_and_what_is_not_finite_a_gap():
    figure = Lines("", "", "", {"a": (np.arange(2), jnp.array([0.5, jnp.nan], jnp.float32))})
    rows = [[np.int64(3), np.float32(0.5)], [jnp.int32(1), float("inf")]]
    report = Report("", "", [Section("", "", [Table("", ["n", "x"], rows)], [figure])])
    (section,) = from_json(to_json(report)).sections
    assert section.figures[0].series == {"a": ([0, 1], [0.5, None])}
    assert section.tables[0].rows == [[3, 0.5], [1, None]]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("title", 3, r"report\.title must be text, is 3"),
        ("title", "\x1b[31m", r"report\.title holds a control character"),
        ("title", "\ud800", r"report\.title holds a control character"),
        ("titel", "", r"report has an unknown field 'titel'; did you mean 'title'\?"),
        ("xyz", "", r"report has an unknown field 'xyz'; choose from title, summary, sections"),
        ("sections", {}, r"report\.sections must be a list, is \{\}"),
        ("sections.0", [], r"report\.sections\[0\] must be an object, is \[\]"),
        ("sections.0.text", None, r"report\.sections\[0\]\.text must be text, is None"),
        ("sections.0.figures.0.kind", "heat", r"figures\[0\]\.kind must be lines or bars"),
        (
            "sections.0.figures.0.kind",
            [],
            r"figures\[0\]\.kind must be lines or bars or graph, is \[\]",
        ),
        ("sections.0.figures.0.logx", 1, r"figures\[0\]\.logx must be true or false, is 1"),
        ("sections.0.figures.0.series", {"a": [[1]]}, r"series\['a'\] must have 2 items, has 1"),
        ("sections.0.figures.0.series", {"a": [["1"], [2]]}, r"\[0\]\[0\] must be a number or nul"),
        ("sections.0.figures.0.series", {"a\0": [[], []]}, r"a name in .* control character"),
        ("sections.0.figures.0.points", {"p": [1, True]}, r"a number or null, is True"),
        ("sections.0.figures.1.series", {"a": [1, 2]}, r"sections\[0\]\.figures\[1\] .* 2 values"),
        ("sections.0.figures.1.series", {"a": [10**400]}, r"series\['a'\]\[0\] is too large"),
        ("sections.0.tables.1.best", 9, r"sections\[0\]\.tables\[1\]\.best must be the index"),
        ("sections.0.tables.1.best", 0.0, r"best must be an integer or null, is 0\.0"),
        ("sections.0.tables.0.rows", [[1]], r"sections\[0\]\.tables\[0\]\.rows\[0\] has 1 cells"),
        ("sections.0.tables.0.rows", [[[], 1]], r"rows\[0\]\[0\] must be text or an integer or"),
    ],
)
def test_errors_name_the_field(path, value, message):
    data = place = to_json(make_report())
    *parents, last = path.split(".")
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    place[int(last) if last.isdigit() else last] = value
    with pytest.raises(ValueError, match=message):
        from_json(data)


@pytest.mark.parametrize("field", ["title", "summary", "sections"])
def test_a_missing_field_is_named(field):
    data = to_json(make_report())
    del data[field]
    with pytest.raises(ValueError, match=f"report lacks the field '{field}'"):
        from_json(data)


def test_a_wrong_report_is_found_before_it_is_saved(run):
    wrong = Report("t", "s", (Section("a", "b", (Table("c", ["d"], [[run.root]]),)),))
    with pytest.raises(ValueError, match=r"rows\[0\]\[0\] must be text .* PosixPath"):
        save_report(run, wrong)
    assert [path.name for path in run.root.iterdir()] == ["config.json"]


def parse(html):
    start, _, rest = html.partition("\n")
    assert start == "<!DOCTYPE html>"
    return ET.fromstring(rest)


def names_of(root):
    return {element.tag.rpartition("}")[2] for element in root.iter()}


def test_no_text_becomes_markup():
    config = {EVIL: [EVIL], "control": "\x00\x9b\ud800"}
    html = to_html(make_report(EVIL), config, {EVIL: EVIL}, {EVIL: EVIL})
    harmless = to_html(make_report(), {}, {}, {})
    assert "<script" not in html
    assert "[red]x[/]" in html
    root = parse(html)
    assert names_of(root) == names_of(parse(harmless))
    text = "".join(root.itertext())
    assert text.count(EVIL) > 15
    assert f"Title {EVIL}" in text
    for element in root.iter():
        assert not any(name.lower().startswith("on") for name in element.attrib)
    html.encode()


def test_the_page_asks_for_nothing_from_outside():
    root = parse(to_html(make_report(), {}, {}, {}))
    assert not names_of(root) & {"script", "link", "img", "iframe", "object", "image", "base"}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("href", "src", "data"):
                assert value.startswith("#")
            assert re.findall(r"url\((?!#)", value) == []
    style = "".join(element.text for element in root.iter() if element.tag.endswith("}style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in ET.tostring(root, encoding="unicode")


def test_all_inner_links_lead_somewhere_and_ids_are_unique():
    html = to_html(make_report(), {}, {}, {})
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    links = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-labelledby="([^"]+)"', html)
    assert {a or b or c for a, b, c in links} <= set(ids)
    assert {"section-1", "section-2", "details", "table-1"} <= {a or b or c for a, b, c in links}


def test_figures_and_tables_are_numbered_and_described():
    root = parse(to_html(make_report()))
    captions = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}figcaption")]
    assert captions == [f"{kind} {i}. word" for kind in ("Figure", "Table") for i in (1, 2)]
    pictures = [e for e in root.iter() if e.get("role") == "img"]
    assert ["chart of word y" in picture.get("aria-label") for picture in pictures] == [True] * 2
    assert "Details" not in "".join(root.itertext())


def test_the_same_run_gives_the_same_files_but_for_the_date(run):
    path = save_report(run, make_report(), DATE)
    first, data = path.read_text().splitlines(), run.path("report.json").read_bytes()
    zone = datetime.timezone(datetime.timedelta(hours=8))
    save_report(run, make_report(), datetime.datetime(2025, 11, 25, 8, 0, tzinfo=zone))
    second = path.read_text().splitlines()
    assert run.path("report.json").read_bytes() == data
    changed = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    ((before, after),) = changed
    assert re.fullmatch(
        r"<footer>eejax [\d.]+ · JAX [\d.]+ · Python [\d.]+ · run on 8 × cpu · "
        r"ended 2025-11-24 23:30 UTC</footer>",
        before,
    )
    assert after == before.replace("2025-11-24 23:30", "2025-11-25 00:00")


def test_the_page_can_be_made_again_from_the_folder(run):
    run.write_json("summary.json", {"accuracy": 0.958123})
    path = save_report(run, make_report(), DATE)
    assert path == run.root / "report.html"
    html = path.read_text()
    assert "0.958123" in html
    assert "&quot;seed&quot;: 0" in html
    path.unlink()
    assert write_report(str(run.root)) == path
    assert path.read_text() == html


def test_the_report_alone_is_enough(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(to_json(make_report())))
    assert "<footer></footer>" in write_report(tmp_path).read_text()


def test_the_command_line_makes_it_again_or_says_why_not(run, capsys):
    def failed(folder):
        assert main(["report", str(folder)]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error

    assert "no run folder" in failed(run.root / "nowhere")
    error = failed(run.root)
    assert "has not ended: it has no report.json; resume it with" in error
    assert f"--workdir {run.root} --resume" in error
    run.path("config.json").unlink()
    assert "is no run folder: it has no config.json" in failed(run.root)

    save_report(run, make_report())
    assert main(["report", str(run.root)]) == 0
    assert capsys.readouterr().out.strip() == str(run.root / "report.html")

    for name in ("report.json", "config.json", "summary.json", "environment.json"):
        good = run.path(name).read_bytes() if run.path(name).exists() else b"{}"
        for bad in (b"{", b"[]", b"\xff", b"[" * 10**5):
            run.path(name).write_bytes(bad)
            assert f"{run.path(name)} is damaged: " in failed(run.root)
        run.path(name).write_bytes(good)
    run.write_json("report.json", {"title": "t", "summary": 1, "sections": []})
    assert "report.json is damaged: report.summary must be text, is 1" in failed(run.root)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_gets_text_and_tables(width):
    file = io.StringIO()
    report = make_report("[b]word[/b]")
    print_report(Console(file=file, width=width), report)
    text = file.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    rows = [
        "   [b]word[/b]          n",
        "   [b]word[/b]          1",
        "★  [b]word[/b] best  0.25",
        "                        –",
    ]
    first, second = (["", f"Table {i}. [b]word[/b]", *rows] for i in (1, 2))
    head = ["Title [b]word[/b]", "Summary [b]word[/b]", "", "[b]word[/b]"]
    assert [line.rstrip() for line in text.splitlines()] == [*head, *first, *second]
