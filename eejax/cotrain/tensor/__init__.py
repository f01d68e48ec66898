"""Tensor parallelism in any number of dimensions: one primitive, one layout, two faces."""

from eejax.cotrain.tensor import theory
from eejax.cotrain.tensor.attention import attention, attention_init, attention_specs
from eejax.cotrain.tensor.check import check
from eejax.cotrain.tensor.conv import conv, conv_specs
from eejax.cotrain.tensor.embed import (
    cross_entropy,
    embed,
    label_spec,
    position_spec,
    positions,
)
from eejax.cotrain.tensor.faces import (
    Face,
    Model,
    forward,
    init,
    loss_and_grad,
    place,
    shardings,
    spread,
    train_step,
)
from eejax.cotrain.tensor.layout import SCHEMES, Layout, Move, Plan, layout
from eejax.cotrain.tensor.linear import linear
from eejax.cotrain.tensor.mlp import mlp, mlp_init, mlp_specs
from eejax.cotrain.tensor.norm import layer_norm, layer_norm_init, layer_norm_specs
from eejax.cotrain.tensor.theory import Traffic, lower_bound
from eejax.cotrain.tensor.transformer import (
    Remat,
    Shape,
    layer,
    layer_init,
    layer_specs,
    stack,
    stack_init,
    stack_specs,
    transformer,
)
from eejax.cotrain.tensor.vit import patchify, vit

__all__ = [
    "SCHEMES",
    "Face",
    "Layout",
    "Model",
    "Move",
    "Plan",
    "Remat",
    "Shape",
    "Traffic",
    "attention",
    "attention_init",
    "attention_specs",
    "check",
    "conv",
    "conv_specs",
    "cross_entropy",
    "embed",
    "forward",
    "init",
    "label_spec",
    "layer",
    "layer_init",
    "layer_norm",
    "layer_norm_init",
    "layer_norm_specs",
    "layer_specs",
    "layout",
    "linear",
    "loss_and_grad",
    "lower_bound",
    "mlp",
    "mlp_init",
    "mlp_specs",
    "patchify",
    "place",
    "position_spec",
    "positions",
    "shardings",
    "spread",
    "stack",
    "stack_init",
    "stack_specs",
    "theory",
    "train_step",
    "transformer",
    "vit",
]
