"""What a round of hierarchical training costs on the modelled system: bytes, seconds, joules."""

from typing import Any, NamedTuple

import numpy as np

from eejax.core import Codec
from eejax.tiers import (
    Ledger,
    Topology,
    Work,
    compute_joules,
    record,
    roofline,
    transfer_joules,
    transfer_seconds,
)
from eejax.wire import abstract_nbytes, identity

PyTree = Any


class RoundPrice(NamedTuple):
    """Modelled cost of one round of the cloud.

    Attributes:
      seconds: from the cloud's broadcast to its next one.
      joules: energy by tier and link, such as ``{"end": 3.1, "end-edge": 0.2}``.
      ledger: bytes that crossed each link.
    """

    seconds: float
    joules: dict[str, float]
    ledger: Ledger


def price_round(
    topology: Topology,
    work: Work,
    params: PyTree,
    *,
    k1: int,
    k2: int,
    codec: Codec | None = None,
    edge_codec: Codec | None = None,
) -> RoundPrice:
    """Prices one round of `hierfavg` on three tiers; everything is modelled, nothing measured.

    Lock-step: an edge waits for its slowest end device, the cloud for its slowest edge. Models go
    down as they are and updates go up through the codecs. End devices are busy while they train and
    idle for the rest of the round; averaging costs nothing, nor do edge and cloud while they wait,
    since they serve others. Energy of a link is both directions together. Whether gradients and
    activations fit the memory of a device is not modelled; a microcontroller may need another way.

    Args:
      topology: tiers end, edge, cloud.
      work: work of one local step.
      params: the model, arrays or abstract arrays.
      k1: local steps between aggregations at the edge.
      k2: aggregations at the edge between two in the cloud.
      codec: codec of updates from end to edge; identity if None.
      edge_codec: codec of updates from edge to cloud; identity if None.

    Returns:
      The price.

    Raises:
      ValueError: the topology does not have three tiers.
    """
    if len(topology.tiers) != 3:
        names = ", ".join(topology.names)
        raise ValueError(f"hierarchical training needs three tiers, got {names}")
    end, edge, cloud = topology.tiers
    down = abstract_nbytes(identity(), params)
    up = abstract_nbytes(codec or identity(), params)
    edge_up = abstract_nbytes(edge_codec or identity(), params)

    train = k1 * roofline(end.devices, *work)
    client = (
        transfer_seconds(end.links, down, "down") + train + transfer_seconds(end.links, up, "up")
    )
    slowest = np.zeros(edge.nodes)
    np.maximum.at(slowest, end.parent, client)
    wide_area = transfer_seconds(edge.links, down, "down") + transfer_seconds(
        edge.links, edge_up, "up"
    )
    seconds = float((wide_area + k2 * slowest).max())

    busy = k2 * train
    joules = {
        end.name: compute_joules(end.devices, busy) + compute_joules(end.devices, seconds - busy, 0)
    }
    ledger = ()
    for below, above, sent, rounds in ((end, edge, up, k2), (edge, cloud, edge_up, 1)):
        joules[f"{below.name}-{above.name}"] = rounds * (
            transfer_joules(below.links, down, "down") + transfer_joules(below.links, sent, "up")
        )
        count = rounds * below.nodes
        ledger = record(ledger, below.name, above.name, "information", "update", sent, count)
        ledger = record(ledger, above.name, below.name, "information", "model", down, count)
    return RoundPrice(seconds, {name: float(np.sum(j)) for name, j in joules.items()}, ledger)
