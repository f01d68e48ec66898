"""Federated co-training: one method, or many compared over seeds, partitions and engines."""

from eejax.experiment.runs.federated.config import Data, Federated, System
from eejax.experiment.runs.federated.methods import ALGORITHMS, ENGINES, Shared, Task
from eejax.experiment.runs.federated.run import run

__all__ = ["ALGORITHMS", "ENGINES", "Data", "Federated", "Shared", "System", "Task", "run"]
