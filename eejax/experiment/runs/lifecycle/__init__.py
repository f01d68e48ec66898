"""The life cycle of one model: co-train, plan, co-infer, drift, co-update, co-infer again."""

from eejax.experiment.runs.lifecycle.config import (
    CoInfer,
    CoTrain,
    CoUpdate,
    Data,
    Drift,
    Lifecycle,
    System,
    tiny,
)
from eejax.experiment.runs.lifecycle.run import run

__all__ = [
    "CoInfer",
    "CoTrain",
    "CoUpdate",
    "Data",
    "Drift",
    "Lifecycle",
    "System",
    "run",
    "tiny",
]
