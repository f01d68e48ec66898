"""Federated training: algorithms, and the engines that compile their rounds over the tiers."""

from eejax.cotrain.federated import samplers
from eejax.cotrain.federated.asynchronous import AsyncEngine, AsyncServer, asynchronous
from eejax.cotrain.federated.cohort import population, sampled
from eejax.cotrain.federated.drfa import drfa
from eejax.cotrain.federated.epochs import Epochs
from eejax.cotrain.federated.fedasync import constant_staleness, fedasync, hinge, polynomial
from eejax.cotrain.federated.fedavg import ServerState, fedavg
from eejax.cotrain.federated.fedavgm import fedavgm
from eejax.cotrain.federated.fedbuff import fedbuff
from eejax.cotrain.federated.fednova import fednova
from eejax.cotrain.federated.fedopt import fedadagrad, fedadam, fedyogi
from eejax.cotrain.federated.fedprox import fedprox
from eejax.cotrain.federated.fedsgd import fedsgd
from eejax.cotrain.federated.flat import Engine, FederatedState, flat
from eejax.cotrain.federated.hierfavg import hierfavg
from eejax.cotrain.federated.price import RoundPrice, price_round
from eejax.cotrain.federated.rows import Rows, place, replicate, rows_of
from eejax.cotrain.federated.scaffold import scaffold

__all__ = [
    "AsyncEngine",
    "AsyncServer",
    "Engine",
    "Epochs",
    "FederatedState",
    "RoundPrice",
    "Rows",
    "ServerState",
    "asynchronous",
    "constant_staleness",
    "drfa",
    "fedadagrad",
    "fedadam",
    "fedasync",
    "fedavg",
    "fedavgm",
    "fedbuff",
    "fednova",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "flat",
    "hierfavg",
    "hinge",
    "place",
    "polynomial",
    "population",
    "price_round",
    "replicate",
    "rows_of",
    "sampled",
    "samplers",
    "scaffold",
]
