"""One model, many nodes: how a model is trained together over end, edge and cloud."""

from eejax.cotrain.federated import (
    Engine,
    FederatedState,
    RoundPrice,
    Rows,
    ServerState,
    fedavg,
    flat,
    hierfavg,
    place,
    price_round,
    replicate,
    rows_of,
)

__all__ = [
    "Engine",
    "FederatedState",
    "RoundPrice",
    "Rows",
    "ServerState",
    "fedavg",
    "flat",
    "hierfavg",
    "place",
    "price_round",
    "replicate",
    "rows_of",
]
