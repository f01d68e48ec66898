"""Transformer layers, their stack under `jax.lax.scan`, and encoders and decoders of text."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor.attention import attention, attention_init, attention_specs
from eejax.cotrain.tensor.embed import embed, position_spec, positions
from eejax.cotrain.tensor.faces import Model
from eejax.cotrain.tensor.layout import Layout
from eejax.cotrain.tensor.linear import linear
from eejax.cotrain.tensor.mlp import dense_init, mlp, mlp_init, mlp_specs
from eejax.cotrain.tensor.norm import layer_norm, layer_norm_init, layer_norm_specs

PyTree = Any
Remat = Literal["none", "gathers", "full"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a stack of transformer layers.

    Attributes:
      hidden: features between blocks.
      intermediate: features inside the perceptron.
      heads: heads of queries; they have ``hidden // heads`` features each.
      kv_heads: heads of keys and values, a divisor of ``heads``.
      seq: tokens of a sequence.
      layers: number of layers.
      causal: whether a token sees only itself and those before it: a decoder, else an encoder.
    """

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    seq: int
    layers: int
    causal: bool

    def __post_init__(self):
        """Checks that heads divide what they split."""
        for field, whole, name in (
            ("heads", self.hidden, "hidden"),
            ("kv_heads", self.heads, "heads"),
        ):
            if whole % getattr(self, field):
                allowed = [n for n in range(1, whole + 1) if whole % n == 0]
                raise ValueError(
                    f"{field} must divide {name}={whole}: one of {allowed}, "
                    f"got {getattr(self, field)}"
                )

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.hidden // self.heads

    @property
    def sizes(self) -> dict[str, int]:
        """What a layout has to split, for `check`."""
        return {
            "hidden": self.hidden,
            "intermediate": self.intermediate,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "width": self.hidden,
        }


def layer(layout: Layout, params: dict, x: jax.Array, shape: Shape) -> jax.Array:
    """Applies one layer that normalises before its blocks (pre-LN) to ``[tokens, hidden]``."""
    y = layer_norm(layout, params["norm1"], x)
    x = x + attention(
        layout, params["attention"], y, seq=shape.seq, head_dim=shape.head_dim, causal=shape.causal
    )
    return x + mlp(layout, params["mlp"], layer_norm(layout, params["norm2"], x))


def layer_init(key: jax.Array, shape: Shape) -> dict:
    """Draws whole parameters of a layer."""
    first, second = jax.random.split(key)
    return {
        "norm1": layer_norm_init(shape.hidden),
        "attention": attention_init(
            first, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim
        ),
        "norm2": layer_norm_init(shape.hidden),
        "mlp": mlp_init(second, shape.hidden, shape.intermediate),
    }


def layer_specs(layout: Layout) -> dict:
    """Gives the partition specs of the parameters of a layer."""
    return {
        "norm1": layer_norm_specs(layout),
        "attention": attention_specs(layout),
        "norm2": layer_norm_specs(layout),
        "mlp": mlp_specs(layout),
    }


def stack(
    layout: Layout, params: dict, x: jax.Array, shape: Shape, remat: Remat = "gathers"
) -> jax.Array:
    """Applies all layers, compiled once.

    Args:
      layout: where everything lies.
      params: those of a layer with a leading axis ``[layers, ...]``; blocks.
      x: ``[tokens, hidden]``, a block.
      shape: sizes.
      remat: what the backward pass computes again. ``"none"`` keeps all, also gathered operands,
        which are as large as on one device. ``"gathers"`` gathers them again. ``"full"`` keeps only
        the input of each layer and runs it again.

    Returns:
      ``[tokens, hidden]``, a block.

    Raises:
      ValueError: the policy is unknown.
    """
    return scan_layers(functools.partial(layer, layout, shape=shape), params, x, remat)


def scan_layers(body: Callable, params: PyTree, x: jax.Array, remat: Remat) -> jax.Array:
    """Applies equal layers of any kind, compiled once.

    Args:
      body: ``(params of a layer, x) -> x``, blocks.
      params: those of a layer with a leading axis ``[layers, ...]``.
      x: input of the first layer.
      remat: as for `stack`.

    Returns:
      Output of the last layer.

    Raises:
      ValueError: the policy is unknown.
    """
    if remat not in _POLICIES:
        raise ValueError(f"remat must be one of {tuple(_POLICIES)}, got {remat!r}")
    if remat != "none":
        # The scan already keeps XLA from merging both computations.
        body = jax.checkpoint(body, policy=_POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(lambda x, p: (body(p, x), None), x, params)[0]


# A gathered operand must be dropped with what is derived from it alone, by primitive: policies by
# name keep the gather's own result, which has no name.
_DROPPED = {"all_gather", "concatenate", "pcast", "pvary"}
_POLICIES = {
    "none": None,
    "gathers": lambda primitive, *_, **__: primitive.name not in _DROPPED,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def stack_init(key: jax.Array, shape: Shape) -> dict:
    """Draws whole parameters ``[layers, ...]``."""
    return jax.vmap(lambda k: layer_init(k, shape))(jax.random.split(key, shape.layers))


def stack_specs(layout: Layout) -> dict:
    """Gives the partition specs of stacked parameters; every device has its block of each layer."""
    return jax.tree.map(lambda spec: P(None, *spec), layer_specs(layout))


def transformer(vocabulary: int, shape: Shape, remat: Remat = "gathers") -> Model:
    """Makes a model of text: embedding, learned positions, layers, a norm and a linear head.

    Inputs are ids ``[tokens]`` of whole sequences one after the other, logits are
    ``[tokens, vocabulary]``. As a decoder its labels are the next ids; as an encoder those of the
    masked tokens, and -1 elsewhere.

    Args:
      vocabulary: number of ids; a multiple of what the layout splits, so a few may be unused.
      shape: sizes of the layers.
      remat: see `stack`.

    Returns:
      A model.

    References:
      Vaswani et al., Attention Is All You Need, 2017.

    Example:
      >>> shape = Shape(16, 64, heads=4, kv_heads=2, seq=8, layers=2, causal=True)
      >>> model = transformer(256, shape)
      >>> sorted(jax.eval_shape(model.init, jax.random.key(0)))
      ['embed', 'head', 'layers', 'norm', 'position']
    """

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "embed": jax.random.normal(keys[0], (vocabulary, shape.hidden)),
            "position": 0.1 * jax.random.normal(keys[1], (shape.seq, shape.hidden)),
            "layers": stack_init(keys[2], shape),
            "norm": layer_norm_init(shape.hidden),
            "head": dense_init(keys[3], shape.hidden, vocabulary),
        }

    def specs(layout):
        return {
            "embed": layout.w_down,
            "position": position_spec(layout),
            "layers": stack_specs(layout),
            "norm": layer_norm_specs(layout),
            "head": layout.w_up,
        }

    def logits(layout, params, ids):
        x = embed(layout, params["embed"], ids)
        x = x + positions(layout, params["position"], x)
        x = layer_norm(layout, params["norm"], stack(layout, params["layers"], x, shape, remat))
        return linear(layout.up, x, params["head"])

    return Model(
        init=init,
        specs=specs,
        input_spec=lambda layout: layout.down.ids,
        logits=logits,
        seq=shape.seq,
        sizes={**shape.sizes, "vocabulary": vocabulary},
    )
