"""What the compiled step of a parallel run does: who sends what, what it holds, who waits."""

from typing import Any

import jax

from eejax.cotrain import pipeline
from eejax.cotrain.hybrid import (
    batch_form,
    check_hybrid,
    hybrid_step,
    make_mesh_of,
    nbytes,
    tier_of,
)
from eejax.experiment.devices import ensure_devices
from eejax.experiment.runs.parallel.config import Parallel, hybrid_of, optimiser_of
from eejax.experiment.runs.parallel.task import model_of
from eejax.experiment.tables import Table, si
from eejax.tiers import collectives


def inspect_step(config: Parallel) -> dict[str, Any]:
    """Compiles one training step, without running it, and reads what is in it.

    Args:
      config: the fields of the run.

    Returns:
      JSON values: ``devices``, ``mesh``; ``collectives`` by tier with ``bytes`` a device sends,
      ``theory`` and their ``ratio``; ``bytes_over_theory``, the ratio of the worst tier;
      ``counts`` of collectives by kind; ``memory`` of a device in bytes; ``bubble``, the idle share
      by data flow and in lock-step; ``schedule`` as text.

    Raises:
      ValueError: a field is wrong, or there are too few devices.
    """
    hybrid, model = hybrid_of(config), model_of(config)
    tokens = config.sequences * model.seq
    check_hybrid(hybrid, model, tokens)
    ensure_devices(hybrid.devices)
    mesh = make_mesh_of(hybrid)
    init, step = hybrid_step(model, hybrid, mesh, optimiser_of(config))
    state = init(jax.random.key(config.seed))
    compiled = step.lower(state, batch_form(model, hybrid, tokens)).compile()

    found, theory = collectives(compiled, mesh), nbytes(hybrid, model, tokens)
    sent = dict.fromkeys(theory, 0.0)
    for axis, count in found.by_tier.items():
        sent[tier_of(hybrid)[axis]] += count
    by_tier = {
        tier: {"bytes": sent[tier], "theory": theory[tier],
               "ratio": sent[tier] / theory[tier] if theory[tier] else None}
        for tier in theory
    }  # fmt: skip
    memory = compiled.memory_analysis()
    return {
        "devices": hybrid.devices,
        "mesh": dict(mesh.shape),
        "tiers": tier_of(hybrid),
        "collectives": by_tier,
        "bytes_over_theory": max(row["ratio"] or 0.0 for row in by_tier.values()),
        "counts": found.count,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
        },
        "bubble": {
            "dataflow": pipeline.bubble(hybrid.table),
            "lockstep": pipeline.bubble(hybrid.table, lockstep=True),
        },
        "schedule": pipeline.text_schedule(hybrid.table),
    }


def tables_of(found: dict[str, Any]) -> tuple[Table, ...]:
    """Lays an inspection out as tables.

    Args:
      found: from `inspect_step`.

    Returns:
      Traffic by tier, and what a device holds and does.
    """
    axes = {tier: ", ".join(a for a, t in found["tiers"].items() if t == tier)
            for tier in found["collectives"]}  # fmt: skip
    traffic = Table(
        "What a device sends in a step: the compiled program beside theory, in float32.",
        ["tier", "mesh axes", "sent", "theory", "ratio"],
        [[tier, axes[tier], si(row["bytes"], "B"), si(row["theory"], "B"), row["ratio"]]
         for tier, row in found["collectives"].items()],
    )  # fmt: skip
    mesh = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    rest = Table(
        "The step on one device; the bubble is modelled, a backward taking twice a forward.",
        ["what", "how much"],
        [
            ["mesh", mesh],
            ["collectives", ", ".join(f"{n} {kind}" for kind, n in found["counts"].items())],
            ["parameters, optimiser and batch", si(found["memory"]["arguments"], "B")],
            ["temporary memory", si(found["memory"]["temporary"], "B")],
            ["idle in the bubble, by data flow", f"{100 * found['bubble']['dataflow']:.1f} %"],
            ["idle in the bubble, in lock-step", f"{100 * found['bubble']['lockstep']:.1f} %"],
        ],
    )
    return traffic, rest
