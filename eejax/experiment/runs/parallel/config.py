"""The fields of a parallel run; every one can be set on the command line."""

from dataclasses import dataclass, field

from eejax.cotrain.hybrid import Hybrid
from eejax.cotrain.tensor import Shape


@dataclass
class Transformer:
    """Sizes of the decoder.

    Attributes:
      hidden: features between blocks.
      intermediate: features inside the perceptron.
      heads: heads of queries.
      kv_heads: heads of keys and values, a divisor of the heads.
      seq: bytes of a sequence.
      layers: number of layers.
    """

    hidden: int = 64
    intermediate: int = 256
    heads: int = 4
    kv_heads: int = 2
    seq: int = 64
    layers: int = 4


@dataclass
class Layout:
    """How the decoder is spread over devices, and which links its axes cross.

    Attributes:
      data: copies of the pipeline.
      stages: parts into which the layers are cut.
      scheme: tensor parallelism of a stage: serial, 1d, 1d_sp, 2d, 2d_opt, 2.5d or 3d.
      grid: size of each axis of the scheme.
      schedule: gpipe, one_f_one_b, fused or interleaved.
      chunks: parts of the model on a device, above 1 only when interleaved.
      microbatches: micro-batches of a step.
    """

    data: int = 2
    stages: int = 2
    scheme: str = "1d_sp"
    grid: tuple[int, ...] = (2,)
    schedule: str = "fused"
    chunks: int = 1
    microbatches: int = 4


@dataclass
class Machine:
    """The devices that `eejax parallel plan` plans for; the product of the counts is all of them.

    Attributes:
      clouds: parts that only the slowest links join.
      edges: groups of devices in each part.
      ends: devices in each group.
      cloud_bytes_per_s: what a device sends over the slowest links.
      edge_bytes_per_s: between groups of a part.
      end_bytes_per_s: within a group.
      flops_per_s: of a device.
      memory_bytes: of a device.
    """

    clouds: int = 2
    edges: int = 2
    ends: int = 2
    cloud_bytes_per_s: float = 1.25e7
    edge_bytes_per_s: float = 1.25e8
    end_bytes_per_s: float = 1e10
    flops_per_s: float = 1e12
    memory_bytes: float = 16e9


@dataclass
class Parallel:
    """A decoder that predicts the next byte of Python's documentation.

    Attributes:
      seed: of parameters and batches.
      sequences: sequences of a step.
      steps: steps of the run.
      report_every: steps between two measurements and checkpoints.
      learning_rate: of Adam.
      model: sizes of the decoder.
      layout: how it is spread.
      machine: the modelled devices for `eejax parallel plan`.
    """

    seed: int = 0
    sequences: int = 32
    steps: int = 300
    report_every: int = 25
    learning_rate: float = 3e-3
    model: Transformer = field(default_factory=Transformer)
    layout: Layout = field(default_factory=Layout)
    machine: Machine = field(default_factory=Machine)


def tiny() -> Parallel:
    """Gives a config that runs the same code in seconds."""
    return Parallel(
        sequences=8,
        steps=4,
        report_every=2,
        model=Transformer(hidden=16, intermediate=32, heads=4, kv_heads=2, seq=16, layers=2),
        layout=Layout(microbatches=2),
    )


def hybrid_of(config: Parallel) -> Hybrid:
    """Reads the layout.

    Raises:
      ValueError: a field is wrong; names it.
    """
    fields = vars(config.layout) | {"grid": tuple(config.layout.grid)}
    return Hybrid(**fields)


def shape_of(config: Parallel) -> Shape:
    """Reads the sizes of the decoder.

    Raises:
      ValueError: a field is wrong; names it.
    """
    return Shape(**vars(config.model), causal=True)
