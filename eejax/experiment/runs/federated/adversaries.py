"""Adversaries and aggregators by name: who attacks how, and what the server does about it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eejax import protect
from eejax.cotrain.federated import Adversaries
from eejax.experiment.runs.federated.config import Federated
from eejax.experiment.runs.federated.methods import Method
from eejax.names import suggest
from eejax.protect import Aggregator, attacks

AGGREGATORS: Mapping[str, Callable[[int, int], Aggregator]] = {
    "krum": protect.krum,
    "multi_krum": protect.multi_krum,
    "trimmed_mean": protect.trimmed_mean,
    "median": protect.median,
    "bulyan": protect.bulyan,
    "norm_bound": lambda clients, f: protect.norm_bound(),
}
"""``(uploads of a round, most attackers among them) -> Aggregator``, by name of the engine."""

_FORMS = ("label_flip", "sign_flip", "sign_flip:SCALE", "gaussian:STD", "a_little_is_enough",
          "a_little_is_enough:Z", "inner_product:EPSILON")  # fmt: skip


def aggregator_of(config: Federated, method: Method, uploads: int) -> Aggregator:
    """Makes the aggregator that is a method's engine.

    Args:
      config: the fields.
      method: whose engine is one of `AGGREGATORS`.
      uploads: of a round.

    Returns:
      The aggregator; its ``f`` is the number of attackers where the method has 0.

    Raises:
      ValueError: there are too few uploads for so many attackers.
    """
    f = int(method.settings.get("f", 0)) or config.adversaries.clients
    try:
        return AGGREGATORS[method.engine](uploads, f)
    except ValueError as error:
        raise ValueError(f"methods: {method.text!r}: {error}") from error


def attackers_of(config: Federated, seed: int) -> np.ndarray:
    """Draws who attacks.

    Args:
      config: the fields.
      seed: of the training.

    Returns:
      bool ``[clients]``.
    """
    clients, attackers = config.data.clients, config.adversaries.clients
    order = np.random.default_rng([seed, 2]).permutation(clients)
    return np.isin(np.arange(clients), order[:attackers])


def attack_of(config: Federated, seed: int) -> Adversaries | None:
    """Makes the attack that the config names.

    ``a_little_is_enough`` hides in a majority of all clients, also where a cohort is smaller.

    Args:
      config: the fields.
      seed: of the training.

    Returns:
      The adversaries; None without any, or where they flip labels and send what they learn.

    Raises:
      ValueError: the name is unknown, or its argument is missing, no number or out of range.

    References:
      See `protect.attacks`.
    """
    text, count = config.adversaries.attack, config.adversaries.clients
    if not text:
        return None
    name, colon, argument = text.partition(":")
    try:
        match name, float(argument) if colon else None:
            case "label_flip", None:
                return None
            case "sign_flip", None:
                attack = attacks.sign_flip()
            case "sign_flip", scale:
                attack = attacks.sign_flip(scale)
            case "gaussian", float(std):
                attack = attacks.gaussian(std)
            case "a_little_is_enough", z:
                attack = attacks.a_little_is_enough(config.data.clients, count, z)
            case "inner_product", float(epsilon):
                attack = attacks.inner_product(epsilon)
            case _:
                hint = suggest(name, _FORMS)
                raise ValueError(f"it is none of {', '.join(_FORMS)}{hint}")
    except ValueError as error:
        raise ValueError(f"adversaries.attack {text!r}: {error}") from error
    return Adversaries(attack, attackers_of(config, seed))


def labels_of(
    config: Federated, split: Any, labels: np.ndarray, classes: int, seed: int
) -> np.ndarray:
    """Flips the labels of the samples that attackers train on, where the config says so.

    Args:
      config: the fields.
      split: who trains on what, a `samples.Split`.
      labels: of all samples, int32 ``[n]``.
      classes: how many.
      seed: of the training.

    Returns:
      Labels of all samples; the same where nobody flips them.
    """
    if config.adversaries.attack != "label_flip":
        return labels
    table, counts = split.train
    mine = np.arange(table.shape[1]) < counts[:, None]
    mine &= attackers_of(config, seed)[:, None]
    labels = labels.copy()
    labels[table[mine]] = attacks.label_flip(
        labels[table[mine]], np.ones(mine.sum(), bool), classes
    )
    return labels
