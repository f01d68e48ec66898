"""How a model is spread over devices in three ways at once, as one frozen config."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh

from eejax.cotrain import pipeline, tensor
from eejax.names import suggest
from eejax.tiers import make_mesh

DATA, STAGE, TENSOR = "data", "stage", "tensor"

TIERS = {"cloud": (STAGE,), "edge": (DATA,), "end": (TENSOR,)}
"""Which mesh axes cross the links of which tier, slowest first; ``"tensor"`` is the whole grid."""

# PipeDream never flushes, so it equals no step on one device.
_SCHEDULES = tuple(name for name in pipeline.SCHEDULES if name != "pipedream")


@dataclasses.dataclass(frozen=True)
class Hybrid:
    """How a model is spread: ``data`` copies of a pipeline of tensor-parallel stages.

    Attributes:
      data: copies of the pipeline, each with its share of every micro-batch.
      stages: S, parts into which the layers are cut.
      scheme: tensor parallelism of a stage, one of `tensor.SCHEMES`.
      grid: size of each axis of the scheme.
      schedule: ``"gpipe"``, ``"one_f_one_b"``, ``"fused"`` or ``"interleaved"``.
      chunks: v, parts of the model that a device holds; above 1 only when interleaved.
      microbatches: M.

    Raises:
      ValueError: a field is wrong; names it, and the nearest name when one is misspelt.

    References:
      Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
      Megatron-LM, 2021.

    Example:
      >>> hybrid = Hybrid(data=2, stages=2, scheme="1d_sp", grid=(2,), microbatches=4)
      >>> hybrid.devices, hybrid.sizes
      (8, {'data': 2, 'stage': 2, 't': 2})
    """

    data: int = 1
    stages: int = 1
    scheme: str = "serial"
    grid: tuple[int, ...] = ()
    schedule: str = "fused"
    chunks: int = 1
    microbatches: int = 1

    def __post_init__(self):
        """Checks every field."""
        object.__setattr__(self, "grid", tuple(self.grid))
        axes = tensor.layout(self.scheme).axes
        if len(axes) != len(self.grid):
            raise ValueError(
                f"grid must have {len(axes)} sizes for the axes {axes} of scheme {self.scheme!r}, "
                f"got {self.grid}"
            )
        numbers = [(f"grid[{i}]", n) for i, n in enumerate(self.grid)]
        numbers += [(f, getattr(self, f)) for f in ("data", "stages", "chunks", "microbatches")]
        for field, value in numbers:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a whole number of at least 1, got {value!r}")
        if self.schedule not in _SCHEDULES:
            hint = suggest(str(self.schedule), _SCHEDULES)
            raise ValueError(f"schedule must be one of {_SCHEDULES}, got {self.schedule!r}{hint}")
        if self.chunks > 1 and self.schedule != "interleaved":
            raise ValueError(f"chunks must be 1 with schedule {self.schedule!r}, got {self.chunks}")
        if self.schedule == "interleaved" and self.microbatches % self.stages:
            raise ValueError(
                f"microbatches must be a multiple of stages={self.stages} with schedule "
                f"'interleaved', got {self.microbatches}"
            )

    @property
    def devices(self) -> int:
        """Number of devices."""
        return math.prod(self.sizes.values())

    @property
    def layout(self) -> tensor.Layout:
        """The tensor layout of a stage, within one of the data-parallel copies."""
        return tensor.layout(self.scheme)

    @property
    def sizes(self) -> dict[str, int]:
        """Mesh axes and their sizes."""
        return {DATA: self.data, STAGE: self.stages, **dict(zip(self.layout.axes, self.grid))}

    @property
    def table(self) -> pipeline.Schedule:
        """The schedule as tables."""
        chunks = {"chunks": self.chunks} if self.schedule == "interleaved" else {}
        return pipeline.SCHEDULES[self.schedule](self.stages, self.microbatches, **chunks)


def tier_of(hybrid: Hybrid, tiers: Mapping[str, Sequence[str]] = TIERS) -> dict[str, str]:
    """Gives the tier whose links each mesh axis crosses.

    Args:
      hybrid: the layout.
      tiers: axes of each tier, slowest tier first; ``"tensor"`` stands for all axes of the grid.

    Returns:
      ``{axis: tier}``, outermost axis first.

    Raises:
      ValueError: an axis is missing, unknown, or given twice.

    Example:
      >>> tier_of(Hybrid(scheme="2d", grid=(2, 2)))
      {'stage': 'cloud', 'data': 'edge', 'r': 'end', 'c': 'end'}
    """
    given = [axis for axes in tiers.values() for axis in axes]
    if sorted(given) != sorted((DATA, STAGE, TENSOR)):
        raise ValueError(f"tiers must hold each of {(DATA, STAGE, TENSOR)} once, got {dict(tiers)}")
    axes = {TENSOR: hybrid.layout.axes}
    return {a: tier for tier, group in tiers.items() for g in group for a in axes.get(g, (g,))}


def make_mesh_of(
    hybrid: Hybrid,
    tiers: Mapping[str, Sequence[str]] = TIERS,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Makes the mesh of a hybrid, its axes grouped by tier, outermost the slowest.

    Args:
      hybrid: the layout.
      tiers: as for `tier_of`.
      devices: accelerators to use; the first of ``jax.devices()`` if None.

    Returns:
      The mesh.

    Raises:
      ValueError: the tiers are wrong, or there are too few devices.
    """
    axes = tuple(tier_of(hybrid, tiers))
    return make_mesh([hybrid.sizes[a] for a in axes], axes, devices)
