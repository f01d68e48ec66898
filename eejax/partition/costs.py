"""An objective as a table of costs: what searches over many placements read instead of prices."""

from typing import Any, NamedTuple

import numpy as np

from eejax.partition.objective import Objective, weights_of
from eejax.partition.rates import Rates

LINEAR = ("latency", "energy", "end_energy", "money", "bytes")
"""Objectives that are sums over layers and messages; ``worst_latency`` is not."""


class Costs(NamedTuple):
    """What a placement costs, as sums over layers, messages and links in use.

    With probabilities of early exits, a tensor that consumers read with different ones is several
    messages: each has the consumers above a probability, and the share by which it is higher.

    Attributes:
      layer: of each layer in each tier, ``[layers, tiers]``; infinite where forbidden.
      producer: layer that makes each message, -1 for the input, ``[messages]``.
      message: message of each read, ascending, ``[reads]``.
      consumer: layer of each read, ``[reads]``.
      up: of each message on each link, paid once, ``[messages, links]``.
      down: the same, down; infinite when data go up only.
      setup: of each link, once if any of the first ``setup_stop`` layers is beyond,
        ``[groups, links]``.
      setup_stop: ``[groups]``.
      choice: index of the codec of each tensor on each link, ``[tensors, links]``.
    """

    layer: np.ndarray
    producer: np.ndarray
    message: np.ndarray
    consumer: np.ndarray
    up: np.ndarray
    down: np.ndarray
    setup: np.ndarray
    setup_stop: np.ndarray
    choice: np.ndarray


def tabulate(rates: Rates, objective: Objective = "latency", choice: Any = None) -> Costs:
    """Tabulates an objective: `total` of any placement is what `price` says, to rounding.

    Args:
      rates: from `rates_of`.
      objective: one of `LINEAR`, or weights of several.
      choice: index of the codec of each tensor on each link, ``[tensors, links]``; the one that
        costs least by the objective on the way up if None.

    Returns:
      The table; its numbers are means over the end devices.

    Raises:
      ValueError: the objective is unknown, or not a sum over layers and messages.
    """
    weights = weights_of(objective)
    for name in weights:
        if name not in LINEAR:
            raise ValueError(
                f"objective {name!r} is no sum over layers and messages; choose one of "
                f"{', '.join(LINEAR)}, or search exhaustively"
            )
    w = {name: weights.get(name, 0.0) for name in LINEAR}
    tiers, links = rates.topology.tiers, len(rates.topology.tiers) - 1
    devices = [tier.devices for tier in tiers]
    # Shares of the end devices that each node serves, and the power at which they wait for it.
    ends = tiers[0].nodes
    share = [np.bincount(a, minlength=t.nodes) / ends for a, t in zip(rates.ancestor, tiers)]
    rest = np.broadcast_to(devices[0].idle_w, ends)
    idle = [np.bincount(a, rest, t.nodes) / ends for a, t in zip(rates.ancestor, tiers)]
    joule = w["energy"] + w["end_energy"]

    # Price of a second of computing and of moving at every node, of a byte on every link.
    compute = [
        share[k] * (w["latency"] + w["money"] * rates.usd_per_s[k])
        + (joule * share[0] * devices[0].busy_w if k == 0 else joule * idle[k])
        + (w["energy"] * share[k] * devices[k].busy_w if k else 0)
        for k in range(links + 1)
    ]
    moving = [w["latency"] * share[k] + joule * idle[k] for k in range(links)]

    def per_byte(joules: list[np.ndarray], k: int) -> float:
        radio = w["energy"] + (w["end_energy"] if k == 0 else 0)
        return radio * (share[k] @ joules[k]) + w["money"] * rates.usd_per_byte[k] + w["bytes"]

    up, down = (
        np.array([[per_byte(j, k)] for k in range(links)]) for j in (rates.up_j, rates.down_j)
    )

    layer = np.stack([s @ c for s, c in zip(rates.layer_s, compute)], 1) * rates.reach[:, None]
    answer = [
        rates.answer_s[k] @ moving[k] + rates.answer_nbytes * down[k, 0] for k in range(links)
    ]
    layer = layer + rates.leaves[:, None] * np.cumsum([0.0, *answer])
    layer = np.where(rates.allowed, layer, np.inf)

    sizes = np.array([np.broadcast_to(c.nbytes, len(rates.producer)) for c in rates.codecs], float)
    up_cost = _messages(rates.up_s, moving, up, sizes)
    choice = up_cost.argmin(0) if choice is None else choice
    up_cost = np.take_along_axis(up_cost, choice[None], 0)[0]
    if rates.down_s:
        down_cost = _messages(rates.down_s, moving, down, sizes)
        down_cost = np.take_along_axis(down_cost, choice[None], 0)[0]
    else:
        down_cost = np.full_like(up_cost, np.inf)
    tensor, share_of, message, consumer = _levels(rates)
    stops, steps = _prefixes(rates.reach)
    wake = rates.setup_s * [m.sum() for m in moving]
    return Costs(
        layer,
        rates.producer[tensor],
        message,
        consumer,
        up_cost[tensor] * share_of[:, None],
        down_cost[tensor] * share_of[:, None],
        steps[:, None] * wake,
        stops,
        choice,
    )


