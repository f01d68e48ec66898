"""The fields of a federated run; every one can be set on the command line."""

from dataclasses import dataclass, field


@dataclass
class Data:
    """What the clients hold.

    Attributes:
      name: a data set of `eejax data list`.
      directory: folder of data sets that were prepared or imported; the usual one if None.
      clients: how many.
      partitions: how samples are spread, as `data.partitioner_from_name` takes it, or ``natural``
        for sets with groups of their own; several are compared.
      features: how each client sees its images, as `data.feature_skew_from_name` takes it, such as
        rotation:45, noise:50 or writer:1; the common test split is as it is. All alike if empty.
      held_out: share of each client's samples to test by, in [0, 1): then all samples of the set
        are dealt to the clients, and personal models are tested on the client's own share. 0 tests
        every model on the test split.
      shared: samples that are set aside before clients get theirs, over those, >= 0; methods with
        the setting ``share`` give each client that portion of them.
      train: slice of the training split to use, such as [:1000]; all if empty.
      test: the same for the test split.
    """

    name: str = "digits"
    directory: str | None = None
    clients: int = 10
    partitions: tuple[str, ...] = ("dirichlet:0.5",)
    features: str = ""
    held_out: float = 0.0
    shared: float = 0.0
    train: str = ""
    test: str = ""


@dataclass
class System:
    """The modelled system that prices training; it changes what is learnt only where time does.

    Attributes:
      file: a topology in TOML with an end device for each client; replaces the next four fields.
      edges: number of edge servers.
      end_devices: presets that take turns on each edge.
      end_edge: preset of the links between end and edge.
      edge_cloud: preset of the links between edge and cloud.
      slow: share of the clients that are slow, drawn by the seed.
      slowdown: how many times as long a slow client takes to compute and over its link.
      jitter: standard deviation of the logarithm of a factor on the time of each turn.
      dropout: probability that an update never arrives.
      duplicate: probability that an update arrives twice; asynchronous engines only.
      trace: a CSV file of 0 and 1 that tells who is there, a line for each round and a column for
        each client; begins again at its end. For the engines flat and sampled.
    """

    file: str | None = None
    edges: int = 2
    end_devices: tuple[str, ...] = ("raspberry_pi_4", "phone", "jetson_nano")
    end_edge: str = "wifi"
    edge_cloud: str = "wan"
    slow: float = 0.0
    slowdown: float = 10.0
    jitter: float = 0.0
    dropout: float = 0.0
    duplicate: float = 0.0
    trace: str | None = None


@dataclass
class Adversaries:
    """Clients that attack the model: by their labels, or in rounds by what they send.

    Attributes:
      attack: label_flip, sign_flip[:SCALE], gaussian:STD, a_little_is_enough[:Z] or
        inner_product:EPSILON, see `protect.attacks`; nobody attacks if empty.
      clients: how many attack, drawn by the seed; fewer than half.
    """

    attack: str = ""
    clients: int = 0


@dataclass
class Federated:
    """One method on one partition, or a comparison of several over several seeds.

    Attributes:
      methods: ``ALGORITHM[:NAME=VALUE,...][@ENGINE[:NAME=VALUE,...]]`` each, such as ``fedavg``,
        ``fedprox:mu=0.1``, ``scaffold@sampled:size=5``, ``fedavg@fedbuff:size=4`` or
        ``fedavg@poisson:size=5,bound=1,epsilon=8``; see `methods.ALGORITHMS`, `methods.ENGINES` and
        `methods.PROTECTIONS`.
      seeds: of data, parameters, batches and faults; every method runs once for each.
      model: logistic, mlp:WIDTH,..., cnn:CHANNELS,... or lenet.
      rounds: rounds of the server. Of asynchronous engines as many arrivals as there are clients
        count as a round.
      seconds: modelled seconds after which every method stops, wherever it is; no limit if 0.
      epochs: local epochs of a round; 0 counts in ``steps``.
      steps: local steps of a round if there are no epochs; asynchronous engines need them.
      stragglers: probability that a client does only some of its epochs in a round.
      batch: samples of a step.
      learning_rate: of SGD at the clients.
      momentum: of SGD at the clients, where the algorithm has any.
      rates: learning rates to choose from, for each method and partition alike, by one training
        each with the first seed on training samples alone; none if empty.
      validation: share of each client's training samples that the choice is made by.
      adapt_epochs: epochs of fine-tuning for methods that adapt a global model at the end.
      codec: what updates pass on their way up, such as int8, topk:0.1+int8, sketch:0.1 or
        clip:1.0+noise:0.01.
      target: accuracy whose first round is told.
      report_every: rounds between two measurements.
      clients: order of the clients on one accelerator: auto, scan, vmap or chunk:K.
      data: what the clients hold.
      system: what prices it.
      adversaries: who attacks; methods such as ``fedavg@krum`` and ``fedavg@median`` resist.
    """

    methods: tuple[str, ...] = ("fedavg",)
    seeds: tuple[int, ...] = (0,)
    model: str = "mlp:64"
    rounds: int = 50
    seconds: float = 0.0
    epochs: int = 2
    steps: int = 20
    stragglers: float = 0.0
    batch: int = 10
    learning_rate: float = 0.05
    momentum: float = 0.0
    rates: tuple[float, ...] = ()
    validation: float = 0.2
    adapt_epochs: int = 5
    codec: str = "identity"
    target: float = 0.9
    report_every: int = 5
    clients: str = "auto"
    data: Data = field(default_factory=Data)
    system: System = field(default_factory=System)
    adversaries: Adversaries = field(default_factory=Adversaries)
