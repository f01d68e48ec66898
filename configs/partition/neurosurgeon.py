"""Neurosurgeon's trend: the best cut against the server alone, 8 models on 3 networks.

    eejax run configs/partition/neurosurgeon.py

A Jetson Nano, 3G, LTE or Wi-Fi, and a data centre's GPU; once with images of uint8, as sensors make
them, and once of float32, as frameworks hold them. All modelled by rooflines and presets. The
paper measured 3.1 times less latency on average (40.7 at most) and 59.5 % less energy
of the device (94.7 % at most). Here the trend is the same, and its size is that of the input:

| input | objective | mean gain | largest gain | mean saving | splitting is best |
|---|---|---|---|---|---|
| uint8 | latency | 11.4 x | 60.6 x | 57 % | 1 of 24 |
| uint8 | energy of the device | 4.7 x | 21.5 x | 45 % | 1 of 24 |
| float32 | latency | 40.5 x | 220 x | 73 % | 1 of 24 |
| float32 | energy of the device | 17.1 x | 81.8 x | 67 % | 1 of 24 |

The gain grows as the network gets slower, and text (BERT) is best sent. But nearly all of it comes
from running everything in the better place: only Tiny YOLOv2 over Wi-Fi is best cut inside, and
then by 1 % of the latency and 23 % of the energy.

References: Kang et al., Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge,
2017.
"""

from eejax.experiment.runs.partition import Grid
from eejax.experiment.runs.partition.grid import run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Grid:
    """Gives the config; the argument ``tiny`` plans two models on one network."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    if arg == "tiny":
        return Grid(models=("alexnet", "tiny_yolov2"), links=("wifi",), solver="neurosurgeon")
    return Grid(solver="neurosurgeon")
