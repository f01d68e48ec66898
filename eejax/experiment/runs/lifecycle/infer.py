"""Planning and co-inference."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eejax import coinfer, coupdate, partition, tiers
from eejax.experiment.runs.lifecycle.setup import Samples, Setting
from eejax.experiment.steps import RunState
from eejax.names import suggest
from eejax.wire import identity

PyTree = Any

ANSWER_NBYTES = 4


def plan_step(setting: Setting):
    """Makes the step that calibrates the exits and prices every placement."""
    config = setting.config.coinfer

    def step(state: RunState, write) -> tuple[RunState, str]:
        params = state.arrays["federated"].server.params
        graph = layer_graph(setting, params)
        calibration = calibrate(setting, coupdate.as_paths(params, setting.ends),
                                [setting.validation], graph)  # fmt: skip
        reach = reach_of(calibration["exit_fractions"])
        plans = partition.exhaustive(
            graph, setting.topology, config.objective, reach=reach, answer_nbytes=ANSWER_NBYTES
        )
        full = partition.exhaustive(
            graph, setting.topology, config.objective, answer_nbytes=ANSWER_NBYTES
        )
        best = partition.best(plans)
        deployed = placement(setting, best.assignment)
        results = {
            "calibration": calibration,
            "graph": {
                "granularity": graph.granularity,
                "layers": [layer._asdict() for layer in graph.layers],
                "tensors": [[t.name, t.nbytes] for t in graph.tensors],
            },
            "best": best.name,
            "deployed": list(deployed),
            "plans": [plan_row(plan) for plan in plans],
            "plans_without_exits": [plan_row(plan) for plan in full],
        }
        write(0, {f"{p['name']}/{k}": v for p in results["plans"] for k, v in p["costs"].items()})
        return state._replace(results=state.results | {"plan": results}), f"best {best.name}"

    return step


def check(setting: Setting) -> None:
    """Refuses wrong fields before anything is trained.

    Args:
      setting: what never changes.

    Raises:
      ValueError: a field is out of range; names it.
    """
    config = setting.config.coinfer
    if config.objective not in partition.OBJECTIVES:
        hint = suggest(config.objective, partition.OBJECTIVES)
        known = ", ".join(partition.OBJECTIVES)
        raise ValueError(f"coinfer.objective {config.objective!r} is none of {known}{hint}")
    if not 0 <= config.loss_allowed <= 1:
        raise ValueError(f"coinfer.loss_allowed must be in [0, 1], got {config.loss_allowed!r}")
    placement(setting, ())


def before_step(setting: Setting):
    """Makes the step of co-inference in the old world."""

    def step(state: RunState, write) -> tuple[RunState, str]:
        plan = state.results["plan"]
        paths = coupdate.as_paths(state.arrays["federated"].server.params, setting.ends)
        results, ledger = co_infer(
            setting, paths, setting.test, plan["calibration"]["thresholds"], plan["deployed"],
            state.ledger,
        )  # fmt: skip
        write(0, scalars(results))
        note = f"accuracy {results['accuracy']:.3f}"
        return RunState(state.arrays, state.results | {"before": results}, ledger), note

    return step


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """Picks the numbers among results."""
    return {name: value for name, value in results.items() if isinstance(value, float)}


def co_infer(
    setting: Setting,
    paths: PyTree,
    samples: Samples,
    thresholds: Sequence[float],
    assignment: Sequence[int],
    ledger: tiers.Ledger,
) -> tuple[dict[str, Any], tiers.Ledger]:
    """Runs samples through the system, tier by tier; each end device sees its share of them.

    Args:
      setting: what never changes.
      paths: parameters on the path of each end device, ``[ends, ...]``.
      samples: dealt out to the end devices in turn.
      thresholds: of the exits but the last.
      assignment: tier of each stage.
      ledger: what was recorded before.

    Returns:
      Results, executed and modelled, and the ledger with the traffic.
    """
    rule = coinfer.normalised_entropy(thresholds)
    codecs, input_codec = links(setting, assignment)
    run = coinfer.make_compacted(setting.model, rule, codecs, input_codec=input_codec)
    everyone = coinfer.make_full(setting.model, rule, codecs, input_codec=input_codec)

    outcomes, logits, scores, order = [], [], [], []
    for own, group in by_device(setting, paths, len(samples["y"])):
        outcomes.append(run(own, samples["x"][group]))
        given, eta = everyone(own, samples["x"][group])
        logits.append(given)
        scores.append(eta)
        order.append(group)
    y = samples["y"][np.concatenate(order)]
    exit_index = np.concatenate([o.exit_index for o in outcomes])
    given = np.concatenate([o.logits for o in outcomes])
    reached, executed, sent = (
        sum(getattr(o, name) for o in outcomes) for name in ("reached", "executed", "sent_nbytes")
    )
    correct = np.concatenate(logits, 1).argmax(-1) == y
    scores = np.concatenate(scores, 1)

    own = jax.tree.map(lambda x: x[0], paths)
    graph = layer_graph(setting, own)
    flops = [layer.flops for layer in graph.layers]
    fractions = np.bincount(exit_index, minlength=len(correct)) / len(y)
    priced = partition.price(
        graph, setting.topology, assignment, reach=reach_of(fractions), answer_nbytes=ANSWER_NBYTES
    )
    results = {
        "accuracy": float((given.argmax(-1) == y).mean()),
        "accuracy_by_exit": correct.mean(-1).tolist(),
        "accuracy_random_exit": coinfer.random_exit_accuracy(correct, exit_index),
        "accuracy_oracle": float(coinfer.at_exit(correct, coinfer.oracle(correct)).mean()),
        "exit_fractions": fractions.tolist(),
        "hindsight_saving": coinfer.hindsight_saving(reached, flops),
        "executed_saving": coinfer.executed_saving(executed, flops, len(y)),
        **partition.summary(priced),
        "link_bytes": [[*pair, nbytes] for pair, nbytes in priced.link_bytes.items()],
        "curve": curve(setting, graph, scores, correct, assignment),
    }
    names = setting.topology.names
    for k, (count, nbytes) in enumerate(zip(reached.tolist(), sent.tolist())):
        below = 0 if k == 0 else assignment[k - 1]
        for tier in range(below, assignment[k]):
            kind, what = ("data", "raw input") if k == 0 else ("information", "features")
            each = nbytes // count if count else 0
            ledger = tiers.record(ledger, names[tier], names[tier + 1], kind, what, each, count)
    return results, ledger


def curve(setting: Setting, graph, scores, correct, assignment) -> dict[str, list[float]]:
    """Draws accuracy against modelled latency for thresholds at common quantiles."""
    swept = coinfer.sweep(scores, correct, points=41)
    pricer = [
        partition.price(graph, setting.topology, assignment, reach=reach_of(f),
                        answer_nbytes=ANSWER_NBYTES)
        for f in swept.exit_fractions
    ]  # fmt: skip
    return {
        "accuracy": swept.accuracy.tolist(),
        "latency": [float(plan.latency_s.mean()) for plan in pricer],
        "random": (swept.exit_fractions @ correct.mean(-1)).tolist(),
    }


def calibrate(
    setting: Setting, paths: PyTree, held: Sequence[Samples], graph: partition.LayerGraph
) -> dict[str, Any]:
    """Chooses thresholds on data that nobody trained on; the cost of an exit is its FLOP.

    Args:
      setting: what never changes.
      paths: parameters on the path of each end device.
      held: samples that the operator holds, dealt out to the end devices in turn.
      graph: FLOP of the stages.

    Returns:
      The calibration as plain values.
    """
    config = setting.config.coinfer
    samples = {name: np.concatenate([h[name] for h in held]) for name in held[0]}
    scores, correct = answers(setting, paths, samples)
    found = coinfer.calibrate(
        scores,
        correct,
        floor=max(float(correct[-1].mean()) - config.loss_allowed, 0.0),
        cost=np.cumsum([layer.flops for layer in graph.layers]),
        margin=config.margin,
    )
    return {
        **found._asdict(),
        "thresholds": list(found.thresholds),
        "exit_fractions": found.exit_fractions.tolist(),
        "final_accuracy": float(correct[-1].mean()),
        "first_exit_scores": scores[0].tolist(),
        "errors": (~correct[-1]).astype(int).tolist(),
    }


def answers(setting: Setting, paths: PyTree, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Lets every exit answer every sample; samples are dealt out to the end devices in turn.

    Args:
      setting: what never changes.
      paths: parameters on the path of each end device.
      samples: the samples.

    Returns:
      Scores and whether each answer is correct, both ``[exits, n]``, grouped by end device.
    """
    rule = coinfer.normalised_entropy([-1.0] * (len(setting.model.exits) - 1))
    full = coinfer.make_full(setting.model, rule)
    scores, correct = [], []
    for own, group in by_device(setting, paths, len(samples["y"])):
        logits, eta = full(own, samples["x"][group])
        scores.append(eta)
        correct.append(logits.argmax(-1) == samples["y"][group])
    return np.concatenate(scores, 1), np.concatenate(correct, 1)


