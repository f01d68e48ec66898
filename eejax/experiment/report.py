"""What a run found out: plain data in ``report.json``, shown as one HTML file and in the terminal.

A run makes a `Report` and saves it. The page can be made again at any time from the folder of the
run, whose files are read as data and checked, whatever they hold.
"""

import datetime
import json
import platform
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

import eejax
from eejax.experiment.drawing import figure_svg
from eejax.experiment.figures import Bars, Figure, Graph, Lines, check_figure
from eejax.experiment.page import page, paragraphs
from eejax.experiment.plain import CONTROL, from_plain, say, to_plain
from eejax.experiment.tables import Table, check_table, table_html, table_rich
from eejax.experiment.workdir import RunDir

REPORT, HTML = "report.json", "report.html"
CONFIG, SUMMARY, ENVIRONMENT = "config.json", "summary.json", "environment.json"


class Section(NamedTuple):
    """A part of a report.

    Attributes:
      title: its heading.
      text: what it says; an empty line begins a new paragraph.
      tables: the tables below the figures.
      figures: the figures below the text.
    """

    title: str
    text: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Lines | Bars | Graph, ...] = ()


class Report(NamedTuple):
    """What a run shows.

    Attributes:
      title: the heading.
      summary: one paragraph with what was found.
      sections: the parts, in their order.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]


def to_json(report: Report) -> dict[str, Any]:
    """Makes plain JSON values of a report, and checks them.

    Arrays and numpy numbers become lists and numbers, NaN and infinities None.

    Args:
      report: the report.

    Returns:
      What `from_json` takes.

    Raises:
      ValueError: as `from_json`.

    Example:
      >>> to_json(Report("Life cycle", "It went well.", ()))
      {'title': 'Life cycle', 'summary': 'It went well.', 'sections': []}
    """
    value = to_plain(report)
    from_json(value)
    return value


def from_json(value: Any) -> Report:
    """Reads a report from JSON values, which may come from anywhere.

    Args:
      value: a dict such as `to_json` gives.

    Returns:
      The report.

    Raises:
      ValueError: names the field that is wrong, missing or unknown.

    Example:
      >>> from_json({"title": "Life cycle", "summary": "", "sectoins": []})
      Traceback (most recent call last):
      ValueError: report has an unknown field 'sectoins'; did you mean 'sections'?
    """
    report = from_plain(Report, value, "report")
    for i, section in enumerate(report.sections):
        for j, table in enumerate(section.tables):
            check_table(table, f"report.sections[{i}].tables[{j}]")
        for j, figure in enumerate(section.figures):
            check_figure(figure, f"report.sections[{i}].figures[{j}]")
    return report


def to_html(
    report: Report,
    config: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """Renders a report as one self-contained page; equal arguments give equal bytes.

    Args:
      report: the report.
      config: the configuration of the run, shown folded up.
      summary: the summary numbers of the run, shown folded up.
      environment: what it ran with, shown at the foot.

    Returns:
      The HTML document.
    """
    sections, tables, figures = [], 0, 0
    for section in report.sections:
        parts = [paragraphs(section.text)]
        if section.figures:
            parts.append('<div class="figures">')
            for figure in section.figures:
                figures += 1
                parts.append(_figure_html(figure, figures))
            parts.append("</div>")
        for table in section.tables:
            tables += 1
            parts.append(table_html(table, tables))
        sections.append((section.title, "\n".join(parts)))
    details = []
    if config is not None:
        details.append(("Configuration", _pre(config)))
    if summary is not None:
        details.append(("All summary numbers", _pre(summary)))
    footer = " · ".join(f"{name} {value}" for name, value in (environment or {}).items())
    return page(report.title, report.summary, sections, details, footer)


def save_report(workdir: RunDir, report: Report, date: datetime.datetime | None = None) -> Path:
    """Writes ``report.json``, and what the run ran with, and the page made of them.

    ``report.json`` holds no clock time and no version, so that a resumed run writes the same; those
    are in ``environment.json``.

    Args:
      workdir: the run folder.
      report: the report.
      date: when the run ended; now if None.

    Returns:
      The path of ``report.html``.

    Raises:
      ValueError: the report is wrong, see `from_json`.
    """
    import jax

    date = (date or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
    value = to_json(report)
    environment = {
        "eejax": eejax.__version__,
        "JAX": jax.__version__,
        "Python": platform.python_version(),
        "run on": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "ended": f"{date:%Y-%m-%d %H:%M} UTC",
    }
    workdir.write_json(ENVIRONMENT, environment)
    workdir.write_json(REPORT, value)
    return write_report(workdir.root)


def write_report(run_dir: Path | str) -> Path:
    """Reads the files of a finished run and writes ``report.html`` again.

    Args:
      run_dir: folder of the run.

    Returns:
      The path of ``report.html``.

    Raises:
      FileNotFoundError: there is no such folder, it holds no run, or the run has not ended.
      ValueError: a file is damaged; names it and its fault.
    """
    workdir = RunDir(Path(run_dir).absolute())
    if not workdir.root.is_dir():
        raise FileNotFoundError(f"no run folder {str(run_dir)!r}")
    value = _load(workdir, REPORT)
    config = _load(workdir, CONFIG)
    if value is None and config is None:
        raise FileNotFoundError(f"{run_dir} is no run folder: it has no {CONFIG}")
    if value is None:
        raise FileNotFoundError(
            f"the run in {run_dir} has not ended: it has no {REPORT}; resume it with "
            f"`eejax run CONFIG --workdir {run_dir} --resume`"
        )
    try:
        report = from_json(value)
    except ValueError as error:
        raise ValueError(f"{workdir.path(REPORT)} is damaged: {error}") from error
    html = to_html(report, config, _load(workdir, SUMMARY), _load(workdir, ENVIRONMENT))
    return workdir.write_text(HTML, html)


def print_report(console: Console, report: Report) -> None:
    """Prints summary and tables; the best row has a star, so it shows without colour too.

    Args:
      console: where to print.
      report: the report.
    """
    console.print(Text(report.title, style="bold"))
    console.print(Text(report.summary))
    number = 0
    for section in report.sections:
        if section.tables:
            console.print(Text(f"\n{section.title}", style="bold underline"))
        for table in section.tables:
            number += 1
            console.print()
            console.print(table_rich(table, number, console))


def _figure_html(figure: Figure, number: int) -> str:
    caption = f"<b>Figure {number}.</b> {escape(figure.title)}"
    svg = figure_svg(figure, f"figure-{number}")
    return f"<figure>{svg}\n<figcaption>{caption}</figcaption></figure>"


def _pre(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(CONTROL.sub('�', text))}</pre>"


def _load(workdir: RunDir, name: str) -> dict[str, Any] | None:
    """Reads a JSON object; None if there is no such file."""
    path = workdir.path(name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it must hold an object, not {say(value)}")
    return value
