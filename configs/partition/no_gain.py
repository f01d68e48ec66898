"""When splitting does not pay, and what makes it pay.

    eejax run configs/partition/no_gain.py

The grid of models and networks of `neurosurgeon.py`, images of uint8 (a quarter of the bytes of
float32, and what sensors make), exact plans. Each case changes one thing; all modelled, in seconds.
Places where splitting beats both the device alone and the server alone, of 24:

| case | latency | energy of the device |
|---|---|---|
| features of float32 | 1 | 1 |
| features of bf16 | 1 | 4 |
| features of int8 | 4 | 5 |
| 8 MB of memory for parameters on the device | 8 | 8 |
| 8 MB, features of int8 | 12 | 12 |
| half of the samples leave after a third of the FLOP | 0 | 1 |
| the same, features of int8 | 4 | 5 |
| 8 MB, features of int8, half leave early | 13 | 13 |

So with raw features splitting hardly ever pays: feature maps are larger than the image until late
in the network, and whoever has come so far may as well finish. What makes it pay is features of
fewer bits, and above all a device too small for the whole model. Early exits lower all costs on the
device and so favour running everything there, if it fits. Features count by their bytes alone: what
int8 costs in accuracy is not modelled here, nor is the cost of an exit itself.

References: Hu et al., Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge, 2019.
Kang et al., Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge, 2017.
"""

from eejax.experiment.runs.partition import Grid
from eejax.experiment.runs.partition.grid import run

__all__ = ["get_config", "run"]

CASES = (
    "input=uint8",
    "input=uint8 features=bf16",
    "input=uint8 features=int8",
    "input=uint8 memory_mb=8",
    "input=uint8 features=int8 memory_mb=8",
    "input=uint8 exit=0.5",
    "input=uint8 features=int8 exit=0.5",
    "input=uint8 features=int8 memory_mb=8 exit=0.5",
)


def get_config(arg: str | None = None) -> Grid:
    """Gives the config; the argument ``tiny`` plans two models on one network in three cases."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    if arg == "tiny":
        cases = (CASES[0], CASES[4], CASES[7])
        return Grid(models=("alexnet", "squeezenet1_1"), links=("wifi",), cases=cases)
    return Grid(cases=CASES)
