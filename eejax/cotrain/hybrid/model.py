"""What a hybrid knows of a model: equal layers between two ends, and what they cost."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from eejax.cotrain import tensor
from eejax.cotrain.hybrid.hybrid import Hybrid
from eejax.cotrain.tensor import theory

PyTree = Any

FIRST, LAST = ("embed", "position"), ("norm", "head")
"""Names of the parameters before and behind the layers; a model may lack some."""


class Costs(NamedTuple):
    """What the parts of a model send, compute and keep, for `traffic`, `plan` and `memory`.

    Attributes:
      start: ``(layout, sizes, tokens) ->`` `tensor.Traffic` of what comes before the layers.
      layer: ``(layout, sizes, tokens, remat) ->`` that of one layer.
      finish: ``(layout, sizes, tokens) ->`` that of what comes behind them, with the loss.
      products: ``(layout) -> (plan, in, out)`` of each product with weights in a layer.
      kept: numbers a token that the forward of a layer leaves for its backward: those that lie like
        activations between blocks, those that lie like activations inside a block, and those that
        are only split like the tokens between blocks.
      flops: FLOP of a token forward: of the start, of one layer, and of the finish.
    """

    start: Callable[..., theory.Traffic]
    layer: Callable[..., theory.Traffic]
    finish: Callable[..., theory.Traffic]
    products: Callable[[tensor.Layout], tuple[tuple[tensor.Plan, int, int], ...]]
    kept: tuple[float, float, float]
    flops: tuple[float, float, float]


class Layered(NamedTuple):
    """A classifier that a hybrid can spread: a start, equal layers, and a finish.

    Its inputs are ``[tokens, ...]``: ids, patches or whole images. Parameters are one form for all
    hybrids, that of checkpoints: ``layers`` with a leading axis ``[layers, ...]``, those in `FIRST`
    and those in `LAST`. The functions see the blocks of one device, inside `jax.shard_map`.

    Attributes:
      init: ``(key) -> params``, whole.
      specs: ``(layout) ->`` partition specs of ``params``.
      start: ``(layout, params, inputs) -> [tokens, hidden]``; tokens of ``inputs`` lie as in
        ``layout.down.ids``.
      stack: ``(layout, params["layers"], x, remat) -> x``, any number of layers.
      finish: ``(layout, params, x) -> [labels, classes]``, logits that lie like activations inside
        a block.
      layers: number of layers.
      hidden: features between layers.
      classes: columns of the logits.
      seq: tokens that belong together.
      label_tokens: tokens that share a label.
      token: form of a token of the inputs.
      sizes: what a layout has to split, for `tensor.check`.
      costs: what the parts cost.
    """

    init: Callable[[jax.Array], PyTree]
    specs: Callable[[tensor.Layout], PyTree]
    start: Callable[[tensor.Layout, PyTree, jax.Array], jax.Array]
    stack: Callable[[tensor.Layout, PyTree, jax.Array, tensor.Remat], jax.Array]
    finish: Callable[[tensor.Layout, PyTree, jax.Array], jax.Array]
    layers: int
    hidden: int
    classes: int
    seq: int
    label_tokens: int
    token: jax.ShapeDtypeStruct
    sizes: dict[str, int]
    costs: Costs


def predict(model: Layered, params: PyTree, inputs: jax.Array) -> jax.Array:
    """Computes logits on one device, from parameters in the form of checkpoints.

    Args:
      model: the model.
      params: whole, such as from `unpack`.
      inputs: ``[tokens, ...]``.

    Returns:
      ``[labels, classes]``.
    """
    layout = tensor.layout("serial")
    x = model.stack(layout, params["layers"], model.start(layout, params, inputs), "none")
    return model.finish(layout, params, x)


def classify(layout: tensor.Layout, params: PyTree, x: jax.Array) -> jax.Array:
    """Finishes with a norm and a linear head, which give logits of every token."""
    return tensor.linear(layout.up, tensor.layer_norm(layout, params["norm"], x), params["head"])


def classify_traffic(hidden: int, classes: int, label_tokens: int) -> Callable[..., theory.Traffic]:
    """Makes ``Costs.finish`` of `classify`.

    Args:
      hidden: features between layers.
      classes: columns of the logits.
      label_tokens: tokens that share a label.

    Returns:
      ``(layout, sizes, tokens) ->`` what norm, head and loss send.
    """

    def traffic(layout, sizes, tokens):
        return add_traffic(
            theory.layer_norm(layout, sizes, tokens, hidden),
            theory.linear(layout.up, sizes, tokens, hidden, classes, bias=False),
            theory.cross_entropy(layout, sizes, tokens // label_tokens),
        )

    return traffic


def project_traffic(pixels: int, hidden: int) -> Callable[..., theory.Traffic]:
    """Makes ``Costs.start`` of a product with what each device knows: one-hot ids, or pixels."""

    def traffic(layout, sizes, tokens):
        return theory.linear(layout.down, sizes, tokens, pixels, hidden, bias=False, x_moves=False)

    return traffic


def add_traffic(*parts: theory.Traffic) -> theory.Traffic:
    """Adds up what parts of a model send."""
    return theory.Traffic(sum(p.forward for p in parts), sum(p.backward for p in parts))


def batch_form(model: Layered, hybrid: Hybrid, tokens: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Gives the form of a batch, to compile a step without data.

    Args:
      model: the model.
      hybrid: the layout.
      tokens: tokens of the whole batch.

    Returns:
      ``inputs [microbatches, tokens, ...]`` and ``labels [microbatches, labels]``.
    """
    m, each = hybrid.microbatches, tokens // hybrid.microbatches
    return {
        "inputs": jax.ShapeDtypeStruct((m, each, *model.token.shape), model.token.dtype),
        "labels": jax.ShapeDtypeStruct((m, each // model.label_tokens), "int32"),
    }


def check_hybrid(hybrid: Hybrid, model: Layered, tokens: int | None = None) -> None:
    """Refuses sizes that a hybrid cannot split.

    Args:
      hybrid: the layout.
      model: the model.
      tokens: tokens of the whole batch; not checked if None.

    Raises:
      ValueError: names what does not divide, and by what.

    Example:
      >>> from eejax.cotrain.hybrid import text_model
      >>> shape = tensor.Shape(16, 32, 4, 4, seq=8, layers=3, causal=True)
      >>> check_hybrid(Hybrid(stages=2), text_model(32, shape), 64)
      Traceback (most recent call last):
      ValueError: layers=3 cannot be cut into stages x chunks = 2 x 1 equal parts
    """
    if model.layers % (hybrid.stages * hybrid.chunks):
        raise ValueError(
            f"layers={model.layers} cannot be cut into stages x chunks = "
            f"{hybrid.stages} x {hybrid.chunks} equal parts"
        )
    tensor.check(hybrid.layout, hybrid.sizes, **model.sizes)
    if tokens is None:
        return
    sequences, parts = tokens // model.seq, hybrid.data * hybrid.microbatches
    if tokens % model.seq or sequences % parts or not tokens:
        raise ValueError(
            f"tokens={tokens} must be sequences of seq={model.seq} that data x microbatches = "
            f"{hybrid.data} x {hybrid.microbatches} divide"
        )
    sizes = {"tokens": tokens // parts, "sequences": sequences // parts}
    tensor.check(hybrid.layout, hybrid.sizes, **sizes)
