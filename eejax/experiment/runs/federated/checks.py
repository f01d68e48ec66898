"""What a federated run refuses before anything is trained: bad numbers, odd combinations."""

import numpy as np

from eejax.experiment.runs.federated.adversaries import AGGREGATORS, aggregator_of
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.methods import ASYNCHRONOUS, GRAPHS, Method
from eejax.experiment.runs.federated.protection import check_protection
from eejax.names import suggest


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


def check_method(config: Federated, method: Method) -> None:
    """Refuses what an engine cannot do.

    Args:
      config: the fields.
      method: what trains.

    Raises:
      ValueError: names the method, what is wrong and why.
    """
    try:
        _check_settings(config, method)
        _check_surroundings(config, method)
    except ValueError as error:
        raise ValueError(f"methods: {method.text!r}: {error}") from error
    check_protection(config, method)
    if method.engine in AGGREGATORS:
        aggregator_of(config, method, config.data.clients)


def _check_settings(config: Federated, method: Method) -> None:
    settings, clients = method.settings, config.data.clients
    limits = {"f": (0, clients), "size": (1, clients), "concurrency": (0, clients),
              "quorum": (1, clients), "k2": (1, np.inf)}  # fmt: skip
    if method.engine == "fedbuff":
        limits["size"] = (1, np.inf)
    for name, (least, most) in limits.items():
        value = settings.get(name, 1)
        if value != int(value) or not least <= value <= most:
            most = "" if most == np.inf else f" and at most {most}"
            raise ValueError(
                f"{name} must be a whole number of at least {least}{most}, got {value:g}"
            )
    if settings.get("drop") and not config.stragglers:
        raise ValueError("drop=1 needs stragglers above 0")
    if not 0 <= settings.get("share", 0) <= 1:
        raise ValueError(f"share must be in [0, 1], got {settings['share']:g}")
    if settings.get("share") and not config.data.shared:
        raise ValueError("share needs data.shared above 0")
    if not settings.get("deadline_s", 1) > 0:
        raise ValueError("deadline_s must be above 0")
    graph = settings.get("graph", "ring")
    if graph not in GRAPHS:
        raise ValueError(f"graph {graph!r} is none of {', '.join(GRAPHS)}{suggest(graph, GRAPHS)}")


def _check_surroundings(config: Federated, method: Method) -> None:
    engine, system, attack = method.engine, config.system, config.adversaries.attack
    if engine in ASYNCHRONOUS and config.epochs:
        raise ValueError(f"epochs must be 0, since {engine} counts local work in steps")
    if engine == "gossip" and config.codec != "identity":
        raise ValueError("codec must be identity, since gossip sends whole models")
    if system.dropout and engine in ("sampled", "poisson", "hierarchical", "gossip", "central"):
        raise ValueError(f"system.dropout must be 0, since {engine} loses nothing")
    if system.trace and engine not in ("flat", "sampled", "central"):
        raise ValueError(f"system.trace works with flat and sampled, not with {engine}")
    if system.trace and system.dropout:
        raise ValueError("system.trace and system.dropout cannot be given together")
    if config.data.features and method.settings.get("share"):
        raise ValueError("data.features cannot be given with share, since several clients would "
                         "see the same samples")  # fmt: skip
    if attack == "label_flip" and method.settings.get("share"):
        raise ValueError("adversaries.attack cannot be label_flip with share, since others train "
                         "on the same samples")  # fmt: skip
    if attack not in ("", "label_flip") and engine in (*ASYNCHRONOUS, "hierarchical", "gossip"):
        raise ValueError(f"adversaries.attack must be empty or label_flip, since {engine} does not "
                         "keep the uploads of a round one by one")  # fmt: skip
