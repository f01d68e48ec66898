"""Many models on many networks: whether it pays to split, and in which case."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from eejax import partition
from eejax.experiment.context import Context
from eejax.experiment.figures import Bars
from eejax.experiment.report import Report, Section, print_report, save_report
from eejax.experiment.runs.partition.config import Partition, check_config
from eejax.experiment.runs.partition.show import UNITS
from eejax.experiment.runs.partition.solve import SOLVERS
from eejax.experiment.runs.partition.source import load_source
from eejax.experiment.tables import Table, si
from eejax.names import suggest
from eejax.tiers import Topology, from_dict, load, to_dict

CASE = {"input": "uint8", "features": "float32", "memory_mb": "0", "exit": "0"}
LEAST = 1e-3
"""Share by which a split must be better to count: costs are no more exact than that."""


@dataclass
class Grid:
    """Models, networks and cases, all combined.

    Attributes:
      models: networks of the zoo, or files, as for `Partition`.
      links: presets of the link from the end device to the server.
      end: preset of the end device.
      server: preset of the server.
      cases: each ``key=value`` pairs of ``input`` (uint8, float32), ``features`` (float32, bf16,
        int8: by their bytes alone), ``memory_mb`` of the end device for parameters (0: its own) and
        ``exit`` (share of samples that leave early).
      exit_at: share of the FLOP before the early exit, whose own cost is not counted.
      objectives: what to make small, each on its own.
      solver: one of `SOLVERS`.
      granularity: as for `Partition`.
    """

    models: tuple[str, ...] = (
        "alexnet",
        "vgg19",
        "googlenet",
        "resnet50",
        "mobilenet_v2",
        "squeezenet1_1",
        "tiny_yolov2",
        "bert_base",
    )
    links: tuple[str, ...] = ("hspa_3g", "lte_4g", "wifi")
    end: str = "jetson_nano"
    server: str = "cloud_gpu"
    cases: tuple[str, ...] = ("input=uint8", "input=float32")
    exit_at: float = 1 / 3
    objectives: tuple[str, ...] = ("latency", "end_energy")
    solver: str = "exact"
    granularity: str = "block"


class Row(NamedTuple):
    """One combination.

    Attributes:
      case: one of the cases.
      model: its name.
      link: its name.
      objective: what was made small.
      best: cost of the best plan.
      placement: its name.
      layers: number of layers on the end device and on the server.
      end: cost of running all on the end device; None where it does not fit.
      cloud: cost of running all on the server.
      pays: whether the plan splits and is better than both by more than `LEAST`.
    """

    case: str
    model: str
    link: str
    objective: str
    best: float
    placement: str
    layers: tuple[int, int]
    end: float | None
    cloud: float
    pays: bool


def compare(config: Grid) -> list[Row]:
    """Plans all combinations.

    Args:
      config: the fields.

    Returns:
      A row for each.

    Raises:
      ValueError: a field is wrong; names it.
    """
    rows = []
    for case in config.cases:
        fields = _fields(case)
        for model in config.models:
            one = Partition(
                model=model,
                solver=config.solver,
                granularity=config.granularity,
                input=fields["input"],
                features=fields["features"],
            )
            for objective in config.objectives:
                one.objective = objective
                check_config(one, tuple(SOLVERS))
            source = load_source(one, load(f"{config.end},{config.links[0]},{config.server}"))
            reach = _reach(source.graph, float(fields["exit"]), config.exit_at)
            for link in config.links:
                topology = _system(config, link, float(fields["memory_mb"]))
                run = partition.pricer(partition.rates_of(source.graph, topology, reach=reach))
                fixed = [run([k] * len(source.graph.layers)) for k in (0, 1)]
                for objective in config.objectives:
                    plan = SOLVERS[config.solver](source.graph, topology, objective, reach=reach)
                    judged = [partition.objective(p, objective) for p in (plan, *fixed)]
                    usable = [c for c, p in zip(judged[1:], fixed) if p.feasible]
                    below = plan.assignment.count(0)
                    counts = below, len(plan.assignment) - below
                    pays = (
                        plan.feasible and min(counts) > 0 and judged[0] < (1 - LEAST) * min(usable)
                    )
                    end = judged[1] if fixed[0].feasible else None
                    rows.append(
                        Row(case, model, link, objective, judged[0], plan.name, counts, end,
                            judged[2], pays)
                    )  # fmt: skip
    return rows


def totals(rows: list[Row]) -> list[dict[str, Any]]:
    """Sums rows up by case and objective.

    Args:
      rows: from `compare`.

    Returns:
      ``case``, ``objective``, ``of`` (combinations), ``splits_pay``, ``all_end`` and ``all_cloud``
      (how often these are best), and the mean and the largest ``gain`` over the server alone.
    """
    found = []
    for case, objective in dict.fromkeys((row.case, row.objective) for row in rows):
        mine = [row for row in rows if (row.case, row.objective) == (case, objective)]
        gains = np.array([row.cloud / row.best for row in mine])
        found.append(
            {
                "case": case,
                "objective": objective,
                "of": len(mine),
                "splits_pay": sum(row.pays for row in mine),
                "all_end": sum(not row.pays and row.layers[1] == 0 for row in mine),
                "all_cloud": sum(not row.pays and row.layers[0] == 0 for row in mine),
                "mean_gain": float(gains.mean()),
                "largest_gain": float(gains.max()),
                "mean_saving": float((1 - 1 / gains).mean()),
                "largest_saving": float((1 - 1 / gains).max()),
            }
        )
    return found


def report_of(config: Grid, rows: list[Row]) -> Report:
    """Writes what was found.

    Args:
      config: the fields.
      rows: from `compare`.

    Returns:
      The report.
    """
    sums = totals(rows)
    pay, count = sum(row.pays for row in rows), len(rows)
    summary = (
        f"Splitting between {config.end} and {config.server} pays in {pay} of {count} combinations "
        f"of {len(config.models)} models, {len(config.links)} networks, {len(config.cases)} cases "
        f"and {len(config.objectives)} objectives; in the others the best is to run all in one "
        "place. All modelled by rooflines of presets: trends, not measured times."
    )
    overview = Table(
        "How often splitting pays, and what the best plan gains over the server alone.",
        ["case", "objective", "splitting pays", "all-end best", "all-cloud best", "mean gain",
         "largest gain", "mean saving", "largest saving"],
        [
            [s["case"], s["objective"], f"{s['splits_pay']} of {s['of']}", s["all_end"],
             s["all_cloud"], f"{s['mean_gain']:.2f} x", f"{s['largest_gain']:.1f} x",
             f"{100 * s['mean_saving']:.1f} %", f"{100 * s['largest_saving']:.1f} %"]
            for s in sums
        ],
    )  # fmt: skip
    sections = [Section("Overview", "", (overview,))]
    for case in config.cases:
        for objective in config.objectives:
            mine = [row for row in rows if (row.case, row.objective) == (case, objective)]
            unit = UNITS[objective]
            table = Table(
                f"Modelled {objective} of one sample; {case}.",
                ["model", "link", "layers (end / cloud)", "best plan", "all-end", "all-cloud",
                 "splitting pays"],
                [
                    [row.model, row.link, " / ".join(map(str, row.layers)), si(row.best, unit),
                     "does not fit" if row.end is None else si(row.end, unit),
                     si(row.cloud, unit), "yes" if row.pays else ""]
                    for row in mine
                ],
            )  # fmt: skip
            gains = {
                link: [row.cloud / row.best for row in mine if row.link == link]
                for link in config.links
            }
            figure = Bars(
                f"How many times less {objective} the best plan has than the server alone; {case}.",
                "times",
                list(config.models),
                gains,
                log=True,
            )
            sections.append(Section(f"{objective}, {case}", "", (table,), (figure,)))
    return Report("Does splitting pay?", summary, tuple(sections))


def run(config: Grid, context: Context) -> dict[str, Any]:
    """Plans all, and writes ``summary.json`` and ``report.html``.

    Args:
      config: the fields.
      context: folder and display.

    Returns:
      What ``summary.json`` holds: ``rows`` and ``totals``.

    Raises:
      ValueError: a field is wrong; names it.
    """
    rows = compare(config)
    summary = {"totals": totals(rows), "rows": [row._asdict() for row in rows]}
    context.workdir.write_json("summary.json", summary)
    report = report_of(config, rows)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary


def _fields(case: str) -> dict[str, str]:
    fields = dict(CASE)
    for word in case.split():
        key, equals, value = word.partition("=")
        if key not in CASE or not equals:
            raise ValueError(
                f"cases: {word!r} must be key=value with a key of {', '.join(CASE)}"
                f"{suggest(key, CASE)}"
            )
        fields[key] = value
    for key in ("memory_mb", "exit"):
        try:
            least = float(fields[key]) >= 0
        except ValueError:
            least = False
        if not least or (key == "exit" and float(fields[key]) >= 1):
            bound = "in [0, 1)" if key == "exit" else ">= 0"
            raise ValueError(f"cases: {key} must be a number {bound}, got {fields[key]!r}")
    return fields


def _reach(graph: partition.LayerGraph, leave: float, at: float) -> np.ndarray | None:
    if not leave:
        return None
    flops = np.cumsum([layer.flops for layer in graph.layers])
    behind = int(np.searchsorted(flops, at * flops[-1])) + 1
    return np.where(np.arange(len(flops)) < behind, 1.0, 1 - leave)


def _system(config: Grid, link: str, memory_mb: float) -> Topology:
    topology = load(f"{config.end},{link},{config.server}")
    if not memory_mb:
        return topology
    data = to_dict(topology)
    data["tiers"][0]["nodes"][0]["device"]["memory_bytes"] = 1e6 * memory_mb
    return from_dict(data)
