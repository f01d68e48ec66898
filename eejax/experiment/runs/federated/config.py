"""The fields of a federated run; every one can be set on the command line."""

from dataclasses import dataclass, field


@dataclass
class Data:
    """What the clients hold.

    Attributes:
      name: a data set of `eejax data list`.
      directory: folder of data sets that were prepared or imported; the usual one if None.
      clients: how many.
      partitions: how samples are spread, as `data.partitioner_from_name` takes it; several are
        compared.
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


@dataclass
class Adversaries:
    """Clients that attack the model by what they send, in engines that work in rounds.

    Attributes:
      attack: sign_flip[:SCALE], gaussian:STD, a_little_is_enough[:Z] or inner_product:EPSILON, see
        `protect.attacks`; nobody attacks if empty.
      clients: how many attack, drawn by the seed; fewer than half.
    """

    attack: str = ""
    clients: int = 0


@dataclass
class Federated:
    """One method on one partition, or a comparison of several over several seeds.

    Attributes:
      methods: ``ALGORITHM[:NAME=VALUE,...][@ENGINE[:NAME=VALUE,...]]`` each, such as ``fedavg``,
        ``fedprox:mu=0.1``, ``scaffold@sampled:size=5`` or ``fedavg@fedbuff:size=4``; see
        `methods.ALGORITHMS` and `methods.ENGINES`.
      seeds: of data, parameters, batches and faults; every method runs once for each.
      model: logistic, mlp:WIDTH,... or cnn:CHANNELS,...
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
      codec: what updates pass on their way up, such as int8 or topk:0.1+int8.
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


def check_config(config: Federated) -> None:
    """Refuses numbers that are out of range.

    Args:
      config: the fields.

    Raises:
      ValueError: names the field.
    """
    system = config.system
    for name, value, least in (
        ("rounds", config.rounds, 1),
        ("batch", config.batch, 1),
        ("report_every", config.report_every, 1),
        ("epochs", config.epochs, 0),
        ("steps", config.steps, 1),
        ("adapt_epochs", config.adapt_epochs, 0),
        ("seconds", config.seconds, 0),
        ("data.clients", config.data.clients, 1),
        ("data.shared", config.data.shared, 0),
        ("system.edges", system.edges, 1),
        ("system.slowdown", system.slowdown, 1),
        ("system.jitter", system.jitter, 0),
    ):
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
    for name, value in (
        ("data.held_out", config.data.held_out),
        ("validation", config.validation),
        ("momentum", config.momentum),
        ("system.dropout", system.dropout),
        ("system.duplicate", system.duplicate),
    ):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    for name, value in (("stragglers", config.stragglers), ("system.slow", system.slow)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    for name, values in (
        ("methods", config.methods),
        ("seeds", config.seeds),
        ("data.partitions", config.data.partitions),
    ):
        if not values:
            raise ValueError(f"{name} must not be empty")
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise ValueError(f"{name} holds {twice[0]!r} twice")
    for name, values in (("learning_rate", (config.learning_rate,)), ("rates", config.rates)):
        if not all(value > 0 for value in values):
            raise ValueError(f"{name} must be above 0, got {values!r}")
    attack, attackers = config.adversaries.attack, config.adversaries.clients
    if not 0 <= attackers < config.data.clients / 2:
        raise ValueError(
            f"adversaries.clients must be at least 0 and fewer than half of {config.data.clients}, "
            f"got {attackers!r}"
        )
    if bool(attack) != bool(attackers):
        raise ValueError(
            "adversaries.attack and adversaries.clients must be given together, got "
            f"{attack!r} and {attackers!r}"
        )
    if config.rates and not config.validation > 0:
        raise ValueError("validation must be above 0 to choose from rates")
    if config.stragglers and not config.epochs:
        raise ValueError("stragglers do some of their epochs: epochs must be at least 1")
