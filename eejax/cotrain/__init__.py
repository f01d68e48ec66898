"""One model, many nodes: federated algorithms and the engines that run them over the tiers."""

from eejax.cotrain.fedavg import ServerState, fedavg
from eejax.cotrain.flat import Engine, FederatedState, flat
from eejax.cotrain.hierfavg import hierfavg
from eejax.cotrain.price import RoundPrice, price_round
from eejax.cotrain.rows import Rows, place, replicate, rows_of

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
