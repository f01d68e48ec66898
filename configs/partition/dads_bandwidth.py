"""DADS: the cut moves as the bandwidth changes.

    eejax run configs/partition/dads_bandwidth.py

Tiny YOLOv2 at 288 x 288 on a Raspberry Pi 3 and a server, Wi-Fi from 0.1 Mbit/s to 1 Gbit/s,
planned by DADS (light load) at 81 bandwidths; rooflines of presets, so the thresholds are modelled.
With an input of float32, as in the paper:

| above | cut |
|---|---|
| | all on the device |
| 2.99 Mbit/s | behind conv5 and its pooling |
| 33.5 Mbit/s | behind conv4 |
| 66.8 Mbit/s | behind conv3 |
| 106 Mbit/s | all on the server |

The paper has the cut at max5 (which is behind conv5 here) at 4 Mbit/s, and at the input at 18
Mbit/s, where Caffe on the device was slower than this roofline. With ``--config.input=uint8`` there
is one cut inside, behind conv5, from 2.99 to 15.0 Mbit/s. ResNet-18 (``--config.model=resnet18
--config.side=224``), whose cut moves inside the network in the paper, goes here from all on the
device to all on the server at 13.3 Mbit/s (float32) or 3.35 (uint8), and is never cut inside:
before its last stage no feature map is smaller than the image in uint8, and by then little work is
left.

References: Hu, Bao, Wang and Liu, Dynamic Adaptive DNN Surgery for Inference Acceleration on the
Edge, 2019.
"""

from eejax.experiment.runs.partition import Partition, Sweep, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Partition:
    """Gives the config; the argument ``tiny`` plans at few bandwidths."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    return Partition(
        model="tiny_yolov2",
        side=288,
        topology="raspberry_pi_3,wifi,edge_server",
        solver="dads",
        input="float32",
        sweep=Sweep(points=9 if arg == "tiny" else 81),
    )
