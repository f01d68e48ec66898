"""Models of text and images, trained with data, pipeline and tensor parallelism together."""

from eejax.experiment.runs.parallel.config import (
    Layout,
    Machine,
    Parallel,
    Perceptron,
    Transformer,
    VisionTransformer,
    tiny,
)
from eejax.experiment.runs.parallel.inspect import inspect_step
from eejax.experiment.runs.parallel.plan import plan_layouts
from eejax.experiment.runs.parallel.run import run

__all__ = [
    "Layout",
    "Machine",
    "Parallel",
    "Perceptron",
    "Transformer",
    "VisionTransformer",
    "inspect_step",
    "plan_layouts",
    "run",
    "tiny",
]
