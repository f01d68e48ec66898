"""Federated training without a server: clients mix their models with those of their neighbours."""

from eejax.cotrain.decentralised.dpsgd import dpsgd, mean_model
from eejax.cotrain.decentralised.graphs import (
    MixingRule,
    mean_spectral_gap,
    random_matching,
    seat,
)
from eejax.cotrain.decentralised.price import graph_bytes, price_mixing
from eejax.cotrain.replica import complete, consensus_distance, metropolis, ring, spectral_gap, star

__all__ = [
    "MixingRule",
    "complete",
    "consensus_distance",
    "dpsgd",
    "graph_bytes",
    "mean_model",
    "mean_spectral_gap",
    "metropolis",
    "price_mixing",
    "random_matching",
    "ring",
    "seat",
    "spectral_gap",
    "star",
]