def by_device(setting: Setting, paths: PyTree, n: int) -> list[tuple[PyTree, np.ndarray]]:
    """Deals ``n`` samples out to the end devices in turn.

    Returns:
      Parameters and sample positions of each device, or one entry for all if they are equal.
    """
    groups = [np.arange(e, n, setting.ends) for e in range(setting.ends)]
    if all(bool((x == x[:1]).all()) for x in jax.tree.leaves(paths)):
        groups = [np.arange(n)]
    return [(jax.tree.map(lambda x, e=e: x[e], paths), g) for e, g in enumerate(groups) if len(g)]


def placement(setting: Setting, best: Sequence[int]) -> tuple[int, ...]:
    """Reads where the config wants the stages to run.

    Raises:
      ValueError: the field names no placement of these stages.
    """
    text, topology = setting.config.coinfer.placement, setting.topology
    stages = len(setting.model.stages)
    if text == "best":
        return tuple(best)
    names = topology.names if text == "one-per-tier" else [n.strip() for n in text.split(",")]
    if len(names) != stages:
        raise ValueError(
            f"coinfer.placement {text!r} must be one-per-tier, best, or {stages} tiers joined by "
            "commas"
        )
    try:
        chosen = tuple(topology.tier_index(name) for name in names)
    except ValueError as error:
        raise ValueError(f"coinfer.placement: {error}") from error
    if list(chosen) != sorted(chosen):
        raise ValueError(f"coinfer.placement {text!r}: data go up only, so tiers must not descend")
    return chosen


