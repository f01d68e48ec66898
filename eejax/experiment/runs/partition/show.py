"""Plans as JSON, as tables, and as a report with figures."""

from pathlib import Path
from typing import Any

import numpy as np

from eejax import partition
from eejax.experiment.figures import Bars, Graph, Lines
from eejax.experiment.report import Report, Section
from eejax.experiment.runs.partition.config import Partition
from eejax.experiment.runs.partition.crossing import crossing, crossing_table
from eejax.experiment.runs.partition.solve import Solved, Swept
from eejax.experiment.runs.partition.source import Source
from eejax.experiment.tables import Table, si
from eejax.partition import Plan, reads
from eejax.tiers import Topology

UNITS = {
    "latency": "s", "worst_latency": "s", "energy": "J", "end_energy": "J", "money": "$",
    "bytes": "B", "pipeline": "s",
}  # fmt: skip
LARGEST = 2000
"""Most layers that are drawn as a graph."""


def plan_json(plan: Plan, topology: Topology) -> dict[str, Any]:
    """Makes JSON values of a plan.

    Args:
      plan: a priced plan.
      topology: the system.

    Returns:
      ``name``, ``assignment`` (tier of each layer), modelled ``latency_s`` and ``energy_j`` (means
      over the end devices), ``bytes`` by link, ``objectives``, ``feasible`` and ``why``.
    """
    return {
        "name": plan.name,
        "assignment": [topology.names[k] for k in plan.assignment],
        "latency_s": float(plan.latency_s.mean()),
        "energy_j": float(plan.energy_j.sum(1).mean()),
        "bytes": {f"{a}-{b}": n for (a, b), n in plan.link_bytes.items()},
        "objectives": partition.summary(plan),
        "feasible": plan.feasible,
        "why": plan.why,
    }


def as_json(
    config: Partition,
    source: Source,
    topology: Topology,
    solved: list[Solved],
    fixed: list[Plan],
    swept: Swept | None = None,
) -> dict[str, Any]:
    """Makes JSON values of all that was found.

    Args:
      config: the fields.
      source: the model.
      topology: the system.
      solved: from `solve`.
      fixed: the baselines.
      swept: from `sweep`, if there is one.

    Returns:
      ``graph``, ``granularity``, ``costs`` (where they come from), ``unknown`` operations,
      ``plans`` with ``solver`` and measured ``solve_s``, ``refused`` solvers, ``baselines`` by
      name, ``narrowest`` places (see `crossing`), and ``switches`` of the sweep.
    """
    graph = source.graph
    return {
        "model": config.model,
        "topology": config.topology,
        "objective": config.objective,
        "graph": {
            "layers": [layer._asdict() for layer in graph.layers],
            "tensors": [tensor._asdict() for tensor in graph.tensors],
        },
        "granularity": graph.granularity,
        "costs": source.note,
        "unknown": source.unknown,
        "plans": [
            {"solver": row.solver, "solve_s": row.seconds} | plan_json(row.plan, topology)
            for row in solved
            if row.plan is not None
        ],
        "refused": {row.solver: row.why for row in solved if row.plan is None},
        "baselines": {plan.name: plan_json(plan, topology) for plan in fixed},
        "narrowest": [
            {"after": name, "bytes": count, "less_than_input": less}
            for name, count, less in crossing(source)
        ],
        "switches": [
            {"above_bps": at, "layers": counts, "placement": name}
            for at, counts, name in (swept.changes if swept else ())
        ],
    }


def tables_of(
    config: Partition, source: Source, topology: Topology, solved: list[Solved], fixed: list[Plan]
) -> tuple[Table, ...]:
    """Lays plans out as tables.

    Args:
      config: the fields.
      source: the model.
      topology: the system.
      solved: from `solve`.
      fixed: the baselines.

    Returns:
      Plans beside baselines, and the solvers that refused, if any.
    """
    unit = UNITS[config.objective]

    def row(name: str, plan: Plan, took: float | None) -> list[Any]:
        counts = np.bincount(plan.assignment, minlength=len(topology.tiers))
        sent = sum(plan.link_bytes.values())
        judged = partition.objective(plan, config.objective)
        cells = {
            config.objective: si(judged, unit),
            "latency": si(float(plan.latency_s.mean()), "s"),
            "energy": si(float(plan.energy_j.sum(1).mean()), "J"),
            "bytes": si(sent, "B"),
        }
        last = ["" if took is None else si(took, "s"), "" if plan.feasible else plan.why]
        return [name, " / ".join(map(str, counts)), *cells.values(), *last]

    rows = [row(s.solver, s.plan, s.seconds) for s in solved if s.plan is not None]
    rows += [row(plan.name, plan, None) for plan in fixed]
    usable = [i for i, r in enumerate(rows) if not r[-1]]
    values = [s.plan for s in solved if s.plan is not None] + fixed
    best = min(usable, key=lambda i: partition.objective(values[i], config.objective), default=None)
    tiers = " / ".join(topology.names)
    judges = dict.fromkeys((config.objective, "latency", "energy", "bytes"))
    found = Table(
        f"Plans for {model_name(config)}, one sample, the mean over the end devices; all modelled "
        "but the time to solve, which was measured here.",
        ["plan", f"layers ({tiers})", *judges, "solved in", "does not fit"],
        rows,
        best,
    )
    refused = [[s.solver, s.why] for s in solved if s.plan is None]
    if not refused:
        return (found,)
    return found, Table("Solvers that have no plan for it.", ["solver", "why"], refused)


