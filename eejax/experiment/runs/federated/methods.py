"""Methods by name: what a config file and the command line say, and what it means.

An algorithm is ``(task, lr, *, NAME=default, ...)``, and its options are the keywords. A
config file adds its own by handing ``ALGORITHMS | {"mine": mine}`` to `run`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain import decentralised
from eejax.cotrain.federated import (
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fednova,
    fedprox,
    fedsgd,
    fedyogi,
    scaffold,
)
from eejax.cotrain.personal import (
    Personal,
    ditto,
    fedper,
    fedrep,
    fine_tune,
    local_only,
    per_fedavg,
)
from eejax.names import suggest

PyTree = Any


class Task(NamedTuple):
    """What algorithms are made for.

    Attributes:
      grad_fn: ``(params, batch, key) -> (grads, {"loss": ...})``.
      momentum: of SGD at the clients.
      head: regex of the paths of the last layer's parameters.
    """

    grad_fn: Callable[..., tuple[PyTree, dict]]
    momentum: float
    head: str

    def sgd(self, lr: Any) -> optax.GradientTransformation:
        """Makes the optimiser of a client."""
        return optax.sgd(lr, self.momentum or None)


class Shared(NamedTuple):
    """A method whose clients all use the global model.

    Attributes:
      algorithm: what is trained.
      model: takes the model out of what the algorithm sends.
      deploy: ``(ServerState) ->`` what is sent when training is over; the algorithm's broadcast if
        None.
    """

    algorithm: FederatedAlgorithm
    model: Callable[[PyTree], PyTree] = lambda sent: sent
    deploy: Callable[[PyTree], PyTree] | None = None


Algorithm = Callable[..., Shared | Personal]
"""``(task, lr, *, options) -> Shared or Personal``; ``lr`` may be traced."""


class Method(NamedTuple):
    """A method as a config names it.

    Attributes:
      text: what the config says.
      algorithm: name in the algorithms.
      options: keywords for it, without ``lr``.
      lr: learning rate of the clients, None for that of the config.
      engine: name in `ENGINES`.
      settings: of the engine, all of them: numbers, and names where the default is one.
    """

    text: str
    algorithm: str
    options: dict[str, float]
    lr: float | None
    engine: str
    settings: dict[str, Any]


def _fedavg(task, lr):
    return Shared(fedavg(task.grad_fn, task.sgd(lr)))


def _fedsgd(task, lr):
    return Shared(fedsgd(task.grad_fn, optax.sgd(lr)))


def _fedprox(task, lr, *, mu=0.1):
    return Shared(fedprox(task.grad_fn, task.sgd(lr), mu))


def _fedavgm(task, lr, *, server_lr=1.0, beta=0.9):
    return Shared(fedavgm(task.grad_fn, task.sgd(lr), server_lr, beta))


def _fednova(task, lr, *, mu=0.0):
    return Shared(fednova(task.grad_fn, lr, task.momentum, mu))


def _fedadagrad(task, lr, *, server_lr=0.1, b1=0.0, tau=1e-3):
    return Shared(fedadagrad(task.grad_fn, task.sgd(lr), server_lr, b1, tau))


def _fedadam(task, lr, *, server_lr=0.03, b1=0.9, b2=0.99, tau=1e-3):
    return Shared(fedadam(task.grad_fn, task.sgd(lr), server_lr, b1, b2, tau))


def _fedyogi(task, lr, *, server_lr=0.03, b1=0.9, b2=0.99, tau=1e-3):
    return Shared(fedyogi(task.grad_fn, task.sgd(lr), server_lr, b1, b2, tau))


def _scaffold(task, lr, *, server_lr=1.0, option=2):
    return Shared(scaffold(task.grad_fn, lr, server_lr, int(option)), lambda sent: sent.params)


def _local_only(task, lr):
    return local_only(task.grad_fn, task.sgd(lr))


def _fine_tune(task, lr):
    return fine_tune(_fedavg(task, lr).algorithm, task.grad_fn, task.sgd(lr))


def _ditto(task, lr, *, lam=0.1):
    return ditto(task.grad_fn, task.sgd(lr), lam)


def _fedper(task, lr):
    return fedper(task.grad_fn, task.sgd(lr), [task.head])


def _fedrep(task, lr, *, head_passes=1):
    return fedrep(task.grad_fn, task.sgd(lr), [task.head], int(head_passes))


def _per_fedavg(task, lr, *, alpha=0.05):
    return per_fedavg(task.grad_fn, lr, alpha)


ALGORITHMS: Mapping[str, Algorithm] = {
    "fedavg": _fedavg,
    "fedsgd": _fedsgd,
    "fedprox": _fedprox,
    "fedavgm": _fedavgm,
    "fednova": _fednova,
    "fedadagrad": _fedadagrad,
    "fedadam": _fedadam,
    "fedyogi": _fedyogi,
    "scaffold": _scaffold,
    "local_only": _local_only,
    "fine_tune": _fine_tune,
    "ditto": _ditto,
    "fedper": _fedper,
    "fedrep": _fedrep,
    "per_fedavg": _per_fedavg,
}
"""What can be trained, by name; options are keywords, and all take ``lr``."""

ASYNCHRONOUS = ("fedasync", "fedbuff")
"""Engines in which updates are taken as they come."""

GRAPHS: Mapping[str, Callable[[int], np.ndarray]] = {
    "ring": decentralised.ring,
    "star": decentralised.star,
    "complete": decentralised.complete,
}
"""``(clients) -> mixing matrix``, by the name of the graph."""

PROTECTIONS: Mapping[str, float] = {
    "secure": 0, "limit": 1.0, "bound": 0, "noise": 0, "epsilon": 0, "delta": 1e-5,
}  # fmt: skip
"""Settings of every engine but ``central``, which refuses what it cannot do.

