"""Where tensors lie: one frozen `Layout` a scheme, all of it partition specs over mesh axes."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from eejax.names import suggest

Axes = tuple[str, ...]

# Every scheme by its axes, one letter each, and where four matrices lie: activations outside of a
# block and inside of it as tokens/features, the weights that lead in and out of it as in/out.
_SCHEMES = {
    # name     axes   act     inner   w_up    w_down
    "serial": ("", "-/-", "-/-", "-/-", "-/-"),
    "dp": ("d", "d/-", "d/-", "-/-", "-/-"),
    "fsdp": ("d", "d/-", "d/-", "d/-", "-/d"),
    "1d": ("t", "-/-", "-/t", "-/t", "t/-"),
    "1d_sp": ("t", "t/-", "-/t", "-/t", "t/-"),
    "2d": ("rc", "r/c", "r/c", "r/c", "r/c"),
    "2d_opt": ("rc", "r/c", "r/c", "r/c", "c/r"),
    "2.5d": ("drc", "dr/c", "dr/c", "r/c", "r/c"),
    "3d": ("ijl", "ij/l", "il/j", "li/j", "ji/l"),
}

SCHEMES = tuple(_SCHEMES)
"""Names for `layout`."""


class Move(NamedTuple):
    """A collective along one dimension of a matrix.

    Attributes:
      axes: mesh axes over which it runs.
      dim: 0 and -1 are tokens and features of activations, -2 and -1 in and out of weights; None
        sums without scattering.
    """

    axes: Axes
    dim: int | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """One matrix product ``y = x @ w`` over a mesh; what has to move follows from three specs.

    Mesh axes that split the contracted dimension of both operands stay, and the product is a
    partial sum over them; the others are gathered. Tokens of ``x`` and columns of ``w`` are
    gathered over the axes that do not split them in ``y``. The partial sums are scattered over the
    axes that are new in ``y``, and summed over the rest.

    Attributes:
      x: spec of ``[tokens, in]``.
      w: spec of ``[in, out]``.
      y: spec of ``[tokens, out]``.
      mesh: None inside `jax.shard_map`. Else the product sees whole arrays, nothing is moved by
        hand, and the result is pinned to ``y`` on this mesh.

    Example:
      >>> plan = layout("2d_opt", ("row", "col")).down
      >>> plan.gather_w, plan.reduce
      ((Move(axes=('row',), dim=-1),), (Move(axes=('col',), dim=-1),))
    """

    x: P
    w: P
    y: P
    mesh: Mesh | None = None

    def __post_init__(self):
        """Checks that the specs fit together."""
        (tokens, _), (_, out), (y_tokens, y_out) = map(split, (self.x, self.w, self.y))
        new = y_tokens[len(common(tokens, y_tokens)) :] + y_out[len(common(out, y_out)) :]
        kept = common(tokens, y_tokens) + common(out, y_out)
        if set(new) - set(self.partial) or set(kept) & set(self.partial):
            raise ValueError(
                f"no product of x {self.x} and w {self.w} lies like y {self.y}: new axes of y must "
                f"split the contracted dimension of both x and w, which {self.partial or 'none'} do"
            )

    @property
    def b(self) -> P:
        """Spec of the bias ``[out]``."""
        return P(self.y[1])

    @property
    def partial(self) -> Axes:
        """Axes over which the product of the local blocks is a partial sum."""
        return common(split(self.x)[1], split(self.w)[0])

    @property
    def gather_x(self) -> tuple[Move, ...]:
        """All-gathers of ``x`` before the product."""
        (tokens, k), (y_tokens, _) = split(self.x), split(self.y)
        return self._moves(
            (tokens[len(common(tokens, y_tokens)) :], 0), (k[len(self.partial) :], -1)
        )

    @property
    def gather_w(self) -> tuple[Move, ...]:
        """All-gathers of ``w`` before the product."""
        (k, out), (_, y_out) = split(self.w), split(self.y)
        return self._moves((k[len(self.partial) :], -2), (out[len(common(out, y_out)) :], -1))

    @property
    def reduce(self) -> tuple[Move, ...]:
        """Reduce-scatters and all-reduces of ``y`` after the product."""
        (tokens, _), (_, out), (y_tokens, y_out) = map(split, (self.x, self.w, self.y))
        to_tokens = y_tokens[len(common(tokens, y_tokens)) :]
        to_out = y_out[len(common(out, y_out)) :]
        rest = tuple(a for a in self.partial if a not in to_tokens + to_out)
        return self._moves((to_tokens, 0), (to_out, -1), (rest, None))

    @property
    def ids(self) -> P:
        """Spec of ``[tokens]`` as they are when the local product is taken."""
        return P(entry(common(split(self.x)[0], split(self.y)[0])))

    def _moves(self, *moves: tuple[Axes, int | None]) -> tuple[Move, ...]:
        return () if self.mesh else tuple(Move(*move) for move in moves if move[0])


@dataclasses.dataclass(frozen=True)
class Layout:
    """A scheme of tensor parallelism as partition specs; bodies of models read nothing else.

    Attributes:
      name: the scheme.
      axes: mesh axes over which tensors are split, without those of the batch.
      act: spec of activations between blocks, ``[tokens, hidden]``.
      inner: spec of activations inside a block, ``[tokens, intermediate or heads]``.
      w_up: spec of weights that lead into a block, ``[hidden, intermediate]``.
      w_down: spec of weights that lead out of it, ``[intermediate, hidden]``.
      mesh: see `Plan`.
    """

    name: str
    axes: Axes
    act: P
    inner: P
    w_up: P
    w_down: P
    mesh: Mesh | None = None

    @property
    def up(self) -> Plan:
        """The product that leads into a block."""
        return Plan(self.act, self.w_up, self.inner, self.mesh)

    @property
    def down(self) -> Plan:
        """The product that leads out of a block."""
        return Plan(self.inner, self.w_down, self.act, self.mesh)

    @property
    def features(self) -> Axes:
        """Axes that split the features between blocks, for sums by hand."""
        return () if self.mesh else split(self.act)[1]

    @property
    def inner_features(self) -> Axes:
        """Axes that split the features inside a block, for sums by hand."""
        return () if self.mesh else split(self.inner)[1]

    @property
    def tokens(self) -> Axes:
        """Axes that split the tokens between blocks, for sums by hand."""
        return () if self.mesh else split(self.act)[0]

    @property
    def inner_tokens(self) -> Axes:
        """Axes that split the tokens inside a block, for sums by hand."""
        return () if self.mesh else split(self.inner)[0]

    def on(self, mesh: Mesh) -> "Layout":
        """Gives the layout for bodies that see whole arrays, whose collectives XLA inserts."""
        return dataclasses.replace(self, mesh=mesh)


def layout(scheme: str, axes: Sequence[str] | None = None, batch: Sequence[str] = ()) -> Layout:
    """Makes the layout of a scheme over named mesh axes.

    =========  ==================  ====================================================
    scheme     axes                what moves
    =========  ==================  ====================================================
    serial     none                nothing: one device
    dp         data                gradients
    fsdp       data                weights, gathered where they are used (ZeRO-3)
    1d         model               activations, summed (Megatron-LM)
    1d_sp      model               the same with tokens split between blocks
    2d         row, col            both operands, gathered (SUMMA; Optimus)
    2d_opt     row, col            not the largest operand: inner activations stay
    2.5d       depth, row, col     as 2d, on copies of the weights (Tesseract)
    3d         i, j, l             both operands and the result
    =========  ==================  ====================================================

    ``2d_opt`` with one column is ``fsdp`` and with one row ``1d_sp``. Its best number of rows is
    near ``sqrt(devices * tokens / (3 * hidden))`` for a transformer layer.

    Args:
      scheme: one of the names above.
      axes: mesh axes, as many as in the table; None takes the names of the table's letters:
        ``d``, ``t``, ``r``, ``c``, ``i``, ``j``, ``l``.
      batch: further mesh axes that split the tokens, outermost first: data parallelism around.

    Returns:
      The layout.

    Raises:
      ValueError: the scheme is unknown (names the nearest), or there are too many, too few or
        repeated axes.

    References:
      Shoeybi et al., Megatron-LM, 2019. Korthikanti et al., Reducing Activation Recomputation in
      Large Transformer Models, 2022. Xu et al., An Efficient 2D Method for Training Super-Large
      Deep Learning Models (Optimus), 2021. Wang et al., Tesseract: Parallelize the Tensor
      Parallelism Efficiently, 2021. Bian et al., Maximizing Parallelism in Distributed Training
      for Huge Neural Networks (3-D), 2021.

    Example:
      >>> lo = layout("3d", ("x", "y", "z"))
      >>> tuple(lo.act), tuple(lo.w_up)
      ((('x', 'y'), 'z'), (('z', 'x'), 'y'))
    """
    if scheme not in _SCHEMES:
        hint = suggest(str(scheme), SCHEMES)
        raise ValueError(f"scheme must be one of {SCHEMES}, got {scheme!r}{hint}")
    letters, *specs = _SCHEMES[scheme]
    axes, batch = tuple(letters if axes is None else axes), tuple(batch)
    if len(axes) != len(letters):
        raise ValueError(f"scheme {scheme!r} needs {len(letters)} axes, got axes={axes}")
    if len({*axes, *batch}) != len(axes + batch):
        raise ValueError(f"axes must differ from each other, got axes={axes} and batch={batch}")
    names = dict(zip(letters, axes))

    def spec(text: str, prefix: Axes = ()) -> P:
        rows, columns = (tuple(names[a] for a in part if a != "-") for part in text.split("/"))
        return P(entry(prefix + rows), entry(columns))

    act, inner, w_up, w_down = specs
    return Layout(scheme, axes, spec(act, batch), spec(inner, batch), spec(w_up), spec(w_down))


def split(spec: P) -> tuple[Axes, Axes]:
    """Gives the axes that split the rows and the columns of a matrix."""
    rows, columns = (() if e is None else (e,) if isinstance(e, str) else tuple(e) for e in spec)
    return rows, columns


def entry(axes: Axes) -> Any:
    """Gives the entry of a partition spec for any number of axes."""
    return None if not axes else axes[0] if len(axes) == 1 else axes


def common(a: Axes, b: Axes) -> Axes:
    """Gives the common beginning of two tuples of axes."""
    return tuple(x for x, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


def pin(x: Any, spec: P, mesh: Mesh | None) -> Any:
    """Tells XLA how an array lies, if there is a mesh; middle dimensions of images are whole."""
    if mesh is None:
        return x
    whole = P(spec[0], *(None,) * (x.ndim - 2), *spec[1:])
    return with_sharding_constraint(x, NamedSharding(mesh, whole))