def report_of(
    config: Partition,
    source: Source,
    topology: Topology,
    solved: list[Solved],
    fixed: list[Plan],
    swept: Swept | None = None,
) -> Report:
    """Writes what was found.

    Args:
      config: the fields.
      source: the model.
      topology: the system.
      solved: from `solve`.
      fixed: the baselines.
      swept: from `sweep`, if there is one.

    Returns:
      The report: plans, where the time goes, what crosses, the graph coloured by tier, and the
      objective against bandwidth with the points where the placement changes.
    """
    usable = [s for s in solved if s.plan is not None and s.plan.feasible]
    best = usable[0].plan if usable else None
    lowest = min(fixed, key=lambda p: (not p.feasible, partition.objective(p, config.objective)))
    graph, unit = source.graph, UNITS[config.objective]
    size = f"{len(graph.layers)} layers, {len(graph.tensors)} tensors"
    summary = f"{model_name(config)} at granularity '{graph.granularity}' ({size}; {source.note}). "
    if best is not None:
        mine, theirs = (partition.objective(p, config.objective) for p in (best, lowest))
        summary += (
            f"The best plan found has a modelled {config.objective} of {si(mine, unit)}, against "
            f"{si(theirs, unit)} of {lowest.name}, the best that does not split. "
        )
        if mine >= theirs * (1 - 1e-9):
            summary += "So splitting does not pay here. "
    if source.unknown:
        names = ", ".join(f"{name} ({count})" for name, count in source.unknown.items())
        summary += f"No rule tells the FLOP of: {names}."
    plans = ([("best plan", best)] if best is not None else []) + [(p.name, p) for p in fixed]
    sections = [
        Section("Plans", "", tables_of(config, source, topology, solved, fixed)),
        _time(plans, topology),
        Section("What crosses", "", (crossing_table(source),)),
    ]
    if best is not None and len(graph.layers) <= LARGEST:
        sections.append(Section("The graph", "", (), (_graph_figure(source, topology, best),)))
    if swept is not None:
        sections.append(_sweep(config, topology, swept))
    return Report(f"Where to cut {model_name(config)}", summary, tuple(sections))


def model_name(config: Partition) -> str:
    """Gives a file its name without folders and ending, and anything else its own."""
    return Path(config.model).stem if config.model.endswith((".onnx", ".json")) else config.model


def _time(plans: list[tuple[str, Plan]], topology: Topology) -> Section:
    parts = {}
    for k, name in enumerate(topology.names):
        parts[f"compute on {name}"] = [float(p.parts["compute_s"][:, k].mean()) for _, p in plans]
        if k + 1 < len(topology.tiers):
            pair = f"{name} to {topology.names[k + 1]}"
            parts[pair] = [float(p.parts["transfer_s"][:, k].mean()) for _, p in plans]
    title = "Modelled seconds of one sample by what takes them; links both ways."
    names = [name for name, _ in plans]
    figure = Bars(title, "seconds", names, parts, stacked=True, horizontal=True, unit="s")
    rows = [[name, *(si(v, "s") for v in row)] for name, *row in zip(names, *parts.values())]
    return Section("Where the time goes", "", (Table(title, ["plan", *parts], rows),), (figure,))


def _graph_figure(source: Source, topology: Topology, plan: Plan) -> Graph:
    tensor, consumer = reads(source.graph)
    producer = [source.graph.tensors[t].producer for t in tensor]
    edges = sorted({(p, int(c)) for p, c in zip(producer, consumer) if p >= 0})
    return Graph(
        f"The layers by the tier that runs them: {plan.name}."[:300],
        [layer.name for layer in source.graph.layers],
        [list(edge) for edge in edges],
        [topology.names[k] for k in plan.assignment],
        list(topology.names),
    )


def _sweep(config: Partition, topology: Topology, swept: Swept) -> Section:
    bps, plans, fixed, changes = swept
    x = bps.tolist()

    def judged(plans: list[Plan]) -> list[float]:
        return [partition.objective(plan, config.objective) for plan in plans]

    series = {"best plan": (x, judged(plans))}
    for k in range(len(topology.tiers)):
        series[fixed[0][k].name] = (x, judged([row[k] for row in fixed]))
    figure = Lines(
        f"Modelled {config.objective} against the bandwidth of the {topology.names[0]} links, both "
        "ways; dashed where the best placement changes.",
        "bandwidth in bit/s",
        config.objective,
        series,
        markers={counts: at for at, counts, _ in changes[:8]},
        logx=True,
        logy=True,
        yunit=UNITS[config.objective],
    )
    tiers = "/".join(topology.names)
    table = Table(
        "Where the best placement changes as the bandwidth rises.",
        ["above", f"layers on {tiers}", "placement"],
        [[si(at, "bit/s"), counts, name[:200]] for at, counts, name in changes],
    )
    return Section("Bandwidth", "", (table,) if changes else (), (figure,))
