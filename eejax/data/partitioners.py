"""Partitioners by name, as configs give them.

A partitioner is ``(labels, clients, seed, ...) -> indices``: for each client the positions of its
samples, int64, in random order. Every sample belongs to exactly one client.
"""

import functools
from typing import Any

from eejax.data.label_skew import classes_per_client, dirichlet, inner_dirichlet, shards
from eejax.data.natural import natural
from eejax.data.parts import Indices, Partitioner, positive
from eejax.data.quantity_skew import iid, power_law, quantity_skew
from eejax.names import suggest

_FORMS = (
    "iid", "dirichlet:ALPHA", "inner_dirichlet:ALPHA", "inner_dirichlet:ALPHA:SIZE_SD",
    "shards:PER_CLIENT", "classes:PER_CLIENT", "quantity:ALPHA", "power_law:EXPONENT", "natural",
)  # fmt: skip


def from_name(text: str) -> Partitioner:
    """Makes the partitioner that a config names.

    Args:
      text: ``iid``, ``dirichlet:ALPHA``, ``inner_dirichlet:ALPHA``,
        ``inner_dirichlet:ALPHA:SIZE_SD``, ``shards:PER_CLIENT``, ``classes:PER_CLIENT``,
        ``quantity:ALPHA`` or ``power_law:EXPONENT``. For ``natural`` see `partition_by`.

    Returns:
      ``(labels, clients, seed) -> indices``.

    Raises:
      ValueError: the name is unknown (tells the nearest one), or an argument is missing, needless,
        no number or out of range.

    Example:
      >>> import numpy as np
      >>> partition = from_name("shards:2")
      >>> len(partition(np.arange(100) % 10, clients=5, seed=0))
      5
    """
    name, *arguments = text.split(":")
    try:
        match name, arguments:
            case "iid", []:
                return iid
            case "dirichlet", [alpha]:
                return functools.partial(dirichlet, alpha=_number(alpha))
            case "inner_dirichlet", [alpha]:
                return functools.partial(inner_dirichlet, alpha=_number(alpha))
            case "inner_dirichlet", [alpha, sd]:
                size_sd = _number(sd)
                return functools.partial(inner_dirichlet, alpha=_number(alpha), size_sd=size_sd)
            case "shards", [per_client]:
                return functools.partial(shards, per_client=_number(per_client, int))
            case "classes", [per_client]:
                return functools.partial(classes_per_client, per_client=_number(per_client, int))
            case "quantity", [alpha]:
                return functools.partial(quantity_skew, alpha=_number(alpha))
            case "power_law", [exponent]:
                return functools.partial(power_law, exponent=_number(exponent))
            case "natural", []:
                raise ValueError("it needs the group of each sample; see `partition_by`")
    except ValueError as error:
        raise ValueError(f"partitioner {text!r}: {error}") from error
    forms = ", ".join(_FORMS)
    raise ValueError(f"partitioner {text!r} is none of {forms}{suggest(name, _FORMS)}")


def partition_by(
    name: str | Partitioner, labels: Any, clients: int, seed: int, groups: Any = None
) -> Indices:
    """Spreads samples over clients as a config says.

    Args:
      name: as for `from_name`, or ``natural``, or a partitioner.
      labels: ``[n]``.
      clients: how many.
      seed: of `numpy.random.default_rng`.
      groups: ``[n]``, the natural group of each sample, such as ``source.groups``; only for
        ``natural``.

    Returns:
      Positions of the samples of each client.

    Raises:
      ValueError: as `from_name` and the partitioner; or ``natural`` lacks its groups.

    Example:
      >>> import numpy as np
      >>> labels = np.arange(12) % 3
      >>> sorted(map(len, partition_by("power_law:1", labels, clients=3, seed=0)))
      [2, 3, 7]
      >>> rows = partition_by("natural", labels, 2, seed=0, groups=np.repeat([8, 9], 6))
      >>> sorted(rows[1].tolist())
      [6, 7, 8, 9, 10, 11]
    """
    if name != "natural":
        return (name if callable(name) else from_name(name))(labels, clients, seed)
    if groups is None or len(groups) != len(labels):
        got = "none" if groups is None else f"{len(groups)} for {len(labels)} samples"
        raise ValueError(f"partitioner 'natural': groups must be one a sample; got {got}")
    return natural(groups, clients, seed)


def _number(text: str, kind: type = float) -> float:
    return positive("its argument", kind(text))
