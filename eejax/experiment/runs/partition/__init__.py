"""Where to cut a model: all solvers on one graph, grids of models and networks, and speed."""

from eejax.experiment.runs.partition import grid, speed
from eejax.experiment.runs.partition.config import Partition, Sweep
from eejax.experiment.runs.partition.grid import Grid
from eejax.experiment.runs.partition.profiling import Measured, measured_tables, profile_model
from eejax.experiment.runs.partition.run import find_plans, planned, run
from eejax.experiment.runs.partition.solve import SOLVERS
from eejax.experiment.runs.partition.speed import Speed

__all__ = [
    "SOLVERS",
    "Grid",
    "Measured",
    "Partition",
    "Speed",
    "Sweep",
    "find_plans",
    "grid",
    "measured_tables",
    "planned",
    "profile_model",
    "run",
    "speed",
]
