"""Personalised federated training: a model for each client, by adaptation, parts or relations."""

from eejax.cotrain.personal.ditto import ditto
from eejax.cotrain.personal.evaluate import (
    Score,
    by_client,
    evaluator,
    hold_out,
    mean_score,
    worst_clients,
)
from eejax.cotrain.personal.fedfomo import fedfomo
from eejax.cotrain.personal.fedper import fedper
from eejax.cotrain.personal.fedrecon import fedrecon
from eejax.cotrain.personal.fedrep import fedrep
from eejax.cotrain.personal.fine_tune import fine_tune
from eejax.cotrain.personal.local_only import local_only
from eejax.cotrain.personal.maml import maml
from eejax.cotrain.personal.meta_sgd import meta_sgd
from eejax.cotrain.personal.mocha import mocha
from eejax.cotrain.personal.per_fedavg import per_fedavg
from eejax.cotrain.personal.personal import Personal
from eejax.cotrain.personal.pfedsd import pfedsd
from eejax.cotrain.personal.pfldyn import pfldyn
from eejax.cotrain.personal.reptile import reptile
from eejax.cotrain.personal.seats import seated, stack_nbytes

__all__ = [
    "Personal",
    "Score",
    "by_client",
    "ditto",
    "evaluator",
    "fedfomo",
    "fedper",
    "fedrecon",
    "fedrep",
    "fine_tune",
    "hold_out",
    "local_only",
    "maml",
    "mean_score",
    "meta_sgd",
    "mocha",
    "per_fedavg",
    "pfedsd",
    "pfldyn",
    "reptile",
    "seated",
    "stack_nbytes",
    "worst_clients",
]
