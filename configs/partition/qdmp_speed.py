"""QDMP beside DADS: the same cost, and how much sooner.

    eejax run configs/partition/qdmp_speed.py

Both solve the same tables of costs for two tiers; times are measured on the machine that runs this.
On two shared CPU cores:

| graph | layers | DADS / QDMP |
|---|---|---|
| ResNet-18, ResNet-50, DenseNet-121 | 21, 54, 179 | 0.9, 0.9, 0.5 |
| GoogLeNet | 67 | 7 |
| random blocks of 20 layers | 200 | 0.4 |
| | 2,000 | 6 |
| | 20,000 | 74 |

The paper says 66.3 times. That is the right order for large graphs, but DADS is here one compiled
minimum cut that takes half a millisecond for a published network: there is nothing to win, unless
the bounds of QDMP show at once that no block needs a cut (GoogLeNet).

References: Zhang et al., Towards Real-time Cooperative Deep Inference over the Cloud and Edge End
Devices, 2020.
"""

from eejax.experiment.runs.partition import Speed
from eejax.experiment.runs.partition.speed import run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Speed:
    """Gives the config; the argument ``tiny`` times one network and small graphs."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    return Speed(models=("squeezenet1_1",), nodes=(50, 100), repeats=1) if arg else Speed()
