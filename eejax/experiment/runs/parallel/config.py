"""The fields of a parallel run; every one can be set on the command line."""

from dataclasses import dataclass, field

import optax

from eejax.cotrain.hybrid import Hybrid


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
class VisionTransformer:
    """Sizes of the vision transformer.

    Attributes:
      hidden: features between blocks.
      intermediate: features inside the perceptron.
      heads: heads of attention.
      patch: side of a patch in pixels, a divisor of those of an image.
      layers: number of layers.
      classes: at least those of the data; more, so that more layouts can split them, are unused.
    """

    hidden: int = 64
    intermediate: int = 256
    heads: int = 4
    patch: int = 7
    layers: int = 4
    classes: int = 16


@dataclass
class Perceptron:
    """Sizes of the residual perceptron.

    Attributes:
      hidden: features between layers.
      intermediate: features inside of them.
      layers: number of layers.
      classes: at least those of the data; more, so that more layouts can split them, are unused.
    """

    hidden: int = 64
    intermediate: int = 256
    layers: int = 4
    classes: int = 16


@dataclass
class Layout:
    """How the model is spread over devices, and which links its axes cross.

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
      topology: preset of the links of end devices (wifi, lan, ...), or a topology in TOML, whose
        lowest tier is the devices; replaces the other fields.
    """

    clouds: int = 2
    edges: int = 2
    ends: int = 2
    cloud_bytes_per_s: float = 1.25e7
    edge_bytes_per_s: float = 1.25e8
    end_bytes_per_s: float = 1e10
    flops_per_s: float = 1e12
    memory_bytes: float = 16e9
    topology: str | None = None


@dataclass
class Parallel:
    """A model that is trained in three ways in parallel.

    Attributes:
      seed: of parameters and batches.
      data: python_documentation, of which a `Transformer` predicts the next byte; or a data set of
        `eejax data list`, which the others classify.
      sequences: sequences of text, or images, of a step.
      steps: steps of the run.
      report_every: steps between two measurements and checkpoints.
      learning_rate: of Adam.
      cosine: whether it falls to 0 along a cosine until the last step.
      model: a `Transformer`, a `VisionTransformer` or a `Perceptron`.
      layout: how it is spread.
      machine: the modelled devices for `eejax parallel plan`.
    """

    seed: int = 0
    data: str = "python_documentation"
    sequences: int = 32
    steps: int = 300
    report_every: int = 25
    learning_rate: float = 3e-3
    cosine: bool = False
    # The command line takes the fields of the default; a union would make commands of its members.
    model: object = field(default_factory=Transformer)
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


def optimiser_of(config: Parallel) -> optax.GradientTransformation:
    """Builds the optimiser."""
    rate = config.learning_rate
    return optax.adam(optax.cosine_decay_schedule(rate, config.steps) if config.cosine else rate)
