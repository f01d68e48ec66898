"""What rounds cost on the modelled system: seconds, joules and bytes; nothing here is measured."""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import tiers
from eejax.core import Codec, FederatedAlgorithm
from eejax.cotrain.federated import price_round
from eejax.tiers import Topology, Work
from eejax.wire import abstract_nbytes, identity

PyTree = Any


class Message(NamedTuple):
    """Equal messages between two tiers.

    Attributes:
      source: name of the tier that sends.
      target: name of the tier that receives.
      kind: one of ``core.KINDS``.
      what: what is sent.
      nbytes: bytes of one message.
      count: how many until the end of each round, int ``[rounds]``.
    """

    source: str
    target: str
    kind: str
    what: str
    nbytes: int
    count: np.ndarray


class Bill(NamedTuple):
    """Costs until the end of each round.

    Attributes:
      seconds: ``[rounds]``.
      joules: of end devices and links, ``[rounds]``.
      messages: all that crosses links.
      top: name of the highest tier, over whose links bytes are the dearest.
    """

    seconds: np.ndarray
    joules: np.ndarray
    messages: tuple[Message, ...]
    top: str

    def nbytes(self, tier: str | None = None) -> np.ndarray:
        """Counts bytes until the end of each round: all, or those from or to a tier."""
        return sum(
            (m.nbytes * m.count for m in self.messages if tier in (None, m.source, m.target)),
            np.zeros(len(self.seconds), np.int64),
        )

    def ledger(self, rounds: int) -> tiers.Ledger:
        """Lists what crossed the links in the first rounds."""
        ledger = ()
        for m in self.messages:
            ledger = tiers.record(ledger, *m[:5], int(m.count[rounds - 1]) if rounds else 0)
        return ledger


class Sizes(NamedTuple):
    """What one turn of a client sends and does.

    Attributes:
      down: bytes that a client receives.
      up: bytes that it sends.
      work: of a local step.
      steps: local steps of a turn, ``[clients]``.
    """

    down: int
    up: int
    work: Work
    steps: np.ndarray


def sizes_of(
    algorithm: FederatedAlgorithm, params: PyTree, codec: Codec, work: Work, steps: np.ndarray
) -> Sizes:
    """Measures what an algorithm sends.

    Args:
      algorithm: a federated algorithm.
      params: the model.
      codec: of the uploads.
      work: of a local step.
      steps: local steps of a turn, ``[clients]``.

    Returns:
      The sizes.
    """
    sent = jax.eval_shape(lambda p: algorithm.broadcast(algorithm.init(p)), params)
    upload = jax.eval_shape(algorithm.upload, params)
    return Sizes(abstract_nbytes(identity(), sent), abstract_nbytes(codec, upload), work, steps)


def in_rounds(start: Any, seconds: np.ndarray, began: np.ndarray, arrived: np.ndarray) -> Bill:
    """Prices rounds that the server begins and ends.

    Every client that begins receives the model; those that arrive send an update. Whoever is too
    late is told to stop when the round ends.

    Args:
      start: what the training starts from, a `lab.Start`.
      seconds: length of each round, ``[rounds]``.
      began: who was sent the model, bool ``[rounds, clients]``.
      arrived: whose update came in time, bool ``[rounds, clients]``.

    Returns:
      The bill.
    """
    topology, sizes, turn = start.topology, start.sizes, start.turn
    busy = np.minimum(turn.train_s, np.maximum(seconds[:, None] - turn.down_s, 0)) * began
    ends = topology.tiers[0].devices
    waiting = (tiers.compute_joules(ends, 1.0, 0) * np.ones(len(turn.train_s))).sum() * seconds
    working = (busy * (np.subtract(ends.busy_w, ends.idle_w))).sum(1)
    down, up = _path_joules(topology, sizes)
    joules = waiting + working + began @ down + arrived @ up
    messages = []
    for below, above in itertools.pairwise(topology.names):
        messages += [
            Message(above, below, "information", "model", sizes.down, began.sum(1).cumsum()),
            Message(below, above, "information", "update", sizes.up, arrived.sum(1).cumsum()),
        ]
    return Bill(seconds.cumsum(), joules.cumsum(), tuple(m for m in messages if m.nbytes),
                topology.names[-1])  # fmt: skip


def hierarchical(start: Any, algorithm: FederatedAlgorithm, k2: int, rounds: int) -> Bill:
    """Prices rounds of the cloud, in which edges aggregate ``k2`` times.

    Edges exchange with the cloud as many bytes as clients with them; what the optimiser of the
    server keeps beside that is not counted.

    Args:
      start: what the training starts from, on the tiers end, edge and cloud.
      algorithm: a federated algorithm.
      k2: aggregations at the edge for one in the cloud.
      rounds: how many.

    Returns:
      The bill.
    """
    sent = jax.eval_shape(algorithm.upload, start.params)
    price = price_round(
        start.topology, start.sizes.work, sent, k1=start.sizes.steps, k2=k2, codec=start.codec,
        edge_codec=start.codec,
    )  # fmt: skip
    number = np.arange(1, rounds + 1)
    messages = tuple(Message(*t[:5], t.count * number) for t in price.ledger)
    return Bill(price.seconds * number, sum(price.joules.values()) * number, messages,
                start.topology.names[-1])  # fmt: skip


