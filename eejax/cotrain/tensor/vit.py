"""Vision transformer: an encoder of image patches."""

import jax
from jax import lax

from eejax.cotrain.tensor.embed import position_spec, positions
from eejax.cotrain.tensor.faces import Model
from eejax.cotrain.tensor.layout import Layout
from eejax.cotrain.tensor.linear import gather, like, linear, reduce
from eejax.cotrain.tensor.mlp import dense_init
from eejax.cotrain.tensor.norm import layer_norm, layer_norm_init, layer_norm_specs
from eejax.cotrain.tensor.transformer import Remat, Shape, stack, stack_init, stack_specs


def vit(pixels: int, classes: int, shape: Shape, remat: Remat = "gathers") -> Model:
    """Makes a vision transformer that averages over patches and has no class token.

    Inputs are patches ``[images * seq, pixels]`` as `patchify` makes them, logits are
    ``[images, classes]``. The head is applied before the average, which is the same and leaves the
    logits split over devices.

    Args:
      pixels: values of a patch.
      classes: a multiple of what the layout splits, so a few may be unused.
      shape: sizes of the layers; ``seq`` is the number of patches of an image.
      remat: see `stack`.

    Returns:
      A model.

    References:
      Dosovitskiy et al., An Image Is Worth 16x16 Words, 2021. Beyer, Zhai and Kolesnikov, Better
      Plain ViT Baselines for ImageNet-1k, 2022.
    """

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "embed": dense_init(keys[0], pixels, shape.hidden),
            "position": 0.1 * jax.random.normal(keys[1], (shape.seq, shape.hidden)),
            "layers": stack_init(keys[2], shape),
            "norm": layer_norm_init(shape.hidden),
            "head": dense_init(keys[3], shape.hidden, classes),
        }

    def specs(layout):
        return {
            "embed": layout.w_down,
            "position": position_spec(layout),
            "layers": stack_specs(layout),
            "norm": layer_norm_specs(layout),
            "head": layout.w_up,
        }

    def logits(layout, params, patches):
        x = linear(layout.down, patches, params["embed"])
        x = x + positions(layout, params["position"], x)
        x = layer_norm(layout, params["norm"], stack(layout, params["layers"], x, shape, remat))
        y = linear(layout.up, x, params["head"])
        return y.reshape(-1, shape.seq, y.shape[1]).mean(1)

    return Model(
        init=init,
        specs=specs,
        input_spec=lambda layout: layout.inner,
        logits=logits,
        seq=shape.seq,
        sizes={**shape.sizes, "classes": classes, "pixels": pixels},
    )


def project(layout: Layout, w: jax.Array, data: jax.Array) -> jax.Array:
    """Multiplies data of which each device knows whole rows, as it knows the ids of an embedding.

    This is the product ``linear(layout.down, data, w)``, but data do not move: a device takes the
    columns that its block of the product needs. Runs inside `jax.shard_map`.

    Args:
      layout: where everything lies; ``w`` lies like ``w_down``.
      w: ``[pixels, hidden]``, a block.
      data: ``[tokens, pixels]``, its tokens as in ``layout.down.ids`` and its columns whole.

    Returns:
      ``[tokens, hidden]``, a block.
    """
    plan = layout.down
    w = gather(like(w, data), plan.gather_w)
    start = lax.axis_index(plan.partial) * w.shape[0] if plan.partial else 0
    return reduce(lax.dynamic_slice_in_dim(data, start, w.shape[0], 1) @ w, plan.reduce)


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """Cuts images into square patches.

    Args:
      images: ``[images, height, width, channels]``.
      patch: side of a patch, a divisor of height and width.

    Returns:
      ``[images * patches, patch * patch * channels]``, the patches of an image in reading order.

    Raises:
      ValueError: the patches do not cover the image.

    Example:
      >>> import numpy as np
      >>> patchify(np.arange(16).reshape(1, 4, 4, 1), 2)[0].tolist()
      [0, 1, 4, 5]
    """
    n, height, width, channels = images.shape
    if height % patch or width % patch:
        raise ValueError(f"patch must divide {height} and {width}, got {patch}")
    rows, columns = height // patch, width // patch
    x = images.reshape(n, rows, patch, columns, patch, channels).swapaxes(2, 3)
    return x.reshape(n * rows * columns, patch * patch * channels)
