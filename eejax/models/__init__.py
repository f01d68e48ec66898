"""Models as stages with exits, and published ones; the only room that knows Flax."""

from eejax.models import zoo
from eejax.models.blocks import GroupNorm
from eejax.models.cnn import branchy_cnn
from eejax.models.conv import Conv, avg_pool, conv, max_pool
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.lenet import lenet
from eejax.models.mlp import staged_mlp
from eejax.models.resnet import resnet
from eejax.models.staged import all_logits, exit_after, init, owned, run, run_stage, staged
from eejax.models.zoo import ZooModel

__all__ = [
    "Conv",
    "GroupNorm",
    "ZooModel",
    "all_logits",
    "avg_pool",
    "branchy_cnn",
    "conv",
    "exit_after",
    "init",
    "lenet",
    "linen_stage",
    "max_pool",
    "owned",
    "resnet",
    "run",
    "run_stage",
    "staged",
    "staged_mlp",
    "to_float",
    "zoo",
]
