"""The fields of the life-cycle run; every one can be set on the command line."""

from dataclasses import dataclass, field


@dataclass
class Data:
    """What the devices see.

    Attributes:
      name: a data set of `eejax data list`.
      directory: folder of data sets that were prepared or imported; the usual one if None.
      partition: iid, dirichlet:ALPHA, inner_dirichlet:ALPHA, shards:PER_CLIENT, classes:PER_CLIENT,
        quantity:ALPHA or power_law:EXPONENT.
      train: slice of the training split to use, such as [:1000]; all if empty.
      test: the same for the test split.
      validation: training samples that the operator keeps in the cloud to choose thresholds by.
      memory: training samples that the operator keeps in the cloud to replay.
      new_share: share of each device's samples that arrive after the drift, in (0, 1).
    """

    name: str = "mnist_5k"
    directory: str | None = None
    partition: str = "dirichlet:0.5"
    train: str = ""
    test: str = ""
    validation: int = 600
    memory: int = 200
    new_share: float = 0.2


@dataclass
class System:
    """The modelled system; a file replaces the other fields.

    Attributes:
      file: a topology in TOML, of the tiers end, edge and cloud.
      ends: number of end devices.
      edges: number of edge servers.
      end_devices: presets that take turns on each edge.
      end_edge: preset of the links between end and edge.
      edge_cloud: preset of the links between edge and cloud.
    """

    file: str | None = None
    ends: int = 8
    edges: int = 2
    end_devices: tuple[str, ...] = ("microcontroller", "raspberry_pi_3", "phone")
    end_edge: str = "wifi"
    edge_cloud: str = "wan"


@dataclass
class CoTrain:
    """Hierarchical FedAvg, and the baselines trained on the same samples.

    Attributes:
      rounds: rounds of the cloud.
      k1: local steps between two aggregations at the edge.
      k2: aggregations at the edge between two in the cloud.
      batch: samples of a step.
      learning_rate: of SGD on the devices.
      momentum: of SGD on the devices.
      codec: what updates pass on their way up, such as bf16, int8 or topk:0.1+int8.
      central_learning_rate: of the same optimiser when the model is trained centrally.
      clients: order of the clients on one accelerator: auto, scan, vmap or chunk:K.
      report_every: rounds between two measurements and checkpoints.
    """

    rounds: int = 30
    k1: int = 10
    k2: int = 2
    batch: int = 16
    learning_rate: float = 0.1
    momentum: float = 0.9
    codec: str = "bf16"
    central_learning_rate: float = 0.05
    clients: str = "auto"
    report_every: int = 3


@dataclass
class CoInfer:
    """Where stages run and who leaves early.

    Attributes:
      placement: one-per-tier, best (of the plans, for the objective), or a tier for each stage,
        such as end,edge,edge.
      objective: latency, worst_latency, energy, end_energy or bytes.
      codec: what features pass on their way up.
      loss_allowed: accuracy that early exits may cost on the validation data, as a fraction.
      margin: standard errors by which thresholds keep clear of that.
    """

    placement: str = "one-per-tier"
    objective: str = "latency"
    codec: str = "int8"
    loss_allowed: float = 0.003
    margin: float = 2.5


@dataclass
class Drift:
    """How the world changes, and what notices it.

    Attributes:
      kind: rotate, translate, blur, noise, contrast, occlude or invert.
      severity: in the unit of the kind: degrees, pixels, grey levels, ...
      detectors: kswin and page_hinkley watch scores of the first exit; ddm watches errors.
      label_share: share of the deployed system's answers that somebody checks, in [0, 1].
      window: scores that kswin compares with those of the validation data.
    """

    kind: str = "rotate"
    severity: float = 45.0
    detectors: tuple[str, ...] = ("kswin", "page_hinkley", "ddm")
    label_share: float = 0.1
    window: int = 50


@dataclass
class CoUpdate:
    """How the system learns the new world; the three ways share what they can.

    Attributes:
      steps: training steps in the cloud, or on each node that updates alone.
      batch: new samples of a step.
      replay: remembered samples added to each step.
      learning_rate: of Adam.
      share: of a device's new samples that a collaborative update sends up, the hardest first.
      distil_steps: training steps of each student; 0 for none.
      distil_learning_rate: of Adam in students.
      temperature: of soft labels.
      alpha: weight of true labels beside soft ones.
      codec: what parameters and soft labels pass on their way down.
    """

    steps: int = 300
    batch: int = 32
    replay: int = 32
    learning_rate: float = 1e-3
    share: float = 0.6
    distil_steps: int = 50
    distil_learning_rate: float = 3e-4
    temperature: float = 2.0
    alpha: float = 0.3
    codec: str = "bf16"


@dataclass
class Lifecycle:
    """One model from co-training to co-updating over end, edge and cloud.

    Attributes:
      seed: of everything random.
      widths: channels of the three stages.
      data: what the devices see.
      system: the modelled system.
      cotrain: hierarchical FedAvg.
      coinfer: early exits.
      drift: the change of the world.
      coupdate: the ways of updating.
    """

    seed: int = 0
    widths: tuple[int, int, int] = (8, 16, 32)
    data: Data = field(default_factory=Data)
    system: System = field(default_factory=System)
    cotrain: CoTrain = field(default_factory=CoTrain)
    coinfer: CoInfer = field(default_factory=CoInfer)
    drift: Drift = field(default_factory=Drift)
    coupdate: CoUpdate = field(default_factory=CoUpdate)


def tiny() -> Lifecycle:
    """Gives a config that runs the same code in seconds, on less data, for tests and notebooks."""
    return Lifecycle(
        widths=(4, 8, 8),
        data=Data(train="[:600]", test="[:200]", validation=100, memory=40),
        cotrain=CoTrain(rounds=4, batch=8, report_every=2),
        drift=Drift(severity=90.0, window=30),
        coupdate=CoUpdate(steps=60, batch=8, replay=8, distil_steps=10),
    )
