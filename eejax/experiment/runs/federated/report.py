"""What a federated run shows: the comparison, its curves, and what they cost."""

from typing import Any

import numpy as np

from eejax import data, tiers
from eejax.experiment.figures import Bars, Lines
from eejax.experiment.report import Report, Section
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.curves import COSTS, at_equal, curves_of, first_round, last
from eejax.experiment.runs.federated.lab import Lab
from eejax.experiment.runs.federated.methods import Shared
from eejax.experiment.runs.federated.protection import statement_of
from eejax.experiment.tables import Table, si

AXES = {
    "modelled_s": "modelled time",
    "modelled_j": "energy of end devices and links",
    "bytes": "bytes on all links",
    "top_bytes": "bytes to and from the top tier",
}


def make_report(lab: Lab, results: dict[str, Any], ledger: tiers.Ledger) -> Report:
    """Writes the report.

    Args:
      lab: what trainings shared.
      results: of all steps.
      ledger: every transfer of all trainings.

    Returns:
      The report.
    """
    config = lab.config
    sections = [_overview(lab, results)] if len(config.data.partitions) > 1 else []
    sections += [_partition(lab, results, name) for name in config.data.partitions]
    if config.rates:
        sections.append(_tuning(config, results))
    sections.append(_traffic(ledger))
    best, accuracy = max(
        (
            (text, float(np.mean(last(curves_of(results, config, partition, text)))))
            for partition in config.data.partitions[-1:]
            for text in config.methods
        ),
        key=lambda found: found[1],
    )
    many, threat = len(config.methods) > 1, config.adversaries
    attacked = f", of which {threat.clients} attack by {threat.attack}" if threat.attack else ""
    summary = (
        f"{len(config.methods)} method{'s' if many else ''} on {config.data.name} with "
        f"{config.data.clients} clients{attacked}, {config.model}, {len(config.seeds)} "
        f"seed{'s' if len(config.seeds) > 1 else ''}. On {config.data.partitions[-1]}, "
        f"{'the best is ' if many else ''}{best} {'with' if many else 'reaches'} "
        f"{100 * accuracy:.1f} %. Seconds, joules and bytes are modelled."
    )
    return Report("Federated co-training", summary, tuple(sections))


def _spread(accuracies: list[float | None]) -> str:
    if None in accuracies:
        return "–"
    low, high = (100 * f(accuracies) for f in (min, max))
    mean = f"{100 * np.mean(accuracies):.1f}"
    return mean if len(accuracies) == 1 else f"{mean} ({low:.1f} to {high:.1f})"


def _overview(lab: Lab, results: dict[str, Any]) -> Section:
    config = lab.config
    parts, methods = config.data.partitions, config.methods
    found = {
        text: [last(curves_of(results, config, partition, text)) for partition in parts]
        for text in methods
    }
    rows = [[text, _models(lab, text), *map(_spread, found[text])] for text in methods]
    table = Table(
        f"Accuracy in % after {config.rounds} rounds: mean and range over {len(config.seeds)} "
        f"seeds. {_how_tested(config)} {_how_tuned(config)}",
        ["method", "models", *parts],
        rows,
    )
    bars = Bars(
        "Mean accuracy by partition.",
        "accuracy",
        list(parts),
        {text: [float(np.mean(a)) for a in found[text]] for text in methods},
    )
    return Section("All partitions", "", (table,), (bars,))


def _models(lab: Lab, text: str) -> str:
    """Tells whether clients end with models of their own."""
    method = lab.methods[lab.config.methods.index(text)]
    if method.engine == "gossip":
        return "mixed"
    made = lab.made(method, lab.config.learning_rate)
    return "global" if isinstance(made, Shared) else "personal"


def _how_tested(config: Federated) -> str:
    if config.data.held_out:
        return (
            f"Tested on the {100 * config.data.held_out:g} % of its samples that each client "
            "holds out: one model on all of them, personal models each on its client's."
        )
    return "Tested on the test split; of personal and mixed models, the mean over the clients."


def _how_tuned(config: Federated) -> str:
    if not config.rates:
        return f"One learning rate for all: {config.learning_rate:g}."
    return (
        f"Learning rates are chosen for each method and partition by {len(config.rates)} trials "
        f"with the first seed, on {100 * config.validation:g} % of the training samples."
    )


