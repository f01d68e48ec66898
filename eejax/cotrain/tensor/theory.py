"""What a layout must send and store, in closed form, and the least that anyone can send.

All counts are elements of one device, in bandwidth-optimal (ring) collectives; four bytes each in
float32. They are taken from the plans that the bodies run, so the compiled program sends this.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor.layout import Layout, Plan, split
from eejax.cotrain.tensor.transformer import Remat, Shape

PyTree = Any
Sizes = Mapping[str, int]
"""Mesh axes and their sizes, such as ``mesh.shape``."""


class Traffic(NamedTuple):
    """Elements that a device sends.

    Attributes:
      forward: in the forward pass.
      backward: in the backward pass, with what it gathers again.
    """

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Elements that a device sends in a training step."""
        return self.forward + self.backward


def linear(
    plan: Plan,
    sizes: Sizes,
    tokens: int,
    n_in: int,
    n_out: int,
    *,
    bias: bool = True,
    regather: bool = False,
    rereduce: bool = False,
    x_gradient: bool = True,
    x_moves: bool = True,
) -> Traffic:
    """Counts what `tensor.linear` sends.

    Args:
      plan: how the operands lie.
      sizes: mesh axes and their sizes.
      tokens: rows of the whole ``x``.
      n_in: columns of ``x``.
      n_out: columns of ``w``.
      bias: whether a bias is added.
      regather: whether the backward pass gathers the operands again.
      rereduce: whether it computes the result again.
      x_gradient: whether ``x`` has a gradient, as data have not.
      x_moves: False for the ids of an embedding, which each device knows.

    Returns:
      Forward and backward traffic.
    """
    x = tokens * n_in / _ways(plan.x, sizes)
    w = n_in * n_out / _ways(plan.w, sizes)
    y = tokens * n_out / _ways(plan.y, sizes)
    forward = backward = 0.0
    for operand, moves, gradient in (
        (x * x_moves, plan.gather_x, x_gradient),
        (w, plan.gather_w, True),
    ):
        for axes, _ in moves:
            n = _product(axes, sizes)
            operand *= n
            sent = (n - 1) / n * operand
            forward += sent
            backward += sent * (gradient + regather)
    for axes, dim in reversed(plan.reduce):
        n = _product(axes, sizes)
        scatters = dim is not None
        y *= n if scatters else 1
        sent = (n - 1) / n * y * (1 if scatters else 2)
        forward += sent
        backward += sent * (scatters + rereduce)
    # Where one operand is the same and the other is not, gradients are summed.
    varying = _used(plan.x) | _used(plan.w)
    if x_gradient and x_moves:
        backward += _all_reduce(varying - _used(plan.x), sizes) * x
    backward += _all_reduce(varying - _used(plan.w), sizes) * w
    return _sum(Traffic(forward, backward), _bias(plan, sizes, n_out * bias))


def mlp(
    layout: Layout, sizes: Sizes, tokens: int, hidden: int, intermediate: int, **options: bool
) -> Traffic:
    """Counts what `tensor.mlp` sends; options as for `linear`."""
    return _sum(
        linear(layout.up, sizes, tokens, hidden, intermediate, **options),
        linear(layout.down, sizes, tokens, intermediate, hidden, **options),
    )


def attention(
    layout: Layout, sizes: Sizes, tokens: int, hidden: int, width: int, kv_width: int, **options
) -> Traffic:
    """Counts what `tensor.attention` sends: the four projections, as heads are not split."""
    return _sum(
        linear(layout.up, sizes, tokens, hidden, width + 2 * kv_width, bias=False, **options),
        _bias(layout.up, sizes, width + kv_width),
        linear(layout.down, sizes, tokens, width, hidden, **options),
    )


def layer_norm(layout: Layout, sizes: Sizes, tokens: int, hidden: int) -> Traffic:
    """Counts what `tensor.layer_norm` sends: two moments a token, and gradients of parameters."""
    rows, columns = split(layout.act)
    moments = _all_reduce(columns, sizes) * 2 * tokens / _product(rows, sizes)
    parameters = 2 * hidden / _product(columns, sizes)
    return Traffic(moments, moments + _all_reduce(rows, sizes) * parameters)


def layer(
    layout: Layout, sizes: Sizes, tokens: int, shape: Shape, remat: Remat = "none"
) -> Traffic:
    """Counts what one transformer layer sends, with what it computes again as in `tensor.stack`."""
    h, kv_width = shape.hidden, shape.kv_heads * shape.head_dim
    again, gathers = remat == "full", {"regather": remat != "none"}
    norm = layer_norm(layout, sizes, tokens, h)
    norm = Traffic(norm.forward, norm.backward + norm.forward * again)
    return _sum(
        norm,
        attention(layout, sizes, tokens, h, h, kv_width, rereduce=again, **gathers),
        norm,
        linear(layout.up, sizes, tokens, h, shape.intermediate, rereduce=again, **gathers),
        # Nothing in the layer needs its own output again.
        linear(layout.down, sizes, tokens, shape.intermediate, h, **gathers),
    )


