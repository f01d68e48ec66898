"""The contract of personalised training: a federated algorithm, and a model for each client."""

from collections.abc import Callable
from typing import Any, NamedTuple

from eejax.core import FederatedAlgorithm

PyTree = Any


def _same(sent: PyTree) -> PyTree:
    return sent


class Personal(NamedTuple):
    """A personalised method.

    It trains in the engines `flat`, `hierfavg` and `sampled` as any federated algorithm, which know
    nothing of personal models; `evaluator` makes those when training is over, or amid it.

    Attributes:
      algorithm: what is trained.
      personalise: ``(broadcast, ClientState, batches, key, tau=None) -> params``: the client's own
        model from what it was sent and what it kept. ``batches`` are its training samples, leaves
        ``[steps, batch, ...]`` of which the first ``tau`` count; many methods need none.
      model: ``(broadcast) -> params``: the one model for all; None where there is no such model.
      deploy: ``(ServerState) -> broadcast`` when training is over; the algorithm's own if None.
    """

    algorithm: FederatedAlgorithm
    personalise: Callable[..., PyTree]
    model: Callable[[PyTree], PyTree] | None = _same
    deploy: Callable[[PyTree], PyTree] | None = None
