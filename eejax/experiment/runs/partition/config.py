"""The fields of a partition run; every one can be set on the command line."""

from dataclasses import dataclass, field

from eejax.names import suggest
from eejax.partition import OBJECTIVES

INPUT_BYTES = {"uint8": 1, "float32": 4}
FEATURES = {"float32": 1.0, "bf16": 0.5, "int8": 0.25}


@dataclass
class Sweep:
    """Bandwidths of the links between the lowest two tiers to plan for, both ways.

    Attributes:
      from_bps: the lowest, in bits per second.
      to_bps: the highest.
      points: how many, on a logarithmic scale; 0 for no sweep.
    """

    from_bps: float = 1e5
    to_bps: float = 1e9
    points: int = 41


@dataclass
class Partition:
    """Where to cut a model.

    Attributes:
      model: a network of the zoo (``eejax methods models`` and `models.zoo.NAMES`), a file
        ``x.onnx``, a profile ``x.json`` as `eejax profile` writes it, or ``module:function``, where
        the function gives ``(apply, params, example)`` for `partition.from_function`.
      side: pixels of a side of the square images; 0 for those of the publication, or of the file.
      topology: what `tiers.load` takes: name of a preset link between end and edge, a file
        ``x.toml``, or a chain such as ``phone,wifi,cloud_gpu``.
      objective: what to make small: one of `partition.OBJECTIVES`.
      solver: one of `runs.partition.SOLVERS`, or ``all``.
      granularity: what a layer is: ``operator``, ``layer`` (ONNX files only), ``block`` (between
        places where one tensor is alive), or ``depth:K`` (modules, functions only).
      input: dtype in which raw images leave the sensor.
      features: dtype of what crosses links, by its bytes alone; what it costs in accuracy is not
        modelled.
      measured_on: what a profile was measured on, for tiers of which it holds no seconds: a file
        that `eejax profile device` wrote, or the name of a preset; a roofline fitted to the layers
        of the profile if empty.
      sweep: the bandwidths of the figure. Plans are those of ``solver`` where it is one for two
        tiers, and the best otherwise.
    """

    model: str = "resnet18"
    side: int = 0
    topology: str = "wifi"
    objective: str = "latency"
    solver: str = "all"
    granularity: str = "operator"
    input: str = "uint8"
    features: str = "float32"
    measured_on: str = ""
    sweep: Sweep = field(default_factory=Sweep)


def check_config(config: Partition, solvers: tuple[str, ...]) -> None:
    """Refuses names that do not exist.

    Args:
      config: the fields.
      solvers: names of solvers.

    Raises:
      ValueError: names the field, and the nearest allowed value.
    """
    for name, allowed in (
        ("objective", tuple(OBJECTIVES)),
        ("solver", (*solvers, "all")),
        ("input", tuple(INPUT_BYTES)),
        ("features", tuple(FEATURES)),
    ):
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"{name} {value!r} is none of {', '.join(allowed)}{suggest(value, allowed)}"
            )
    if config.measured_on and not config.model.endswith(".json"):
        raise ValueError(f"measured_on is for profiles alone, not for model {config.model!r}")
    if config.side < 0:
        raise ValueError(f"side must be >= 0, got {config.side}")
    if config.sweep.points and not 0 < config.sweep.from_bps < config.sweep.to_bps:
        raise ValueError("sweep.from_bps must be above 0 and below sweep.to_bps")
