"""What was measured of every training: its curve, and what curves say side by side."""

from typing import Any

import numpy as np

from eejax.experiment.runs.federated.config import Federated

COSTS = (("modelled_s", "s"), ("modelled_j", "J"), ("bytes", "B"), ("top_bytes", "B"))


def curves_of(results: dict[str, Any], config: Federated, partition: str, text: str) -> list[list]:
    """Finds the curves of a method on a partition, one for each seed."""
    return [results["curves"][f"{partition}/{text}/seed{seed}"] for seed in config.seeds]


def last(curves: list[list], name: str = "accuracy") -> list[float]:
    """Reads the last measurement of every curve."""
    return [curve[-1][name] for curve in curves]


def first_round(curve: list[dict[str, Any]], target: float) -> int | None:
    """Finds the first measured round that reached an accuracy."""
    return next((row["round"] for row in curve if row["accuracy"] >= target), None)


def at_equal(all_curves: list[list[list]], name: str) -> tuple[float, list[list[float | None]]]:
    """Reads accuracies where all methods have spent as much.

    Args:
      all_curves: of each method, one curve a seed.
      name: the cost.

    Returns:
      The largest cost that every training reached, and the last accuracy that each measured before;
      None where it had measured nothing yet.
    """
    limit = min(min(last(curves, name)) for curves in all_curves)

    def before(curve):
        rows = [row["accuracy"] for row in curve if row[name] <= limit * (1 + 1e-9)]
        return rows[-1] if rows else None

    return limit, [[before(curve) for curve in curves] for curves in all_curves]


def summarise(config: Federated, results: dict[str, Any]) -> dict[str, Any]:
    """Flattens results into what ``summary.json`` holds.

    Args:
      config: the fields.
      results: of all steps.

    Returns:
      ``{"dirichlet:0.5/fedavg/accuracy": 0.95, ...}``: means over the seeds, and their lowest and
      highest.
    """
    flat = {}
    for partition in config.data.partitions:
        for text in config.methods:
            curves, name = curves_of(results, config, partition, text), f"{partition}/{text}"
            accuracy = last(curves)
            flat[f"{name}/accuracy"] = float(np.mean(accuracy))
            flat[f"{name}/accuracy_lowest"] = min(accuracy)
            flat[f"{name}/accuracy_highest"] = max(accuracy)
            reached = [first_round(curve, config.target) for curve in curves]
            flat[f"{name}/rounds_to_target"] = None if None in reached else max(reached)
            for cost, _ in COSTS:
                flat[f"{name}/{cost}"] = float(np.mean(last(curves, cost)))
            if "epsilon" in curves[0][-1]:
                flat[f"{name}/epsilon"] = max(last(curves, "epsilon"))
            if f"{partition}/{text}" in results.get("rates", {}):
                flat[f"{name}/rate"] = results["rates"][name]["chosen"]
    return flat
