"""Multilayer perceptrons with residual blocks as a hybrid wants them."""

import functools

import jax
from jax.sharding import PartitionSpec as P

from eejax.cotrain import tensor
from eejax.cotrain.hybrid.model import (
    Costs,
    Layered,
    add_traffic,
    classify,
    classify_traffic,
    project_traffic,
)
from eejax.cotrain.tensor import theory
from eejax.cotrain.tensor.mlp import dense_init
from eejax.cotrain.tensor.transformer import scan_layers
from eejax.cotrain.tensor.vit import project


def mlp_model(pixels: int, classes: int, hidden: int, intermediate: int, layers: int) -> Layered:
    """Makes a residual multilayer perceptron of flat images.

    It is no chain of dense layers: after a linear map of the pixels to ``hidden`` features each
    layer is ``x + w2 gelu(w1 norm(x) + b1) + b2`` with ``intermediate`` features inside, which is a
    transformer layer without attention; a norm and a linear head end it. Layers that keep the shape
    of their input are what a pipeline cuts, and two products with one nonlinearity in between are
    what tensor layouts split.

    Args:
      pixels: values of an image.
      classes: a multiple of what the layouts split, so a few may be unused.
      hidden: features between layers.
      intermediate: features inside of them.
      layers: number of layers.

    Returns:
      The model; a token is a whole image, and has a label.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016. Touvron et al., ResMLP:
      Feedforward Networks for Image Classification with Data-Efficient Training, 2022 (channel
      blocks).

    Example:
      >>> params = jax.eval_shape(mlp_model(64, 16, 32, 128, 4).init, jax.random.key(0))
      >>> params["embed"].shape, params["layers"]["mlp"]["w1"].shape
      ((64, 32), (4, 32, 128))
    """

    def init_layer(key):
        return {
            "norm": tensor.layer_norm_init(hidden),
            "mlp": tensor.mlp_init(key, hidden, intermediate),
        }

    def init(key):
        embed, body, head = jax.random.split(key, 3)
        return {
            "embed": dense_init(embed, pixels, hidden),
            "layers": jax.vmap(init_layer)(jax.random.split(body, layers)),
            "norm": tensor.layer_norm_init(hidden),
            "head": dense_init(head, hidden, classes),
        }

    def specs(layout):
        layer = {"norm": tensor.layer_norm_specs(layout), "mlp": tensor.mlp_specs(layout)}
        return {
            "embed": layout.w_down,
            "layers": jax.tree.map(lambda spec: P(None, *spec), layer),
            "norm": tensor.layer_norm_specs(layout),
            "head": layout.w_up,
        }

    def layer(layout, params, x):
        return x + tensor.mlp(layout, params["mlp"], tensor.layer_norm(layout, params["norm"], x))

    def layer_traffic(layout, sizes, tokens, remat):
        regather = remat != "none"
        return add_traffic(
            theory.layer_norm(layout, sizes, tokens, hidden),
            theory.mlp(layout, sizes, tokens, hidden, intermediate, regather=regather),
        )

    def products(layout):
        return (layout.up, hidden, intermediate), (layout.down, intermediate, hidden)

    costs = Costs(
        start=project_traffic(pixels, hidden),
        layer=layer_traffic,
        finish=classify_traffic(hidden, classes, 1),
        products=products,
        kept=(4 * hidden, 6 * intermediate, 4),
        flops=(2.0 * pixels * hidden, 4.0 * hidden * intermediate, 2.0 * hidden * classes),
    )
    return Layered(
        init=init,
        specs=specs,
        start=lambda layout, params, x: project(layout, params["embed"], x),
        stack=lambda layout, params, x, remat: scan_layers(
            functools.partial(layer, layout), params, x, remat
        ),
        finish=classify,
        layers=layers,
        hidden=hidden,
        classes=classes,
        seq=1,
        label_tokens=1,
        token=jax.ShapeDtypeStruct((pixels,), "float32"),
        sizes={"hidden": hidden, "intermediate": intermediate, "classes": classes,
               "pixels": pixels},
        costs=costs,
    )  # fmt: skip