def cross_entropy(layout: Layout, sizes: Sizes, rows: int) -> Traffic:
    """Counts what `tensor.cross_entropy` sends: three numbers a row, and the mean."""
    over_rows, over_classes = split(layout.inner)
    numbers = 3 * rows / _product(over_rows, sizes)
    mean = 2 * _all_reduce(over_rows, sizes)
    return Traffic(_all_reduce(over_classes, sizes) * numbers + mean, 0.0)


def transformer(
    layout: Layout,
    sizes: Sizes,
    tokens: int,
    vocabulary: int,
    shape: Shape,
    remat: Remat = "gathers",
) -> Traffic:
    """Counts what a training step of `tensor.transformer` sends, from ids to gradients.

    Args:
      layout: where everything lies.
      sizes: mesh axes and their sizes.
      tokens: tokens of the whole batch.
      vocabulary: number of ids.
      shape: sizes of the layers.
      remat: as in `tensor.stack`.

    Returns:
      Forward and backward traffic.
    """
    embed = linear(layout.down, sizes, tokens, vocabulary, shape.hidden, bias=False, x_moves=False)
    return _sum(embed, _body(layout, sizes, tokens, vocabulary, tokens, shape, remat))


def vit(
    layout: Layout,
    sizes: Sizes,
    images: int,
    pixels: int,
    classes: int,
    shape: Shape,
    remat: Remat = "gathers",
) -> Traffic:
    """Counts what a training step of `tensor.vit` sends, from patches to gradients.

    Args:
      layout: where everything lies.
      sizes: mesh axes and their sizes.
      images: images of the whole batch.
      pixels: values of a patch.
      classes: number of classes.
      shape: sizes of the layers.
      remat: as in `tensor.stack`.

    Returns:
      Forward and backward traffic.
    """
    tokens = images * shape.seq
    embed = linear(layout.down, sizes, tokens, pixels, shape.hidden, bias=False, x_gradient=False)
    return _sum(embed, _body(layout, sizes, tokens, classes, images, shape, remat))


def _body(
    layout: Layout, sizes: Sizes, tokens: int, classes: int, labels: int, shape: Shape, remat: Remat
) -> Traffic:
    h, (rows, columns) = shape.hidden, split(layout.act)
    position = _all_reduce(rows, sizes) * shape.seq * h / _product(columns, sizes)
    return _sum(
        Traffic(0.0, position),
        *[layer(layout, sizes, tokens, shape, remat)] * shape.layers,
        layer_norm(layout, sizes, tokens, h),
        linear(layout.up, sizes, tokens, h, classes, bias=False),
        cross_entropy(layout, sizes, labels),
    )


def local_size(tree: PyTree, specs: PyTree, sizes: Sizes) -> int:
    """Counts the elements of a tree that a device stores.

    Args:
      tree: arrays or abstract arrays.
      specs: their partition specs.
      sizes: mesh axes and their sizes.

    Returns:
      The number of elements.
    """
    counts = jax.tree.map(lambda x, spec: math.prod(x.shape) // _ways(spec, sizes), tree, specs)
    return sum(jax.tree.leaves(counts))


def layer_input(layout: Layout, sizes: Sizes, tokens: int, hidden: int) -> int:
    """Counts the elements that a fully rematerialised layer keeps on a device: its input."""
    return tokens * hidden // _ways(layout.act, sizes)


def lower_bound(m: int, n: int, k: int, p: int) -> float:
    """Bounds from below what a device sends for a product of ``m x n`` and ``n x k`` on ``p``.

    It holds for any algorithm that starts and ends with one copy of the data spread evenly, however
    large the memory, and its constants are attained.

    Args:
      m: rows of the first matrix.
      n: its columns.
      k: columns of the second matrix.
      p: number of devices.

    Returns:
      Elements.

    References:
      Al Daas, Ballard, Grigori, Kumar and Rouse, Tight Memory-Independent Parallel Matrix
      Multiplication Communication Lower Bounds, 2022.

    Example:
      >>> lower_bound(1024, 128, 512, 1)
      0.0
    """
    a, b, c = sorted((m, n, k), reverse=True)
    if p <= a / b:
        touched = (a * b + a * c) / p + b * c
    elif p <= a * b / c**2:
        touched = 2 * math.sqrt(a * b * c * c / p) + a * b / p
    else:
        touched = 3 * (a * b * c / p) ** (2 / 3)
    return touched - (a * b + a * c + b * c) / p


def _bias(plan: Plan, sizes: Sizes, n_out: int) -> Traffic:
    same = _used(plan.y) - _used(plan.b)
    return Traffic(0.0, _all_reduce(same, sizes) * n_out / _ways(plan.b, sizes))


def _product(axes: Any, sizes: Sizes) -> int:
    return math.prod(sizes[a] for a in axes)


def _all_reduce(axes: Any, sizes: Sizes) -> float:
    n = _product(axes, sizes)
    return 2 * (n - 1) / n


def _used(spec: P) -> set[str]:
    entries = [(e,) if isinstance(e, str) else e or () for e in spec]
    return {axis for axes in entries for axis in axes}


def _ways(spec: P, sizes: Sizes) -> int:
    return _product(_used(spec), sizes)


def _sum(*parts: Traffic) -> Traffic:
    return Traffic(sum(p.forward for p in parts), sum(p.backward for p in parts))
