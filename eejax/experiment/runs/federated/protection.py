"""User-level privacy and secure aggregation as settings of a method."""

from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import protect
from eejax.experiment.runs.federated.adversaries import AGGREGATORS
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.methods import Method
from eejax.protect import Aggregator, Sampling

_NOISE = np.iinfo(np.int32).max - 2  # Folded into the key of the run; no client has this number.
_PRIVATE = ("flat", "semi", "sampled", "poisson")


class Private(NamedTuple):
    """User-level privacy of a training.

    Attributes:
      how: who takes part, and what neighbours are.
      noise: noise multiplier.
      bound: longest upload.
      delta: of the account.
    """

    how: Sampling
    noise: float
    bound: float
    delta: float

    def epsilon(self, rounds: int) -> float:
        """Accounts for rounds, those without anybody included; infinite without noise."""
        spent = protect.PrivacySpent(rounds, self.noise, self.how.rate)
        return protect.epsilon(spent, self.how, self.delta)


def private_of(config: Federated, method: Method, counts: np.ndarray) -> Private | None:
    """Finds the noise that keeps a method's budget over all rounds of the config.

    Args:
      config: the fields.
      method: what trains.
      counts: samples of each client.

    Returns:
      It; None without a bound. Whoever is left out by a deadline, a dropout or a trace counts as if
      it had taken part, which spends no less.

    Raises:
      ValueError: cohorts of one size have clients without samples, who cannot be told from others.
      ModuleNotFoundError: dp-accounting is not installed.
    """
    settings = method.settings
    if not settings.get("bound"):
        return None
    how, noise = _sampling_of(method, counts), settings["noise"]
    if settings["epsilon"]:
        noise = protect.calibrate(how, config.rounds, settings["epsilon"], settings["delta"])
    return Private(how, noise, settings["bound"], settings["delta"])


def statement_of(method: Method, counts: np.ndarray) -> str:
    """States what the epsilon of a private method is about.

    Args:
      method: what trains.
      counts: samples of each client.

    Returns:
      Sampler, neighbouring relation and delta.
    """
    how = _sampling_of(method, counts)
    return (
        f"cohorts by {how.sampler}, {how.cohort:g} of {how.clients} clients; neighbours "
        f"{how.relation}; delta {method.settings['delta']:g}"
    )


def _sampling_of(method: Method, counts: np.ndarray) -> Sampling:
    clients, size = int((counts > 0).sum()), method.settings.get("size", len(counts))
    if method.engine != "sampled" or size == len(counts):
        return protect.sampling(
            "poisson", "add or remove one", clients=clients, cohort=clients * size / len(counts)
        )
    if clients < len(counts):
        raise ValueError(
            f"methods: {method.text!r}: bound needs a poisson engine, or samples for every "
            f"client; {len(counts) - clients} have none"
        )
    return protect.sampling(
        "fixed size without replacement", "replace one", clients=clients, cohort=size
    )


def made_of(lab: Any, start: Any, lr: Any, key: jax.Array) -> Any:
    """Makes what a method trains, with its privacy; ``lr`` and ``key`` may be traced.

    Args:
      lab: a `lab.Lab`.
      start: a `lab.Start`.
      lr: learning rate of the clients.
      key: of the training.

    Returns:
      A `Shared` or `Personal`.
    """
    made, private = lab.made(start.cell.method, lr), start.private
    if private is None:
        return made
    algorithm = protect.user_level_dp(
        made.algorithm, private.how, jax.random.fold_in(key, _NOISE),
        noise_multiplier=private.noise, bound=private.bound,
    )  # fmt: skip
    deploy = made.deploy
    return made._replace(
        algorithm=algorithm, deploy=None if deploy is None else lambda state: deploy(state.inner)
    )


def secure_of(method: Method, places: int) -> Aggregator | None:
    """Makes the secure mean of a method's rounds.

    Args:
      method: what trains.
      places: uploads of a round.

    Returns:
      The aggregator, or None. More than half of the clients must send, but of Poisson cohorts,
      whose empty places are nobody that dropped out.
    """
    settings = method.settings
    if not settings.get("secure"):
        return None
    limit = settings["bound"] or settings["limit"]
    if method.engine == "poisson":
        return protect.secure_mean(places, limit, empty="nobody")
    return protect.secure_mean(places, limit, least=places // 2 + 1)


def secure_bytes(method: Method, clients: int, elements: int) -> tuple[int, int]:
    """Counts what secure aggregation sends for one client beside the model.

    Args:
      method: what trains.
      clients: of the run.
      elements: of an upload, without its weight.

    Returns:
      Bytes up, masked upload included, and down.
    """
    cohort = int(np.ceil(method.settings.get("size", clients)))
    return protect.secagg_nbytes(cohort, elements + 1)


def check_protection(config: Federated, method: Method) -> None:
    """Refuses protections that cannot work, before anything is trained.

    Args:
      config: the fields.
      method: what trains.

    Raises:
      ValueError: names the method, its setting and why.
    """
    settings, where = method.settings, f"methods: {method.text!r}"
    secure, bound = settings.get("secure", 0), settings.get("bound", 0)
    if secure not in (0, 1):
        raise ValueError(f"{where}: secure must be 0 or 1, got {secure:g}")
    for name in ("bound", "noise", "epsilon"):
        if not 0 <= settings.get(name, 0) < np.inf:
            raise ValueError(f"{where}: {name} must be at least 0, got {settings[name]:g}")
    if not settings.get("limit", 1) > 0:
        raise ValueError(f"{where}: limit must be above 0, got {settings['limit']:g}")
    if not 0 < settings.get("delta", 0.5) < 1:
        raise ValueError(f"{where}: delta must be in (0, 1), got {settings['delta']:g}")
    if settings.get("noise") and settings.get("epsilon"):
        raise ValueError(f"{where}: give noise or epsilon, not both")
    if not bound and (settings.get("noise") or settings.get("epsilon")):
        raise ValueError(f"{where}: noise needs a bound above 0 of what clients send")
    try:
        protect.refuse(
            secure_aggregation=bool(secure),
            user_level_dp=bound > 0,
            aggregator=method.engine if method.engine in AGGREGATORS else "mean",
            codec=config.codec,
            engine=method.engine,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for name, given in (("secure", secure), ("bound", bound)):
        if given and method.engine not in _PRIVATE:
            raise ValueError(
                f"{where}: {name} works with {', '.join(_PRIVATE)}, not with {method.engine}"
            )
