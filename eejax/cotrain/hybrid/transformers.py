"""Transformers of text and of images as a hybrid wants them."""

from collections.abc import Callable

import jax

from eejax.cotrain import tensor
from eejax.cotrain.hybrid.model import (
    Costs,
    Layered,
    classify,
    classify_traffic,
    project_traffic,
)
from eejax.cotrain.tensor import theory
from eejax.cotrain.tensor.vit import project


def text_model(vocabulary: int, shape: tensor.Shape) -> Layered:
    """Describes `tensor.transformer`, an encoder or decoder of text; a token is an id.

    Args:
      vocabulary: number of ids.
      shape: sizes of the layers.

    Returns:
      The model; its parameters are those of `tensor.transformer`, and each token has a label.

    References:
      Vaswani et al., Attention Is All You Need, 2017.

    Example:
      >>> model = text_model(256, tensor.Shape(16, 64, 4, 2, seq=8, layers=2, causal=True))
      >>> sorted(jax.eval_shape(model.init, jax.random.key(0)))
      ['embed', 'head', 'layers', 'norm', 'position']
    """

    def start(layout, params, ids):
        y = tensor.embed(layout, params["embed"], ids)
        return y + tensor.positions(layout, params["position"], y)

    whole, token = tensor.transformer(vocabulary, shape), jax.ShapeDtypeStruct((), "int32")
    return _layered(whole, shape, start, classify, token, vocabulary, 0.0, vocabulary, 1)


def vit_model(pixels: int, classes: int, shape: tensor.Shape) -> Layered:
    """Describes `tensor.vit`, a transformer of images; a token is a patch as from `patchify`.

    Args:
      pixels: values of a patch.
      classes: a multiple of what the layouts split, so a few may be unused.
      shape: sizes of the layers; ``seq`` is the number of patches of an image.

    Returns:
      The model; its parameters are those of `tensor.vit`, and each image has a label.

    References:
      Dosovitskiy et al., An Image Is Worth 16x16 Words, 2021.

    Example:
      >>> model = vit_model(16, 10, tensor.Shape(8, 16, 2, 2, seq=4, layers=2, causal=False))
      >>> model.token.shape, model.label_tokens
      ((16,), 4)
    """

    def start(layout, params, patches):
        y = project(layout, params["embed"], patches)
        return y + tensor.positions(layout, params["position"], y)

    def finish(layout, params, x):
        y = classify(layout, params, x)
        return y.reshape(-1, shape.seq, y.shape[1]).mean(1)

    whole, token = tensor.vit(pixels, classes, shape), jax.ShapeDtypeStruct((pixels,), "float32")
    flops = 2.0 * pixels * shape.hidden
    return _layered(whole, shape, start, finish, token, pixels, flops, classes, shape.seq)


def _layered(
    whole: tensor.Model,
    shape: tensor.Shape,
    start: Callable,
    finish: Callable,
    token: jax.ShapeDtypeStruct,
    pixels: int,
    start_flops: float,
    classes: int,
    label_tokens: int,
) -> Layered:
    h, f, kv = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_dim

    def products(layout):
        up, down = layout.up, layout.down
        return (up, h, h + 2 * kv), (down, h, h), (up, h, f), (down, f, h)

    def layer(layout, sizes, tokens, remat):
        return theory.layer(layout, sizes, tokens, shape, remat)

    # Scores and their products with values, of masked tokens too.
    layer_flops = 2.0 * h * (2 * h + 2 * kv + 2 * f) + 4 * shape.seq * h
    costs = Costs(
        start=project_traffic(pixels, h),
        layer=layer,
        finish=classify_traffic(h, classes, label_tokens),
        products=products,
        # 8 arrays like the input; queries, keys, values and their mean, the scores before and after
        # softmax, and 6 arrays in the perceptron; 8 numbers a token.
        kept=(8 * h, 2 * h + 2 * kv + 2 * shape.heads * shape.seq + 6 * f, 8),
        flops=(start_flops, layer_flops, 2.0 * h * classes),
    )
    return Layered(
        init=whole.init,
        specs=whole.specs,
        start=start,
        stack=lambda layout, params, x, remat: tensor.stack(layout, params, x, shape, remat),
        finish=finish,
        layers=shape.layers,
        hidden=h,
        classes=classes,
        seq=shape.seq,
        label_tokens=label_tokens,
        token=token,
        sizes=whole.sizes,
        costs=costs,
    )
