"""Trains the decoder and reports loss, speed and traffic."""

import itertools
import math
import time
from typing import Any

import jax
import numpy as np
import optax

from eejax import trees
from eejax.cotrain import pipeline
from eejax.cotrain.hybrid import check_hybrid, hybrid_grad, hybrid_step, make_mesh_of
from eejax.data.text import VOCABULARY, entropy_bits, next_byte_batch, python_documentation
from eejax.experiment.context import Context
from eejax.experiment.devices import ensure_devices
from eejax.experiment.figures import Lines
from eejax.experiment.report import Report, Section, print_report, save_report
from eejax.experiment.runs.parallel.config import Parallel, hybrid_of, shape_of
from eejax.experiment.runs.parallel.inspect import inspect_step, tables_of
from eejax.experiment.steps import RunState, Step, run_steps
from eejax.experiment.tables import Table, si


def run(config: Parallel, context: Context) -> dict[str, Any]:
    """Trains, with a checkpoint after every report.

    Args:
      config: the fields.
      context: folder, display and stop flag.

    Returns:
      What ``summary.json`` holds.

    Raises:
      ValueError: a field is wrong, or there are too few devices; names it.
      Interrupted: a signal came; the state was saved.
    """
    # ---------------------------------------------------------------- layout, data, model
    hybrid, shape = hybrid_of(config), shape_of(config)
    check_hybrid(hybrid, VOCABULARY, shape, config.sequences * shape.seq)
    ensure_devices(hybrid.devices)
    mesh = make_mesh_of(hybrid)
    init, train = hybrid_step(VOCABULARY, shape, hybrid, mesh, optax.adam(config.learning_rate))
    grad = jax.jit(hybrid_grad(VOCABULARY, shape, hybrid, mesh))
    text, held = (python_documentation(split) for split in ("train", "test"))

    def batch_of(source: np.ndarray, seed: int, step: int) -> dict[str, jax.Array]:
        batch = next_byte_batch(source, seed, step, config.sequences, shape.seq)
        return pipeline.microbatches(batch, hybrid.microbatches)

    def test_loss(params) -> float:
        return float(np.mean([grad(params, batch_of(held, -1 + 2**31, i))[0] for i in range(4)]))

    # ---------------------------------------------------------------- steps
    working = []

    def step_of(start: int, stop: int):
        def step(state: RunState, write) -> tuple[RunState, str]:
            began, arrays = time.perf_counter(), state.arrays
            for i in range(start, stop):
                arrays, metrics = train(arrays, batch_of(text, config.seed, i))
            loss = float(metrics["loss"])
            working.append((stop - start, time.perf_counter() - began))
            row = {"loss": loss, "test_loss": test_loss(arrays[0])}
            write(stop, row)
            curve = [*state.results.get("curve", []), [stop, row["loss"], row["test_loss"]]]
            rate = (stop - start) * config.sequences * shape.seq / working[-1][1]
            note = f"test {row['test_loss'] / math.log(2):.2f} bits/byte, {rate:,.0f} tokens/s"
            return RunState(arrays, state.results | {"curve": curve}, state.ledger), note

        return step

    bounds = [*range(0, config.steps, config.report_every), config.steps]
    steps = [Step("train", step_of(a, b)) for a, b in itertools.pairwise(bounds)]
    began = time.perf_counter()
    state = run_steps(steps, RunState(init(jax.random.key(config.seed)), {}, ()), context)
    session_s = time.perf_counter() - began

    # ---------------------------------------------------------------- report
    found, curve = inspect_step(config), state.results["curve"]
    summary = {
        "loss": curve[-1][1],
        "test_loss": curve[-1][2],
        "test_bits_per_byte": curve[-1][2] / math.log(2),
        "bytes_over_theory": found["bytes_over_theory"],
        **{f"{tier}/bytes": row["bytes"] for tier, row in found["collectives"].items()},
        "params_sha256": trees.sha256(state.arrays[0]),
    }
    timing = _timing(config, working, session_s)
    context.workdir.write_json("summary.json", summary)
    context.workdir.write_json("timing.json", timing)
    report = _report(config, curve, held, found, timing)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary


def _timing(config: Parallel, working: list, session_s: float) -> dict[str, float | None]:
    """Measures speed on this machine, without the first steps, which compile."""
    steps, seconds = np.sum(working[1:] or [(0, 0.0)], 0)
    tokens_per_s = steps * config.sequences * config.model.seq / seconds if seconds else None
    flops = _flops_per_token(config) * tokens_per_s if tokens_per_s else None
    return {
        "measured_tokens_per_s": tokens_per_s,
        "measured_flops_per_s": flops,
        "measured_utilisation": flops / _matmul_flops_per_s() if flops else None,
        "goodput": sum(s for _, s in working) / session_s,
    }


def _flops_per_token(config: Parallel) -> float:
    """Counts the model's own FLOP, forward and twice that backward; nothing that is recomputed."""
    m = config.model
    heads = m.hidden * (1 + m.kv_heads / m.heads)  # Columns of queries and values; keys as values.
    layer = 2 * m.hidden * (heads + m.hidden * m.kv_heads / m.heads + m.hidden)
    layer += 4 * m.hidden * m.intermediate + 4 * m.seq * m.hidden
    return 3 * (m.layers * layer + 2 * m.hidden * VOCABULARY)


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


def _report(config, curve, held, found, timing) -> Report:
    steps, train, test = (list(column) for column in zip(*curve))
    bits = [[loss / math.log(2) for loss in losses] for losses in (train, test)]
    baselines = Table(
        "Bits per byte of held-out text; the best that models of few bytes could do beside it.",
        ["model", "bits per byte"],
        [
            ["this decoder", bits[1][-1]],
            ["uniform", 8.0],
            ["frequency of bytes", entropy_bits(held)],
            ["frequency of bytes given the one before", entropy_bits(held, 1)],
        ],
        0,
    )
    speed = Table(
        "Speed, measured on this machine; fake CPU devices share its cores.",
        ["what", "how much"],
        [
            ["tokens", si(timing["measured_tokens_per_s"], "/s")],
            ["model FLOP", si(timing["measured_flops_per_s"], "FLOP/s")],
            ["of the fastest matrix product", _percent(timing["measured_utilisation"])],
            ["goodput: training of all time", _percent(timing["goodput"])],
        ],
    )
    figure = Lines("Bits per byte over the steps.", "steps", "bits per byte",
                   {"train": (steps, bits[0]), "held out": (steps, bits[1])})  # fmt: skip
    layout = config.layout
    sections = (
        Section("Training", "Next byte of Python's own documentation.", (baselines, speed),
                (figure,)),
        Section("The compiled step", "Read from the program that ran.", tables_of(found)),
    )  # fmt: skip
    summary = (
        f"A decoder of {config.model.layers} layers on {found['devices']} devices: {layout.data} "
        f"copies of {layout.stages} stages with {layout.scheme} tensor parallelism, in one "
        f"program. It reaches {bits[1][-1]:.2f} bits per byte, and sends "
        f"{found['bytes_over_theory']:.2f} times the bytes of theory on its worst tier."
    )
    return Report("Parallel co-training of a language model", summary, sections)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
