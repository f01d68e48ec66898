"""What a plan is judged by: names of objectives, weights of several, and their values."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from eejax.names import suggest
from eejax.partition.plan import Plan

Objective = str | Mapping[str, float]
"""One of `OBJECTIVES`, or weights of several."""

OBJECTIVES: Mapping[str, Callable[[Plan], float]] = MappingProxyType(
    {
        "latency": lambda plan: float(plan.latency_s.mean()),
        "worst_latency": lambda plan: float(plan.latency_s.max()),
        "energy": lambda plan: float(plan.energy_j.sum(1).mean()),
        "end_energy": lambda plan: float(plan.energy_j[:, 0].mean()),
        "money": lambda plan: float(plan.money_usd.mean()),
        "bytes": lambda plan: float(sum(plan.link_bytes.values())),
        "pipeline": lambda plan: float(period(plan).mean()),
    }
)
"""What a plan can be judged by, all for one sample and the less the better: mean and largest
latency over the end devices in seconds, mean energy of all tiers and of the end device alone in
joules, mean money in US dollars, bytes over all links both ways, and the mean `period` of a
pipeline in seconds."""


def period(plan: Plan) -> np.ndarray:
    """Models the time between two answers when samples follow each other without a pause.

    Every tier and every link works on a sample of its own, so the longest of them counts. A link
    carries one message at a time, whichever its direction.

    Args:
      plan: a priced plan.

    Returns:
      Seconds for each end device, ``[ends]``.
    """
    return np.hstack([plan.parts["compute_s"], plan.parts["transfer_s"]]).max(1)


def weights_of(objective: Objective) -> dict[str, float]:
    """Reads an objective.

    Args:
      objective: one of `OBJECTIVES`, or weights of several, such as ``{"latency": 1, "energy":
        0.1}``: then a second counts as ten joules.

    Returns:
      The weights.

    Raises:
      ValueError: a name is unknown (tells the nearest one), or a weight is negative.
    """
    weights = {objective: 1.0} if isinstance(objective, str) else dict(objective)
    for name, weight in weights.items():
        if name not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise ValueError(f"objective {name!r} is none of {known}{suggest(name, OBJECTIVES)}")
        if not 0 <= weight < np.inf:
            raise ValueError(f"objective: the weight of {name!r} must be >= 0, got {weight}")
    if not weights:
        raise ValueError(f"objective must weigh at least one of {', '.join(OBJECTIVES)}")
    return weights


def objective(plan: Plan, name: Objective) -> float:
    """Judges a plan.

    Args:
      plan: a priced plan.
      name: one of `OBJECTIVES`, or weights of several as for `weights_of`.

    Returns:
      Seconds, joules, dollars or bytes of one sample, or their weighted sum; less is better.

    Raises:
      ValueError: a name is unknown; tells the nearest one.
    """
    return sum(weight * OBJECTIVES[key](plan) for key, weight in weights_of(name).items())


def summary(plan: Plan) -> dict[str, float]:
    """Judges a plan by all of `OBJECTIVES`.

    Args:
      plan: a priced plan.

    Returns:
      Modelled seconds, joules and bytes of one sample, by the name of the objective.
    """
    return {name: judge(plan) for name, judge in OBJECTIVES.items()}
