"""Federated co-training: one method, or many compared over seeds, partitions and engines."""

from eejax.experiment.runs.federated.config import Adversaries, Data, Federated, System
from eejax.experiment.runs.federated.methods import ALGORITHMS, ENGINES, Shared, Task
from eejax.experiment.runs.federated.run import run

__all__ = [
    "ALGORITHMS",
    "ENGINES",
    "Adversaries",
    "Data",
    "Federated",
    "Shared",
    "System",
    "Task",
    "run",
]
