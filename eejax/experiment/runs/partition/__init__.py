"""Where to cut a model: all solvers on one graph, with the baselines and figures."""

from eejax.experiment.runs.partition.config import Partition, Sweep
from eejax.experiment.runs.partition.run import find_plans, run
from eejax.experiment.runs.partition.solve import SOLVERS

__all__ = ["SOLVERS", "Partition", "Sweep", "find_plans", "run"]