def links(setting: Setting, assignment: Sequence[int]):
    """Gives the codec at each border between stages that is a link, and that of raw input."""
    codecs = [
        setting.feature_codec if below != above else None
        for below, above in itertools.pairwise(assignment)
    ]
    return codecs, identity() if assignment[0] else None


def layer_graph(setting: Setting, params: PyTree) -> partition.LayerGraph:
    """Gives FLOP and bytes of the stages, features through their codec and raw input as uint8."""
    return partition.from_staged(
        setting.model, params, setting.test["x"][:1], setting.feature_codec
    )


def reach_of(exit_fractions: Any) -> np.ndarray:
    """Turns shares that leave at each stage into shares that reach each stage.

    Example:
      >>> reach_of([0.5, 0.25, 0.25]).tolist()
      [1.0, 0.5, 0.25]
    """
    leaves = np.asarray(exit_fractions, float)
    return np.minimum.accumulate(np.concatenate([[1.0], 1 - np.cumsum(leaves)[:-1]]).clip(0, 1))


def plan_row(plan: partition.Plan) -> dict[str, Any]:
    """Gives a plan as plain values: name, assignment, costs, and whether it fits."""
    return {
        "name": plan.name,
        "assignment": list(plan.assignment),
        "costs": partition.summary(plan),
        "feasible": plan.feasible,
        "why": plan.why,
    }
