"""Plans and inspections on the terminal."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from eejax.cotrain import pipeline
from eejax.experiment.runs.parallel.config import Parallel, hybrid_of
from eejax.experiment.runs.parallel.inspect import tables_of
from eejax.experiment.runs.parallel.plan import table_of
from eejax.experiment.tables import table_rich
from eejax.experiment.workdir import finite


def show_plan(console: Console, candidates: list[dict[str, Any]], most: int, as_json: bool) -> None:
    """Prints layouts, the fastest first, and why the others cannot be used.

    Args:
      console: where to print.
      candidates: from `plan_layouts`.
      most: layouts to show.
      as_json: print all of them as JSON instead.
    """
    if as_json:
        print(json.dumps(finite(candidates), indent=2))
        return
    usable = [c for c in candidates if not c["reason"]]
    console.print(table_rich(table_of(usable, most), 1, console))
    refused = Counter(c["bound"] for c in candidates if c["reason"])
    for bound, count in refused.items():
        example = next(c["reason"] for c in candidates if c["reason"] and c["bound"] == bound)
        console.print(f"{count} pruned by {bound}, such as: {example}", markup=False)


def show_inspection(
    console: Console,
    found: dict[str, Any],
    config: Parallel,
    as_json: bool,
    picture: Path | None = None,
) -> None:
    """Prints what a compiled step does.

    Args:
      console: where to print.
      found: from `inspect_step`.
      config: the fields of the run.
      as_json: print JSON instead of tables.
      picture: where to draw the schedule, if anywhere.
    """
    if picture is not None:
        axes = pipeline.draw_schedule(hybrid_of(config).table)
        axes.figure.savefig(picture, bbox_inches="tight")
    if as_json:
        print(json.dumps(finite(found), indent=2))
        return
    for number, table in enumerate(tables_of(found), 1):
        console.print(table_rich(table, number, console))
        console.print()
    console.print(found["schedule"], markup=False, soft_wrap=True)
