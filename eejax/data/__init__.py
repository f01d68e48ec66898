"""Data: what can be loaded, how it is spread over clients, in which order, and how it drifts."""

from eejax.data.drift import blur, contrast, invert, noise, occlude, rotate, translate
from eejax.data.drift import from_name as drift_from_name
from eejax.data.idx import import_idx
from eejax.data.listing import list_datasets
from eejax.data.load import load
from eejax.data.partitioners import (
    ClientIndex,
    Partitioner,
    dirichlet,
    iid,
    pack,
    quantity_skew,
    shards,
)
from eejax.data.partitioners import from_name as partitioner_from_name
from eejax.data.plot import label_distribution, plot_label_distribution
from eejax.data.prepare import prepare
from eejax.data.shuffle import batch_indices, client_batches
from eejax.data.source import DataSource, Info, subset

__all__ = [
    "ClientIndex",
    "DataSource",
    "Info",
    "Partitioner",
    "batch_indices",
    "blur",
    "client_batches",
    "contrast",
    "dirichlet",
    "drift_from_name",
    "iid",
    "import_idx",
    "invert",
    "label_distribution",
    "list_datasets",
    "load",
    "noise",
    "occlude",
    "pack",
    "partitioner_from_name",
    "plot_label_distribution",
    "prepare",
    "quantity_skew",
    "rotate",
    "shards",
    "subset",
    "translate",
]
