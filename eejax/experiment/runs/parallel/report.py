"""The report of a parallel run."""

from typing import Any

from eejax.experiment.figures import Lines
from eejax.experiment.report import Report, Section
from eejax.experiment.runs.parallel.config import Parallel
from eejax.experiment.runs.parallel.inspect import tables_of
from eejax.experiment.runs.parallel.task import Task
from eejax.experiment.tables import Table, si


def report_of(
    config: Parallel,
    task: Task,
    results: dict[str, Any],
    found: dict[str, Any],
    timing: dict[str, float | None],
) -> Report:
    """Writes the report.

    Args:
      config: the fields of the run.
      task: what was learnt.
      results: ``curve``, rows of step, loss and held-out loss, and the last ``metrics``.
      found: from `inspect_step`.
      timing: what was measured on this machine.

    Returns:
      The report.
    """
    steps, *losses = (list(column) for column in zip(*results["curve"]))
    train, test = ([task.scale * loss for loss in column] for column in losses)
    speed = Table(
        "Speed, measured on this machine; fake CPU devices share its cores.",
        ["what", "how much"],
        [
            [task.unit, si(timing[f"measured_{task.unit}_per_s"], "/s")],
            ["model FLOP", si(timing["measured_flops_per_s"], "FLOP/s")],
            ["of the fastest matrix product", _percent(timing["measured_utilisation"])],
            ["goodput: training of all time", _percent(timing["goodput"])],
        ],
    )
    figure = Lines(f"{task.measure.capitalize()} over the steps.", "steps", task.measure,
                   {"train": (steps, train), "held out": (steps, test)})  # fmt: skip
    tables = (task.table(results["metrics"]), speed)
    sections = (
        Section("Training", task.about, tables, (figure,)),
        Section("The compiled step", "Read from the program that ran.", tables_of(found)),
    )
    layout, reached = config.layout, f"{test[-1]:.2f} {task.measure}"
    if "test_accuracy" in results["metrics"]:
        reached = f"{100 * results['metrics']['test_accuracy']:.2f} % accuracy on test images"
    summary = (
        f"A {task.name} of {task.model.layers} layers on {found['devices']} devices: {layout.data} "
        f"copies of {layout.stages} stages with {layout.scheme} tensor parallelism, in one "
        f"program. It reaches {reached}, and sends {found['bytes_over_theory']:.2f} times the "
        f"bytes of theory on its worst tier."
    )
    return Report(f"Parallel co-training of a {task.name}", summary, sections)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
