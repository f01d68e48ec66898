"""Co-updating three ways, side by side."""

from typing import Any

import jax
import optax

from eejax import coinfer, coupdate, tiers
from eejax.experiment.runs.lifecycle.infer import (
    answers,
    calibrate,
    co_infer,
    layer_graph,
    scalars,
)
from eejax.experiment.runs.lifecycle.setup import Setting
from eejax.experiment.steps import RunState
from eejax.wire import from_name

PyTree = Any

MODES = ("centralised", "local", "collaborative")


def update_step(setting: Setting, mode: str):
    """Makes the step that updates the deployed system in one of three ways.

    Args:
      setting: what never changes.
      mode: one of `MODES`.

    Returns:
      The step. It measures the final exit, as all samples reach it, in the new and the old world.
    """
    config = setting.config.coupdate

    def step(state: RunState, write) -> tuple[RunState, str]:
        plan = state.results["plan"]
        params = state.arrays["federated"].server.params
        deployment = coupdate.Deployment(
            setting.model, setting.topology, tuple(plan["deployed"]), from_name(config.codec)
        )
        recipe = coupdate.Recipe(
            optax.adam(config.learning_rate), config.steps, config.batch, config.replay
        )
        key = setting.key(mode)
        memory = coupdate.from_data(
            jax.tree.map(jax.numpy.asarray, setting.memory), len(setting.memory["y"]), key
        )
        if mode == "centralised":
            update = coupdate.centralised(deployment, params, setting.new, memory, recipe, key)
        elif mode == "local":
            rule = coinfer.normalised_entropy(plan["calibration"]["thresholds"])
            update = coupdate.local(
                deployment, params, setting.new, setting.past, recipe, rule, key
            )
        else:
            update = coupdate.collaborative(
                deployment, params, setting.new, setting.past, memory, recipe,
                distillation(setting), config.share, key,
            )  # fmt: skip
        ledger = update.ledger
        if mode != "local":
            ledger = coupdate.record_upload(
                ledger, setting.topology, setting.new_validation, len(setting.new_validation["y"])
            )
        results = judge(setting, state, update.paths)
        results |= {"ledger": tiers.ledger.to_rows(ledger), **update.metrics}
        write(0, {"mode": mode, "bytes": tiers.total_bytes(ledger), **scalars(results)})
        updates = state.results.get("updates", {}) | {mode: results}
        return RunState(
            state.arrays | {mode: jax.tree.map(jax.numpy.asarray, update.paths)},
            state.results | {"updates": updates},
            # Only one of the three would happen; it is what the system is left with.
            tiers.ledger.merge(state.ledger, ledger) if mode == MODES[-1] else state.ledger,
        ), f"{mode} {results['accuracy_new']:.3f}"

    return step


def distillation(setting: Setting) -> coupdate.Distillation:
    """Reads how edge and end are taught."""
    config = setting.config.coupdate
    return coupdate.Distillation(
        coupdate.Recipe(optax.adam(config.distil_learning_rate), config.distil_steps,
                        config.batch, replay=0),
        config.temperature, config.alpha, from_name(config.codec),
    )  # fmt: skip


def judge(setting: Setting, state: RunState, paths: PyTree) -> dict[str, Any]:
    """Measures an updated system in both worlds.

    Thresholds are chosen anew, for all ways of updating on the same validation data of the old and
    the new world.

    Args:
      setting: what never changes.
      state: tells how good the system was before the drift and how bad in it.
      paths: parameters on the path of each end device.

    Returns:
      Accuracy of the system in the new and the old world, the share of the drift's cost that it won
      back, what it forgot, accuracies of the exits, and the calibration.
    """
    graph = layer_graph(setting, jax.tree.map(lambda x: x[0], paths))
    held = [setting.validation, setting.new_validation]
    calibration = calibrate(setting, paths, held, graph)
    accuracy, exits = {}, {}
    for world, samples in (("new", setting.drifted), ("old", setting.test)):
        scores, correct = answers(setting, paths, samples)
        leaves = coinfer.leave_at(scores, calibration["thresholds"])
        accuracy[world] = float(coinfer.at_exit(correct, leaves).mean())
        exits[world] = correct.mean(-1).tolist()
    before, drifted = (state.results[name]["accuracy"] for name in ("before", "drifted"))
    return {
        "accuracy_new": accuracy["new"],
        "accuracy_old": accuracy["old"],
        "recovered": coupdate.recovered(before, drifted, accuracy["new"]),
        "forgetting": before - accuracy["old"],
        "exits_new": exits["new"],
        "exits_old": exits["old"],
        "calibration": calibration,
    }


def infer_again_step(setting: Setting):
    """Makes the step of co-inference after the collaborative update, thresholds chosen anew.

    They are those by which the update was judged.
    """

    def step(state: RunState, write) -> tuple[RunState, str]:
        paths = state.arrays[MODES[-1]]
        calibration = state.results["updates"][MODES[-1]]["calibration"]
        results, ledger = co_infer(
            setting, paths, setting.drifted, calibration["thresholds"],
            state.results["plan"]["deployed"], state.ledger,
        )  # fmt: skip
        write(0, scalars(results))
        note = f"accuracy {results['accuracy']:.3f}"
        return RunState(state.arrays, state.results | {"after": results}, ledger), note

    return step