def total(costs: Costs, assignment: Any) -> float:
    """Adds up what a placement costs.

    Args:
      costs: from `tabulate`, or any other table.
      assignment: tier of each layer, ``[layers]``.

    Returns:
      The cost; infinite if it is forbidden.
    """
    x = np.asarray(assignment)
    source = np.where(costs.producer < 0, 0, x[costs.producer])
    cost = costs.layer[np.arange(len(x)), x].sum()
    # Lowest and highest tier of the readers of every message.
    high = np.full(len(source), -1)
    low = np.full(len(source), costs.layer.shape[1])
    np.maximum.at(high, costs.message, x[costs.consumer])
    np.minimum.at(low, costs.message, x[costs.consumer])
    for k in range(costs.up.shape[1]):
        cost += costs.up[(source <= k) & (high > k), k].sum()
        cost += costs.down[(source > k) & (low <= k), k].sum()
        cost += sum(c[k] for c, stop in zip(costs.setup, costs.setup_stop) if x[:stop].max() > k)
    return float(cost)


def _messages(
    seconds: list[list[np.ndarray]], moving: list[np.ndarray], per_byte: Any, sizes: Any
) -> np.ndarray:
    """Prices every codec, tensor and link, ``[codecs, tensors, links]``."""
    links = len(seconds)
    if not links:
        return np.zeros((*sizes.shape, 0))
    time = np.array(
        [[np.where(np.isfinite(s), s, 0) @ moving[k] for s in seconds[k]] for k in range(links)]
    )
    cost = time + per_byte[:, None] * np.where(np.isfinite(sizes), sizes, 0)
    return np.where(np.isfinite(sizes), cost, np.inf).transpose(1, 2, 0)


def _levels(rates: Rates) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Splits tensors into messages: (tensor, share) of each, (message, consumer) of each read."""
    tensor, consumer = rates.edges
    tensors = len(rates.producer)
    if (rates.reach[consumer] == 1).all():
        return np.arange(tensors), np.ones(tensors), tensor, consumer
    rows, shares, message, readers = [], [], [], []
    for t, mine in enumerate(np.split(consumer, np.searchsorted(tensor, range(1, tensors)))):
        values = np.unique(rates.reach[mine])
        for value, step in zip(values, np.diff(values, prepend=0)):
            readers += (inside := mine[rates.reach[mine] >= value]).tolist()
            message += [len(rows)] * len(inside)
            rows.append(t)
            shares.append(step)
    return np.array(rows, int), np.array(shares), np.array(message, int), np.array(readers, int)


def _prefixes(reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits the layers into the prefixes that a sample reaches, with the steps of probability."""
    stops = np.flatnonzero(np.diff(reach, append=-1)) + 1
    return stops, reach[stops - 1] - np.append(reach[stops[1:] - 1], 0)
