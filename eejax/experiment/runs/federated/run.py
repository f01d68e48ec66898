"""Trains every method on every partition with every seed, and compares them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eejax import tiers, trees
from eejax.experiment.context import Context
from eejax.experiment.report import print_report, save_report
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.curves import summarise
from eejax.experiment.runs.federated.lab import Cell, Lab, open_lab
from eejax.experiment.runs.federated.methods import ALGORITHMS, Algorithm
from eejax.experiment.runs.federated.report import make_report
from eejax.experiment.runs.federated.trainer import Trainer, make_trainer
from eejax.experiment.steps import RunState, Step, run_steps
from eejax.experiment.tables import si


def run(
    config: Federated, context: Context, algorithms: Mapping[str, Algorithm] = ALGORITHMS
) -> dict[str, Any]:
    """Trains and compares.

    One method with one seed on one partition is checkpointed after every measurement; of several,
    each training is one step, which is done again if it was interrupted.

    Args:
      config: the fields.
      context: folder, display and stop flag.
      algorithms: by name; hand in ``ALGORITHMS | {"mine": mine}`` for one of your own.

    Returns:
      What ``summary.json`` holds.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is wrong; names it.
      Interrupted: a signal came; the state was saved.
    """
    lab = open_lab(config, algorithms)
    cells = [
        Cell(partition, method, seed)
        for partition in config.data.partitions
        for method in lab.methods
        for seed in config.seeds
    ]
    for method in lab.methods:  # What does not fit is refused before anything is trained.
        make_trainer(lab, Cell(config.data.partitions[0], method, config.seeds[0]))
    steps = [
        Step("tune", _tune_step(lab, Cell(partition, method, config.seeds[0], True)))
        for partition in config.data.partitions
        for method in lab.methods
        if config.rates and method.lr is None
    ]
    arrays: Any = np.zeros(1)  # A checkpoint holds at least one array.
    alone = len(cells) == 1
    if alone:
        trainer = make_trainer(lab, cells[0])
        arrays = trainer.first()
        rounds = rounds_within(config, trainer)
        steps += [
            Step("train", _piece_step(lab, cells[0], trainer, done))
            for done in range(0, rounds, config.report_every)
        ]
    else:
        steps += [Step("train", _train_step(lab, cell)) for cell in cells]
    state = run_steps(steps, RunState(arrays, {}, ()), context)

    summary = summarise(config, state.results)
    if alone:
        summary["params_sha256"] = trees.sha256(state.arrays)
    context.workdir.write_json("results.json", state.results)
    context.workdir.write_json("summary.json", summary)
    report = make_report(lab, state.results, state.ledger)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary


def rounds_within(config: Federated, trainer: Trainer) -> int:
    """Counts the rounds that end within the modelled seconds of the config, at least one."""
    if not config.seconds:
        return config.rounds
    return max(1, int((trainer.bill.seconds <= config.seconds).sum()))


def name_of(cell: Cell) -> str:
    """Names a training in results."""
    return f"{cell.partition}/{cell.method.text}/seed{cell.seed}"


def _rate(lab: Lab, cell: Cell, results: dict[str, Any]) -> float:
    if cell.method.lr is not None:
        return cell.method.lr
    chosen = results.get("rates", {}).get(f"{cell.partition}/{cell.method.text}")
    return lab.config.learning_rate if chosen is None else chosen["chosen"]


def _advance(lab, trainer, state, lr, done, rounds, curve):
    """Trains until the next measurement and adds it to the curve."""
    more = min(lab.config.report_every, rounds - done)
    state, loss = trainer.advance(lr, state, more)
    last, bill = done + more - 1, trainer.bill
    curve.append({
        "round": done + more,
        "loss": loss,
        "accuracy": trainer.accuracy(lr, state),
        "modelled_s": float(bill.seconds[last]),
        "modelled_j": float(bill.joules[last]),
        "bytes": int(bill.nbytes()[last]),
        "top_bytes": int(bill.nbytes(bill.top)[last]),
        **trainer.spent(state),
    })  # fmt: skip
    return state


def _note(row: dict[str, Any]) -> str:
    spent = f", epsilon {row['epsilon']:.2f}" if "epsilon" in row else ""
    return (
        f"accuracy {row['accuracy']:.3f}, modelled {si(row['modelled_s'], 's')}, "
        f"{si(row['bytes'], 'B')}{spent}"
    )


def _train(lab: Lab, cell: Cell, lr: float) -> tuple[list[dict[str, Any]], Trainer]:
    trainer = make_trainer(lab, cell)
    state, rounds, curve = trainer.first(), rounds_within(lab.config, trainer), []
    for done in range(0, rounds, lab.config.report_every):
        state = _advance(lab, trainer, state, lr, done, rounds, curve)
    return curve, trainer


def _tune_step(lab: Lab, cell: Cell):
    def step(state: RunState, write) -> tuple[RunState, str]:
        found = {}
        for rate in lab.config.rates:
            curve, _ = _train(lab, cell, rate)
            found[rate] = curve[-1]["accuracy"]
        chosen = max(found, key=found.get)
        name = f"{cell.partition}/{cell.method.text}"
        trials = [[rate, accuracy] for rate, accuracy in found.items()]
        write(0, {"training": name, "rate": chosen, "accuracy": found[chosen]})
        rates = state.results.get("rates", {}) | {name: {"chosen": chosen, "trials": trials}}
        return state._replace(results=state.results | {"rates": rates}), f"{name}: lr {chosen:g}"

    return step


def _train_step(lab: Lab, cell: Cell):
    def step(state: RunState, write) -> tuple[RunState, str]:
        curve, trainer = _train(lab, cell, _rate(lab, cell, state.results))
        for row in curve:
            write(row["round"], {"training": name_of(cell), **row})
        return _kept(state, cell, curve, trainer), f"{name_of(cell)}: {_note(curve[-1])}"

    return step


def _piece_step(lab: Lab, cell: Cell, trainer: Trainer, done: int):
    def step(state: RunState, write) -> tuple[RunState, str]:
        curve = [*state.results.get("curves", {}).get(name_of(cell), [])]
        rounds = rounds_within(lab.config, trainer)
        lr = _rate(lab, cell, state.results)
        arrays = _advance(lab, trainer, state.arrays, lr, done, rounds, curve)
        write(curve[-1]["round"], curve[-1])
        state = _kept(state._replace(arrays=arrays, ledger=()), cell, curve, trainer)
        return state, _note(curve[-1])

    return step


def _kept(state: RunState, cell: Cell, curve: list, trainer: Trainer) -> RunState:
    curves = state.results.get("curves", {}) | {name_of(cell): curve}
    ledger = tiers.merge(state.ledger, trainer.bill.ledger(curve[-1]["round"]))
    return state._replace(results=state.results | {"curves": curves}, ledger=ledger)
