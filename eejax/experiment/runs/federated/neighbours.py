"""What rounds of gossip cost on the modelled system; nothing here is measured."""

from typing import Any

import numpy as np

from eejax import tiers, trees
from eejax.cotrain.decentralised import price_mixing, seat
from eejax.cotrain.federated import Rows
from eejax.experiment.runs.federated.bill import Bill, Message

PyTree = Any


def between_neighbours(start: Any, w: np.ndarray, rows: Rows, sent: PyTree, rounds: int) -> Bill:
    """Prices rounds in which every client sends its model to its neighbours, without a server.

    Neighbours of one edge server talk over its local network: up the link of one and down that of
    the other. Models for others also cross the wide area, up from one edge server and down to the
    other. A client sends and receives one after the other, and a round lasts until the slowest has
    trained, sent all and received all.

    Args:
      start: what the training starts from, a `lab.Start`.
      w: mixing matrix over the clients.
      rows: where they sit.
      sent: what goes along an edge of the graph, arrays or abstract arrays.
      rounds: how many.

    Returns:
      The bill.
    """
    topology, turn, nbytes = start.topology, start.turn, trees.nbytes(sent)
    ends, edges = topology.tiers[:2]
    talks = (w > 0) & ~np.eye(len(w), dtype=bool)
    near = talks.sum(1)
    far = (talks & (ends.parent[:, None] != ends.parent[None])).sum(1)

    def of_messages(cost):
        """Costs of all messages of a client: a neighbour each way, far ones over the wide area."""
        own, wide = (
            sum(cost(tier.links, nbytes, way) * np.ones(tier.nodes) for way in ("up", "down"))
            for tier in (ends, edges)
        )
        return near * own + far * wide[ends.parent]

    seconds = float((turn.train_s + of_messages(tiers.transfer_seconds)).max())
    idle = (tiers.compute_joules(ends.devices, 1.0, 0) * np.ones(len(w))).sum() * seconds
    work = (turn.train_s * np.subtract(ends.devices.busy_w, ends.devices.idle_w)).sum()
    joules = idle + work + of_messages(tiers.transfer_joules).sum()
    number = np.arange(1, rounds + 1)
    messages = tuple(
        Message(*t[:5], t.count * number) for t in price_mixing(seat(w, rows), sent, rows)
    )
    return Bill(seconds * number, joules * number, messages, topology.names[-1])
