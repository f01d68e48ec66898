"""Federated training: algorithms, and the engines that compile their rounds over the tiers."""

from eejax.cotrain.federated.fedavg import ServerState, fedavg
from eejax.cotrain.federated.flat import Engine, FederatedState, flat
from eejax.cotrain.federated.hierfavg import hierfavg
from eejax.cotrain.federated.price import RoundPrice, price_round
from eejax.cotrain.federated.rows import Rows, place, replicate, rows_of

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
