"""Tiny YOLOv2: what a cut behind the fifth convolution saves, and against what.

    eejax run configs/partition/tiny_yolov2.py

At 288 x 288 the fifth convolution and its pooling give 9 x 9 x 256 float32, 82,944 bytes: 0.08 MB
where the image was 0.95 MB (995,328 bytes) of float32. That is 91.7 % less, not the 93 % that the
paper and those who cite it say; and 66.7 % less than the 248,832 bytes of the same image as a
sensor makes it, in uint8.

The report plans for a Raspberry Pi 3, an edge server over Wi-Fi (18.88 Mbit/s up) and a cloud, with
uint8; all modelled. What the input and the features are decides where to cut:

| input | features | best | latency | best without a cut |
|---|---|---|---|---|
| uint8 | float32 | all on the edge server | 121 ms | the same |
| float32 | float32 | behind conv5, edge server | 142 ms | 323 ms, all on the device |
| uint8 | int8 (bytes alone) | behind conv3, edge server | 104 ms | 121 ms, all on the edge server |

``--config.input=float32`` and ``--config.features=int8`` give the other rows.

References: Hu, Bao, Wang and Liu, Dynamic Adaptive DNN Surgery for Inference Acceleration on the
Edge, 2019.
"""

from eejax.experiment.runs.partition import Partition, Sweep, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Partition:
    """Gives the config; the argument ``tiny`` runs one solver, at few bandwidths."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    config = Partition(
        model="tiny_yolov2", side=288, topology="raspberry_pi_3,wifi,edge_server,wan,cloud_gpu"
    )
    if arg == "tiny":
        config.solver, config.sweep = "exact", Sweep(points=5)
    return config
