"""Which layouts the devices allow for a config, and what each is modelled to cost."""

import dataclasses
from typing import Any

from eejax import tiers
from eejax.cotrain.hybrid import Level, levels_of, plan
from eejax.experiment.runs.parallel.config import Machine, Parallel
from eejax.experiment.runs.parallel.task import model_of
from eejax.experiment.tables import Table, si


def plan_layouts(config: Parallel) -> list[dict[str, Any]]:
    """Prices every layout of all devices for one training step.

    Args:
      config: the fields of the run; ``machine`` says what the devices are.

    Returns:
      JSON values of each candidate, the fastest first and those that cannot be used last:
      ``layout`` (the fields of `Hybrid`), ``bytes`` by tier, ``memory_bytes``, modelled ``seconds``
      by cause and ``total_s``, ``bound`` (what takes most), ``reason`` (why it cannot be used).

    Raises:
      FileNotFoundError: there is no such topology.
      ValueError: a field is wrong; names it.
    """
    model, (levels, flops_per_s, memory_bytes) = model_of(config), _levels(config.machine)
    candidates = plan(
        model, config.sequences * model.seq, levels,
        flops_per_s=flops_per_s, memory_bytes=memory_bytes,
    )  # fmt: skip
    return [
        {
            "layout": dataclasses.asdict(c.hybrid),
            "tiers": {tier: list(axes) for tier, axes in c.tiers.items()},
            "bytes": dict(c.nbytes),
            "memory_bytes": c.memory_bytes,
            "seconds": dict(c.seconds),
            "total_s": c.total_seconds,
            "bound": c.bound,
            "reason": c.reason,
        }
        for c in candidates
    ]


def _levels(machine: Machine) -> tuple[dict[str, Level], float, float]:
    if machine.topology is not None:
        return levels_of(tiers.load(machine.topology))
    levels = {
        "cloud": Level(machine.clouds, machine.cloud_bytes_per_s),
        "edge": Level(machine.edges, machine.edge_bytes_per_s),
        "end": Level(machine.ends, machine.end_bytes_per_s),
    }
    return levels, machine.flops_per_s, machine.memory_bytes


def table_of(candidates: list[dict[str, Any]], most: int) -> Table:
    """Lays candidates out as a table.

    Args:
      candidates: from `plan_layouts`, only those that can be used.
      most: rows to show.

    Returns:
      The table, its first row marked.
    """
    rows, names = [], [*candidates[0]["bytes"]] if candidates else []
    for c in candidates[:most]:
        layout = c["layout"]
        grid = "x".join(map(str, layout["grid"])) or "1"
        rows.append([
            f"{layout['data']} x {layout['stages']} x {layout['scheme']} {grid}",
            f"{layout['schedule']}, M={layout['microbatches']}",
            si(c["total_s"], "s"),
            c["bound"],
            *(si(c["bytes"][name], "B") for name in names),
            si(c["memory_bytes"], "B"),
        ])  # fmt: skip
    return Table(
        f"The {len(rows)} fastest of {len(candidates)} layouts (data x stages x tensor layout); a "
        "step, modelled.",
        ["layout", "schedule", "step", "bound", *names, "memory"],
        rows,
        0 if rows else None,
    )
