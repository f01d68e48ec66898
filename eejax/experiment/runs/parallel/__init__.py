"""A language model of bytes, trained with data, pipeline and tensor parallelism in one program."""

from eejax.experiment.runs.parallel.config import Layout, Machine, Parallel, Transformer, tiny
from eejax.experiment.runs.parallel.inspect import inspect_step
from eejax.experiment.runs.parallel.plan import plan_layouts
from eejax.experiment.runs.parallel.run import run

__all__ = [
    "Layout",
    "Machine",
    "Parallel",
    "Transformer",
    "inspect_step",
    "plan_layouts",
    "run",
    "tiny",
]
