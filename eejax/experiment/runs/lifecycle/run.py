"""The run itself: a list of steps, and the report at its end."""

import time
from typing import Any

import jax

from eejax import coinfer, trees
from eejax.core import StagedModel
from eejax.experiment.context import Context
from eejax.experiment.report import print_report, save_report
from eejax.experiment.runs.lifecycle import drifting, infer, train, update
from eejax.experiment.runs.lifecycle.config import Lifecycle
from eejax.experiment.runs.lifecycle.report import make_report, summarise
from eejax.experiment.runs.lifecycle.setup import Setting, make_setting
from eejax.experiment.steps import RunState, Step, run_steps


def run(config: Lifecycle, context: Context) -> dict[str, Any]:
    """Takes one model through its life: see the steps below.

    Args:
      config: the fields.
      context: folder, display and stop flag.

    Returns:
      What ``summary.json`` holds.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is out of range; names it.
      Interrupted: a signal came; the state was saved.
    """
    started = time.perf_counter()
    setting = make_setting(config)
    infer.check(setting)
    drifting.check(setting)

    # ---------------------------------------------------------------- the steps, in their order
    training = config.cotrain
    chunks = [
        min(training.report_every, training.rounds - done)
        for done in range(0, training.rounds, training.report_every)
    ]
    cotrain_step, central_step = train.cotrain_step(setting), train.central_step(setting)
    steps = [
        *(Step("co-train", cotrain_step(rounds)) for rounds in chunks),
        *(Step("central", central_step(rounds)) for rounds in chunks),
        Step("alone", train.alone_step(setting)),
        Step("plan", infer.plan_step(setting)),
        Step("co-infer", infer.before_step(setting)),
        Step("drift", drifting.drift_step(setting)),
        *(Step("co-update", update.update_step(setting, mode)) for mode in update.MODES),
        Step("co-infer again", update.infer_again_step(setting)),
    ]
    state = run_steps(steps, RunState(train.first_arrays(setting), {}, ()), context)

    # ---------------------------------------------------------------- what is kept of it
    sha256 = trees.sha256(state.arrays[update.MODES[-1]])
    summary = summarise(state.results, state.ledger) | {"params_sha256": sha256}
    timing = {**_clock(setting, state), "session_s": time.perf_counter() - started}
    report = make_report(setting, state.results, state.ledger, timing)
    context.workdir.write_json("summary.json", summary)
    context.workdir.write_json("timing.json", timing)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary


def _clock(setting: Setting, state: RunState) -> dict[str, float]:
    """Measures early exits against the model without them, on this machine."""
    plan, params = state.results["plan"], state.arrays["federated"].server.params
    rule = coinfer.normalised_entropy(plan["calibration"]["thresholds"])
    early = coinfer.make_compacted(setting.model, rule)
    bare = StagedModel(setting.model.stages, setting.model.exits[-1:])
    full = coinfer.make_full(bare, coinfer.normalised_entropy([]))
    x = setting.test["x"]
    seconds = coinfer.measure_seconds(lambda: early(params, x), lambda: full(params, x))
    return {f"measured_{name}": value for name, value in seconds._asdict().items()} | {
        "devices": len(jax.devices())
    }
