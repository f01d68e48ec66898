"""Models as stages with exits; the only room that knows a neural-network library."""

from eejax.models.blocks import GroupNorm
from eejax.models.cnn import branchy_cnn
from eejax.models.conv import Conv, avg_pool, conv, max_pool
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.mlp import staged_mlp
from eejax.models.resnet import resnet
from eejax.models.staged import all_logits, exit_after, init, owned, run, run_stage, staged

__all__ = [
    "Conv",
    "GroupNorm",
    "all_logits",
    "avg_pool",
    "branchy_cnn",
    "conv",
    "exit_after",
    "init",
    "linen_stage",
    "max_pool",
    "owned",
    "resnet",
    "run",
    "run_stage",
    "staged",
    "staged_mlp",
    "to_float",
]
