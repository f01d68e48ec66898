"""Plans a model on a system and reports it."""

from typing import Any

from eejax.experiment.context import Context
from eejax.experiment.report import Report, print_report, save_report
from eejax.experiment.runs.partition.config import Partition, check_config
from eejax.experiment.runs.partition.show import as_json, report_of
from eejax.experiment.runs.partition.solve import SOLVERS, Solved, Swept, baselines, solve, sweep
from eejax.experiment.runs.partition.source import Source, load_source
from eejax.partition import Plan
from eejax.tiers import Topology, load


def find_plans(
    config: Partition,
) -> tuple[Source, Topology, list[Solved], list[Plan], Swept | None]:
    """Reads the model and the system, and runs the solvers.

    Args:
      config: the fields.

    Returns:
      The model, the system, what the solvers found, the baselines, and the plans over bandwidths.

    Raises:
      ValueError: a field is wrong; names it.
    """
    check_config(config, tuple(SOLVERS))
    topology = load(config.topology)
    source = load_source(config, topology)
    solved = solve(source, topology, config.objective, config.solver)
    fixed, swept = baselines(source, topology), sweep(config, source, topology)
    return source, topology, solved, fixed, swept


def planned(config: Partition) -> tuple[dict[str, Any], Report]:
    """Plans, and tells the result in two ways.

    Args:
      config: the fields.

    Returns:
      JSON values, see `as_json`, and the report.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a field is wrong; names it.
    """
    found = find_plans(config)
    return as_json(config, *found), report_of(config, *found)


def run(config: Partition, context: Context) -> dict[str, Any]:
    """Plans, and writes ``summary.json`` and ``report.html``.

    Args:
      config: the fields.
      context: folder and display.

    Returns:
      What ``summary.json`` holds: see `as_json`.

    Raises:
      ValueError: a field is wrong; names it.
    """
    summary, report = planned(config)
    context.workdir.write_json("summary.json", summary)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary
