"""Federated training: algorithms, and the engines that compile their rounds over the tiers."""

from eejax.cotrain.federated import samplers
from eejax.cotrain.federated.asynchronous import AsyncEngine, AsyncServer, asynchronous
from eejax.cotrain.federated.cohort import population, sampled
from eejax.cotrain.federated.drfa import drfa
from eejax.cotrain.federated.epochs import Epochs
from eejax.cotrain.federated.evaluate import Score, evaluator
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
from eejax.cotrain.federated.robust import Adversaries
from eejax.cotrain.federated.rows import Rows, place, replicate, rows_of
from eejax.cotrain.federated.scaffold import scaffold
from eejax.cotrain.federated.stored import stored
from eejax.cotrain.federated.stores import Store, disk_store, host_store

__all__ = [
    "Adversaries",
    "AsyncEngine",
    "AsyncServer",
    "Engine",
    "Epochs",
    "FederatedState",
    "RoundPrice",
    "Rows",
    "Score",
    "ServerState",
    "Store",
    "asynchronous",
    "constant_staleness",
    "disk_store",
    "drfa",
    "evaluator",
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
    "host_store",
    "place",
    "polynomial",
    "population",
    "price_round",
    "replicate",
    "rows_of",
    "sampled",
    "samplers",
    "scaffold",
    "stored",
]
