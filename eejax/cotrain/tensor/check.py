"""Sizes and meshes that a layout cannot serve, refused early and by name."""

import itertools
import math
from collections.abc import Mapping

from jax.sharding import Mesh

from eejax.cotrain.tensor.layout import Layout, split
from eejax.names import suggest


def check(layout: Layout, mesh: Mesh | Mapping[str, int], **sizes: int) -> None:
    """Refuses early, and by name, what would fail late in the compiler.

    Args:
      layout: the layout.
      mesh: the mesh, or its axes with their sizes.
      **sizes: any of ``tokens`` (of the whole batch), ``sequences`` (attention keeps each on the
        devices that share its heads), ``hidden``, ``intermediate``, ``heads``, ``kv_heads``,
        ``width`` (heads times their size), ``vocabulary``, ``classes``, ``pixels`` (of a patch).

    Raises:
      ValueError: the mesh lacks an axis, or a size cannot be split evenly; says which axes split it
        and the nearest sizes that they can split.

    Example:
      >>> from eejax.cotrain.tensor import layout
      >>> check(layout("1d", ("model",)), {"model": 4}, heads=6)
      Traceback (most recent call last):
      ValueError: heads=6 cannot be split over model=4; the nearest that can: 4 or 8
    """
    shape = dict(mesh if isinstance(mesh, Mapping) else mesh.shape)
    (act_tokens, act_features), (inner_tokens, inner_features) = map(
        split, (layout.act, layout.inner)
    )
    (up_in, up_out), (down_in, down_out) = map(split, (layout.w_up, layout.w_down))
    ways = {
        "tokens": (act_tokens, inner_tokens),
        "sequences": (inner_tokens,),
        "hidden": (act_features, up_in, down_out),
        "heads": (inner_features,),
        "kv_heads": (inner_features,),
    }
    inside = ("intermediate", "width", "vocabulary", "classes", "pixels")
    ways |= dict.fromkeys(inside, (inner_features, up_out, down_in))
    for axis in itertools.chain(layout.axes, act_tokens):
        if axis not in shape:
            raise ValueError(
                f"axis {axis!r} is not in the mesh, whose axes are {shape}{suggest(axis, shape)}"
            )
    for name, size in sizes.items():
        if name not in ways:
            raise ValueError(f"size must be one of {tuple(ways)}, got {name!r}")
        step = math.lcm(*(math.prod(shape[a] for a in axes) for axes in ways[name]))
        if size < 1 or size % step:
            blame = max(ways[name], key=lambda axes: size % math.prod(shape[a] for a in axes))
            over = " x ".join(f"{axis}={shape[axis]}" for axis in blame)
            below, above = size // step * step, (size // step + 1) * step
            near = f"{below} or {above}" if below > 0 else above
            raise ValueError(
                f"{name}={size} cannot be split over {over}; the nearest that can: {near}"
            )
