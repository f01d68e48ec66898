"""Virtual time for what is not lock-step: who arrives at a server when, computed ahead of training.

How long a client takes does not depend on what it learns, so the order of events is known before
the first gradient: it becomes arrays that a compiled loop follows. All times are modelled seconds.
"""

from typing import Any, NamedTuple

import numpy as np
import simpy

from eejax.tiers.cost import Work, roofline, transfer_seconds
from eejax.tiers.topology import Topology


class Turnaround(NamedTuple):
    """What one turn of every client takes, seconds ``[clients]``.

    Attributes:
      down_s: from the server's sending the model to the client's having it.
      train_s: local training.
      up_s: from the client's sending its update to the server's having it.
    """

    down_s: np.ndarray
    train_s: np.ndarray
    up_s: np.ndarray


class Faults(NamedTuple):
    """What goes wrong on the way.

    Attributes:
      jitter: standard deviation of the logarithm of a factor on the time of each turn; 0 for none.
      dropout: probability that the update of a turn never arrives.
      duplicate: probability that an update arrives a second time, later than the first.
    """

    jitter: float = 0.0
    dropout: float = 0.0
    duplicate: float = 0.0


class Arrivals(NamedTuple):
    """Ends of turns in the order of time, ``[events]`` each.

    Attributes:
      time_s: when the server has the update, or gives up waiting for it.
      client: whose it is.
      slot: which of the turns under way, in ``[0, concurrency)``; the next turn takes it over.
      turn: number of the turn, the same for an update and its duplicate.
      staleness: updates that the server has taken since this client got its model.
      lost: whether the update never arrives.
      duplicate: whether it has arrived before.
    """

    time_s: np.ndarray
    client: np.ndarray
    slot: np.ndarray
    turn: np.ndarray
    staleness: np.ndarray
    lost: np.ndarray
    duplicate: np.ndarray


class Rounds(NamedTuple):
    """Rounds that end before all clients have answered.

    Attributes:
      seconds: length of every round, ``[rounds]``.
      arrived: whose update is in the round, bool ``[rounds, clients]``.
    """

    seconds: np.ndarray
    arrived: np.ndarray


def turnaround(
    topology: Topology, work: Work, steps: Any, down_nbytes: float, up_nbytes: float
) -> Turnaround:
    """Models the turns of all end devices with the server at the top of the topology.

    Args:
      topology: its lowest tier are the clients.
      work: of one local step.
      steps: local steps of a turn, one number or ``[clients]``.
      down_nbytes: bytes of the model.
      up_nbytes: bytes of the update.

    Returns:
      The times; transfers go over the links of the path one after the other.

    Example:
      >>> from eejax.tiers import three_tier
      >>> turn = turnaround(three_tier(ends=4), Work(1e8, 1e6), 10, 1e6, 1e5)
      >>> turn.train_s.shape, bool((turn.up_s < turn.down_s).all())
      ((4,), True)
    """
    tiers = topology.tiers
    ends = tiers[0].nodes
    train = np.broadcast_to(steps * roofline(tiers[0].devices, *work), (ends,))
    down, up = np.zeros(ends), np.zeros(ends)
    for k, tier in enumerate(tiers[:-1]):
        node = topology.ancestor(k)
        for total, nbytes, way in ((down, down_nbytes, "down"), (up, up_nbytes, "up")):
            seconds = transfer_seconds(tier.links, nbytes, way)
            total += np.broadcast_to(seconds, (tier.nodes,))[node]
    return Turnaround(down, train, up)