def _partition(lab: Lab, results: dict[str, Any], partition: str) -> Section:
    config = lab.config
    methods = config.methods
    curves = {text: curves_of(results, config, partition, text) for text in methods}
    equal = {name: at_equal(list(curves.values()), name) for name, _ in COSTS}
    private = any("epsilon" in found[0][-1] for found in curves.values())
    rows = []
    for text in methods:
        reached = [first_round(curve, config.target) for curve in curves[text]]
        rate = results.get("rates", {}).get(f"{partition}/{text}", {}).get("chosen")
        rates = [None if rate is None else f"{rate:g}"] if config.rates else []
        rows.append([
            text,
            _models(lab, text),
            _spread(last(curves[text])),
            ", ".join("–" if r is None else str(r) for r in reached),
            *(si(float(np.mean(last(curves[text], name))), unit) for name, unit in COSTS),
            *([_epsilon(curves[text])] if private else []),
            *rates,
        ])  # fmt: skip
    columns = [
        "method", "models", "accuracy in %", f"rounds to {100 * config.target:g} %",
        "modelled time", "energy", "bytes", "bytes to and from the top",
    ]  # fmt: skip
    columns += ["epsilon"] if private else []
    columns += ["learning rate"] if config.rates else []
    best = int(np.argmax([np.mean(last(curves[text])) for text in methods]))
    tables = [Table(
        f"At the end, on {partition}. {_how_tested(config)} {_how_tuned(config)}"
        f"{_how_private(lab, partition) if private else ''}",
        columns, rows, best if len(methods) > 1 else None,
    )]  # fmt: skip
    if len(methods) > 1:
        free = {name for name, (limit, _) in equal.items() if limit == 0}
        names = [(name, unit) for name, unit in COSTS if name not in free]
        tables.append(Table(
            "Accuracy in % at equal cost: the last measured before the largest cost that every "
            "training reached.",
            ["method", *(f"{AXES[n]}, {si(equal[n][0], unit)}" for n, unit in names)],
            [
                [text, *(_spread(equal[name][1][i]) for name, _ in names)]
                for i, text in enumerate(methods)
            ],
        ))  # fmt: skip
    names = ["modelled_s", "bytes"]
    ratios = {round(c[-1]["top_bytes"] / max(c[-1]["bytes"], 1), 3) for found in curves.values()
              for c in found}  # fmt: skip
    names += ["top_bytes"] if len(ratios) > 1 else []  # Or it would be the same picture.
    axes = (("round", "rounds", ""), *((n, AXES[n], dict(COSTS)[n]) for n in names))
    figures = [_samples(lab, partition)]
    figures += [
        _curve_figure(curves, *axis)
        for axis in axes
        if any(last(found, axis[0])[0] for found in curves.values())
    ]
    return Section(f"Partition {partition}", "", tuple(tables), tuple(figures))


def _how_private(lab: Lab, partition: str) -> str:
    counts = lab.splits[partition, lab.config.seeds[0], False].train.counts
    said = {statement_of(m, counts): None for m in lab.methods if m.settings.get("bound")}
    trials = ", and the trials of learning rates are not counted" if lab.config.rates else ""
    return (
        f" Epsilon ({', or '.join(said)}) is spent by the model; losses and accuracies of this run "
        f"are not private{trials}."
    )


def _epsilon(curves: list[list]) -> str | None:
    """Tells the privacy that a method spent, the most of all seeds."""
    spent = [curve[-1].get("epsilon") for curve in curves]
    return None if None in spent else f"{max(spent):.2f}"


def _curve_figure(curves: dict[str, list[list]], name: str, label: str, unit: str) -> Lines:
    """Draws the mean over the seeds, with their range where all were measured as often."""
    series, band = {}, {}
    for text, found in curves.items():
        rows = list(zip(*found))
        x = [float(np.mean([row[name] for row in point])) for point in rows]
        accuracies = [[row["accuracy"] for row in point] for point in rows]
        if not x or not x[-1]:
            continue
        series[text] = (x, [float(np.mean(a)) for a in accuracies])
        if len(found) > 1:
            band[text] = ([min(a) for a in accuracies], [max(a) for a in accuracies])
    several = f": mean{' and range' if band else ''} over the seeds" if band else ""
    return Lines(
        f"Accuracy over {label}{several}.", label, "accuracy", series, band=band, xunit=unit
    )


def _samples(lab: Lab, partition: str) -> Bars:
    config = lab.config
    table, counts = lab.splits[partition, config.seeds[0], False].train
    parts = [row[:count] for row, count in zip(table, counts)]
    shown = parts[:20]
    labels = data.label_distribution(lab.samples.arrays["y"], shown, lab.samples.classes)
    more = f", the first {len(shown)} of {len(parts)} clients" if len(parts) > 20 else ""
    return Bars(
        f"Training samples of each client by class ({partition}, seed {config.seeds[0]}{more}).",
        "samples",
        [f"client {i + 1}" for i in range(len(shown))],
        {str(c): labels[:, c].tolist() for c in range(lab.samples.classes)},
        stacked=True,
        horizontal=True,
    )


def _tuning(config: Federated, results: dict[str, Any]) -> Section:
    rows = [
        [name, *(f"{100 * a:.1f}" for _, a in found["trials"]), f"{found['chosen']:g}"]
        for name, found in results["rates"].items()
    ]
    table = Table(
        "Accuracy in % on held-out training samples by learning rate of the clients; every method "
        "has the same number of trials.",
        ["partition and method", *(f"{rate:g}" for rate in config.rates), "chosen"],
        rows,
    )
    return Section("Learning rates", "", (table,))


def _traffic(ledger: tiers.Ledger) -> Section:
    rows = [
        [f"{t.source} to {t.target}", t.what, t.kind, si(t.nbytes, "B"), t.count,
         si(t.nbytes * t.count, "B")]
        for t in ledger
    ]  # fmt: skip
    table = Table(
        "Messages of all trainings of this run.",
        ["link", "what", "kind", "one message", "messages", "bytes"],
        rows,
    )
    return Section("Traffic", "", (table,))