``secure=1``: the server sees only sums (`protect.secure_mean`), of elements up to ``limit``.
``bound``: clients cut what they send to this norm, and the server adds noise of ``noise`` times as
much to the sum, or as much as keeps ``epsilon`` at ``delta`` (`protect.user_level_dp`).
"""

ENGINES: Mapping[str, dict[str, Any]] = {
    "flat": {"drop": 0, "share": 0},
    "hierarchical": {"k2": 2},
    "sampled": {"size": 5},
    "poisson": {"size": 5},
    "semi": {"deadline_s": 1.0, "quorum": 1},
    "fedasync": {"alpha": 0.6, "a": 0.5, "concurrency": 0},
    "fedbuff": {"size": 5, "server_lr": 1.0, "concurrency": 0},
    "gossip": {"graph": "ring"},
    "central": {},
    "krum": {"f": 0},
    "multi_krum": {"f": 0},
    "trimmed_mean": {"f": 0},
    "median": {"f": 0},
    "bulyan": {"f": 0},
    "norm_bound": {},
}
"""How rounds are run, by name, with the settings of each.

``flat``: all clients every round; ``drop=1`` throws away what stragglers did, and ``share`` is the
portion of the shared samples (`Data.shared`) that each client gets. ``hierarchical``: ``k2``
aggregations at the edge for one in the cloud. ``sampled``: a cohort of ``size`` clients.
``poisson``: each client on its own, ``size`` of them on average, as accounts of privacy assume.
``semi``: updates that come within ``deadline_s``, or the first ``quorum``. ``fedasync`` and
``fedbuff``: every update as it comes, with ``concurrency`` clients at work, all if 0. ``gossip``:
neighbours mix their models without a server, on a ``graph``: ring, star or complete. ``central``:
all samples in one place, the upper bound. The others are ``flat`` with a robust aggregator of
`protect`, which withstands ``f`` attackers where it takes any, as many as attack if 0.
"""


def parse_method(text: str, algorithms: Mapping[str, Algorithm] = ALGORITHMS) -> Method:
    """Reads a method.

    Args:
      text: ``ALGORITHM[:NAME=VALUE,...][@ENGINE[:NAME=VALUE,...]]``.
      algorithms: by name.

    Returns:
      The method.

    Raises:
      ValueError: a name is unknown (tells the nearest), or a value is no number.

    Example:
      >>> method = parse_method("fedprox:mu=0.5@sampled:size=3")
      >>> method.algorithm, method.options, method.engine, method.settings["size"]
      ('fedprox', {'mu': 0.5}, 'sampled', 3.0)
    """
    trained, _, run = text.partition("@")
    name, given = _part(text, trained, algorithms, "algorithm")
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(algorithms[name]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    options = _options(text, given, {"lr": None, **known}, name)
    lr = options.pop("lr", None)
    if lr is not None and not lr > 0:
        raise ValueError(f"methods: {text!r}: lr must be above 0, got {lr!r}")
    engine, given = _part(text, run or "flat", ENGINES, "engine")
    known = ENGINES[engine] | (PROTECTIONS if engine != "central" else {})
    settings = known | _options(text, given, known, engine)
    return Method(text, name, options, lr, engine, settings)


def _part(text: str, part: str, known: Mapping[str, Any], what: str) -> tuple[str, str]:
    name, _, given = part.partition(":")
    if name not in known:
        raise ValueError(
            f"methods: {what} {name!r} in {text!r} is none of {', '.join(known)}"
            f"{suggest(name, known)}"
        )
    return name, given


def _options(text: str, given: str, known: Mapping[str, Any], owner: str) -> dict[str, Any]:
    options = {}
    for pair in filter(None, given.split(",")):
        name, _, value = pair.partition("=")
        if name not in known:
            raise ValueError(
                f"methods: {owner} in {text!r} has no option {name!r}{suggest(name, known)}; "
                f"it has {', '.join(known) or 'none'}"
            )
        if isinstance(known[name], str):
            options[name] = value
            continue
        try:
            options[name] = float(value)
        except ValueError:
            raise ValueError(
                f"methods: {name} in {text!r} must be a number, got {value!r}"
            ) from None
    return options