def arrivals(
    turn: Turnaround,
    *,
    events: int,
    concurrency: int,
    seed: int,
    faults: Faults = Faults(),  # noqa: B008  (a NamedTuple of numbers)
) -> Arrivals:
    """Simulates asynchronous training: whoever is done is replaced by a random idle client.

    Args:
      turn: what the clients take.
      events: number of arrivals, losses and duplicates to simulate.
      concurrency: clients that train at the same time, at most the number of clients.
      seed: of the choice of clients and of faults.
      faults: what goes wrong.

    Returns:
      The events.

    Raises:
      ValueError: a number is out of range; names it.

    References:
      Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, 2022 (constant
      concurrency).

    Example:
      >>> turn = Turnaround(np.zeros(2), np.array([1.0, 10.0]), np.zeros(2))
      >>> found = arrivals(turn, events=5, concurrency=2, seed=0)  # One is ten times faster.
      >>> found.client.tolist()
      [0, 0, 0, 0, 0]
    """
    clients = len(turn.train_s)
    _check(faults, events=events, concurrency=concurrency)
    if concurrency > clients:
        raise ValueError(f"concurrency must be at most the {clients} clients, got {concurrency}")
    rng = np.random.default_rng(seed)
    env, rows = simpy.Environment(), []
    idle = rng.permutation(clients).tolist()
    done = env.event()
    count = {"turn": 0, "version": 0}

    def note(*row: Any) -> None:
        rows.append((env.now, *row))
        if len(rows) == events and not done.triggered:
            done.succeed()

    def again(client: int, slot: int, number: int, version: int, delay: float):
        yield env.timeout(delay)
        note(client, slot, number, count["version"] - version, False, True)

    def serve(slot: int):
        while True:
            client = idle.pop(int(rng.integers(len(idle))))
            number, version = count["turn"], count["version"]
            count["turn"] += 1
            factor = float(np.exp(faults.jitter * rng.standard_normal()))
            lost, twice = rng.random(2) < (faults.dropout, faults.duplicate)
            moving = float(turn.down_s[client] + turn.up_s[client])
            yield env.timeout(moving + factor * float(turn.train_s[client]))
            note(client, slot, number, count["version"] - version, bool(lost), False)
            if not lost:
                count["version"] += 1
                if twice:
                    env.process(again(client, slot, number, version, moving * rng.random()))
            idle.append(client)

    for slot in range(concurrency):
        env.process(serve(slot))
    env.run(done)
    time_s, client, slot, number, staleness, lost, twice = zip(*rows[:events])
    return Arrivals(
        np.array(time_s),
        np.array(client, np.int32),
        np.array(slot, np.int32),
        np.array(number, np.int32),
        np.array(staleness, np.int32),
        np.array(lost),
        np.array(twice),
    )


def semi_synchronous(
    turn: Turnaround,
    *,
    rounds: int,
    deadline_s: float,
    quorum: int = 1,
    seed: int = 0,
    faults: Faults = Faults(),  # noqa: B008
) -> Rounds:
    """Simulates rounds that wait until a deadline, and longer only until a quorum has answered.

    Late updates are dropped; every client starts each round anew. A round ends early when all have
    answered. Clients whose updates are lost never answer.

    Args:
      turn: what the clients take.
      rounds: number of rounds.
      deadline_s: seconds to wait; infinite for synchronous training.
      quorum: answers to wait for, even past the deadline; a round in which fewer can come ends when
        the last has.
      seed: of faults.
      faults: what goes wrong; duplicates are ignored, as a server knows whom it has heard.

    Returns:
      The rounds.

    Raises:
      ValueError: a number is out of range; names it.

    References:
      Bonawitz et al., Towards Federated Learning at Scale: System Design, 2019.

    Example:
      >>> turn = Turnaround(np.zeros(3), np.array([1.0, 2.0, 30.0]), np.zeros(3))
      >>> one = semi_synchronous(turn, rounds=1, deadline_s=5)
      >>> one.seconds.tolist(), one.arrived.tolist()
      ([5.0], [[True, True, False]])
    """
    clients = len(turn.train_s)
    _check(faults, rounds=rounds, quorum=quorum)
    if quorum > clients:
        raise ValueError(f"quorum must be at most the {clients} clients, got {quorum}")
    if not deadline_s > 0:
        raise ValueError(f"deadline_s must be above 0, got {deadline_s}")
    rng = np.random.default_rng(seed)
    factor = np.exp(faults.jitter * rng.standard_normal((rounds, clients)))
    needed = turn.down_s + turn.up_s + factor * turn.train_s
    lost = rng.random((rounds, clients)) < faults.dropout
    needed = np.where(lost, np.inf, needed)
    ordered = np.sort(needed, 1)
    answering = np.isfinite(needed).sum(1)
    last = np.take_along_axis(ordered, np.maximum(answering - 1, 0)[:, None], 1)[:, 0]
    enough = np.where(answering >= quorum, ordered[:, quorum - 1], last)
    # With losses a synchronous server would wait for ever: it then stops at the last answer.
    full = np.where(answering == clients, last, np.inf)
    waited = np.where(np.isfinite(deadline_s), np.minimum(deadline_s, full), last)
    seconds = np.maximum(waited, np.where(np.isfinite(enough), enough, 0))
    seconds = np.where(np.isfinite(seconds), seconds, 0)
    return Rounds(seconds, needed <= seconds[:, None])


def _check(faults: Faults, **counts: int) -> None:
    for field, value in counts.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{field} must be a whole number of at least 1, got {value!r}")
    if not 0 <= faults.jitter < np.inf:
        raise ValueError(f"faults.jitter must be >= 0, got {faults.jitter}")
    for field in ("dropout", "duplicate"):
        if not 0 <= getattr(faults, field) < 1:
            raise ValueError(f"faults.{field} must be in [0, 1), got {getattr(faults, field)}")