def with_samples(bill: Bill, start: Any, shared: int, samples: Any) -> Bill:
    """Adds raw samples that every client gets from the cloud before the first round.

    Args:
      bill: of the rounds.
      start: what the training starts from.
      shared: how many samples each client gets.
      samples: all samples, a `samples.Samples`.

    Returns:
      The bill; the same if nothing is shared.
    """
    if not shared:
        return bill
    sizes = start.sizes._replace(down=shared * samples.nbytes, up=0)
    turn = tiers.turnaround(start.topology, sizes.work, 0, sizes.down, 0)
    down, _ = _path_joules(start.topology, sizes)
    names, count = start.topology.names, np.full(len(bill.seconds), len(turn.down_s))
    first = tuple(
        Message(above, below, "data", "shared samples", sizes.down, count)
        for below, above in itertools.pairwise(names)
    )
    return Bill(
        bill.seconds + turn.down_s.max(), bill.joules + down.sum(), (*first, *bill.messages),
        bill.top,
    )  # fmt: skip


def as_they_come(start: Any, arrivals: tiers.Arrivals, per_round: int) -> Bill:
    """Prices asynchronous training.

    Args:
      start: what the training starts from.
      arrivals: what happens when.
      per_round: arrivals that make a round.

    Returns:
      The bill; a turn is paid when it ends.
    """
    topology, sizes, turn = start.topology, start.sizes, start.turn
    ends = topology.tiers[0].devices
    own = ~arrivals.duplicate
    work = turn.train_s * np.subtract(ends.busy_w, ends.idle_w)
    down, up = _path_joules(topology, sizes)
    idle = (tiers.compute_joules(ends, 1.0, 0) * np.ones(len(turn.train_s))).sum()
    spent = np.where(own, (work + down)[arrivals.client], 0) + up[arrivals.client]
    last = np.arange(per_round - 1, len(arrivals.time_s), per_round)
    seconds = arrivals.time_s[last]
    began, sent = own.cumsum()[last], (last + 1)
    messages = []
    for below, above in itertools.pairwise(topology.names):
        messages += [
            Message(above, below, "information", "model", sizes.down, began),
            Message(below, above, "information", "update", sizes.up, sent),
        ]
    return Bill(seconds, idle * seconds + spent.cumsum()[last], tuple(messages),
                topology.names[-1])  # fmt: skip


def in_one_place(start: Any, nbytes: int, rounds: int) -> Bill:
    """Prices training in the cloud: all samples go up once.

    Args:
      start: what the training starts from.
      nbytes: bytes of a sample.
      rounds: how many.

    Returns:
      The bill.
    """
    topology, work, counts = start.topology, start.sizes.work, start.split.train.counts
    up_s = np.zeros(len(counts))
    for k, tier in enumerate(topology.tiers[:-1]):
        node = topology.ancestor(k)
        up_s += tiers.transfer_seconds(tiers.take(tier.links, node), nbytes * counts, "up")
    cloud = topology.tiers[-1].device(0)
    each = float(start.sizes.steps.sum() * tiers.roofline(cloud, *work))
    seconds = up_s.max() + each * np.arange(1, rounds + 1)
    _, up = _path_joules(topology, Sizes(0, nbytes, work, counts))
    joules = (up * counts).sum() + tiers.compute_joules(cloud, seconds - up_s.max())
    total = np.full(rounds, counts.sum())
    messages = tuple(
        Message(below, above, "data", "samples", nbytes, total)
        for below, above in itertools.pairwise(topology.names)
    )
    return Bill(seconds, joules, messages, topology.names[-1])


def _path_joules(topology: Topology, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Models the energy of a client's messages over all links of its path, ``[clients]`` each."""
    down, up = np.zeros(topology.tiers[0].nodes), np.zeros(topology.tiers[0].nodes)
    for k, tier in enumerate(topology.tiers[:-1]):
        node = topology.ancestor(k)
        for total, nbytes, way in ((down, sizes.down, "down"), (up, sizes.up, "up")):
            joules = tiers.transfer_joules(tier.links, nbytes, way)
            total += np.broadcast_to(joules, (tier.nodes,))[node]
    return down, up


def rounds_of(
    start: Any, rounds: int, deadline_s: float, quorum: int = 1, cohort: np.ndarray | None = None
) -> tiers.Rounds:
    """Simulates rounds that end at a deadline, see `tiers.semi_synchronous`.

    Args:
      start: what the training starts from.
      rounds: how many.
      deadline_s: seconds to wait; infinite to wait for all.
      quorum: updates to wait for all the same.
      cohort: who takes part, bool ``[rounds, clients]``; all if None.

    Returns:
      The rounds.
    """
    if cohort is None:
        return tiers.semi_synchronous(
            start.turn, rounds=rounds, deadline_s=deadline_s, quorum=quorum,
            seed=start.cell.seed, faults=start.faults,
        )  # fmt: skip
    rng = np.random.default_rng(start.cell.seed)
    factor = np.exp(start.faults.jitter * rng.standard_normal(cohort.shape))
    turn = start.turn
    needed = turn.down_s + turn.up_s + factor * turn.train_s
    return tiers.Rounds(np.where(cohort, needed, 0).max(1), cohort)
