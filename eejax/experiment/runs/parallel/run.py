"""Trains a model and reports what it learnt, its speed and its traffic."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eejax import trees
from eejax.cotrain import pipeline
from eejax.cotrain.hybrid import check_hybrid, hybrid_step, make_mesh_of, predict, unpack
from eejax.cotrain.multihost import to_host
from eejax.experiment.context import Context
from eejax.experiment.devices import ensure_devices
from eejax.experiment.report import print_report, save_report
from eejax.experiment.runs.parallel.config import Parallel, hybrid_of, optimiser_of
from eejax.experiment.runs.parallel.inspect import inspect_step
from eejax.experiment.runs.parallel.report import report_of
from eejax.experiment.runs.parallel.task import Task, model_of, task_of
from eejax.experiment.steps import RunState, Step, run_steps


def run(config: Parallel, context: Context) -> dict[str, Any]:
    """Trains, with a checkpoint after every report.

    Args:
      config: the fields.
      context: folder, display and stop flag.

    Returns:
      What ``summary.json`` holds.

    Raises:
      FileNotFoundError: the data set is not on this machine; says how to get it.
      ValueError: a field is wrong, or there are too few devices; names it.
      Interrupted: a signal came; the state was saved.
    """
    # ---------------------------------------------------------------- layout, data, model
    hybrid, model = hybrid_of(config), model_of(config)
    check_hybrid(hybrid, model, config.sequences * model.seq)
    ensure_devices(hybrid.devices)
    mesh, task = make_mesh_of(hybrid), task_of(config)
    init, train = hybrid_step(model, hybrid, mesh, optimiser_of(config))
    test = _tester(task)

    # ---------------------------------------------------------------- steps
    working = []

    def step_of(start: int, stop: int):
        def step(state: RunState, write) -> tuple[RunState, str]:
            began, arrays = time.perf_counter(), state.arrays
            for i in range(start, stop):
                batch = pipeline.microbatches(task.train(i), hybrid.microbatches)
                arrays, metrics = train(arrays, batch)
            loss = float(metrics["loss"])
            working.append((stop - start, time.perf_counter() - began))
            test_loss, accuracy = test(unpack(jax.tree.map(to_host, arrays[0])))
            further = task.metrics(test_loss, accuracy)
            row = {"loss": loss, "test_loss": test_loss, **further}
            write(stop, row)
            curve = [*state.results.get("curve", []), [stop, loss, test_loss]]
            rate = (stop - start) * _units(config, task) / working[-1][1]
            note = f"test {test_loss * task.scale:.2f} {task.measure}, {rate:,.0f} {task.unit}/s"
            results = state.results | {"curve": curve, "metrics": row}
            return RunState(arrays, results, state.ledger), note

        return step

    bounds = [*range(0, config.steps, config.report_every), config.steps]
    steps = [Step("train", step_of(a, b)) for a, b in itertools.pairwise(bounds)]
    began = time.perf_counter()
    state = run_steps(steps, RunState(init(jax.random.key(config.seed)), {}, ()), context)
    session_s = time.perf_counter() - began

    # ---------------------------------------------------------------- report
    found = inspect_step(config)
    summary = {
        **state.results["metrics"],
        "bytes_over_theory": found["bytes_over_theory"],
        **{f"{tier}/bytes": row["bytes"] for tier, row in found["collectives"].items()},
        "params_sha256": trees.sha256(state.arrays[0]),
    }
    timing = _timing(config, task, working, session_s)
    context.workdir.write_json("summary.json", summary)
    context.workdir.write_json("timing.json", timing)
    report = report_of(config, task, state.results, found, timing)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary


def _tester(task: Task) -> Callable[[Any], tuple[float, float]]:
    """Makes ``(parameters as in checkpoints) -> (loss, accuracy)`` of held-out data on one device.

    The device need not know how the model was trained, as nobody does who loads a checkpoint.
    """

    @jax.jit
    def test(params, inputs, labels):
        logits = predict(task.model, params, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.stack([losses.sum(), (logits.argmax(1) == labels).sum().astype(jnp.float32)])

    def run(params):
        sums = sum(np.asarray(test(params, **batch), np.float64) for batch in task.held)
        loss, accuracy = sums / sum(len(batch["labels"]) for batch in task.held)
        return float(loss), float(accuracy)

    return run


def _units(config: Parallel, task: Task) -> int:
    """Counts the tokens, or images, of a step."""
    return config.sequences * task.model.seq // task.tokens


def _timing(
    config: Parallel, task: Task, working: list, session_s: float
) -> dict[str, float | None]:
    """Measures speed on this machine, without the first steps, which compile."""
    steps, seconds = np.sum(working[1:] or [(0, 0.0)], 0)
    units_per_s = steps * _units(config, task) / seconds if seconds else None
    # The model's own, forward and twice that backward, but for inputs; nothing recomputed.
    start, layer, finish = task.model.costs.flops
    flops = task.tokens * (2 * start + 3 * (task.model.layers * layer + finish))
    flops = flops * units_per_s if units_per_s else None
    return {
        f"measured_{task.unit}_per_s": units_per_s,
        "measured_flops_per_s": flops,
        "measured_utilisation": flops / _matmul_flops_per_s() if flops else None,
        "goodput": sum(s for _, s in working) / session_s,
    }


def _matmul_flops_per_s(n: int = 1024, repeats: int = 5) -> float:
    """Measures the fastest product of two float32 matrices on one device of this machine."""
    x = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda x: x @ x)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        product(x).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times[1:])
