"""Data: what can be loaded, how it is spread over clients, in which order, and how it drifts."""

from eejax.data.drift import blur, contrast, invert, noise, occlude, rotate, translate
from eejax.data.drift import from_name as drift_from_name
from eejax.data.feature_skew import (
    FeatureSkew,
    noise_skew,
    rotation_skew,
    skew_features,
    writer_skew,
)
from eejax.data.feature_skew import from_name as feature_skew_from_name
from eejax.data.idx import import_idx
from eejax.data.import_set import import_set
from eejax.data.label_skew import classes_per_client, dirichlet, inner_dirichlet, shards
from eejax.data.listing import list_datasets
from eejax.data.load import load
from eejax.data.natural import natural
from eejax.data.partition_file import (
    Partition,
    features_of,
    load_partition,
    make_partition,
    save_partition,
)
from eejax.data.partitioners import from_name as partitioner_from_name
from eejax.data.partitioners import partition_by
from eejax.data.parts import ClientIndex, Partitioner, pack
from eejax.data.plot import label_distribution, plot_feature_skew, plot_label_distribution
from eejax.data.prepare import prepare
from eejax.data.quantity_skew import iid, power_law, quantity_skew
from eejax.data.shuffle import batch_indices, client_batches
from eejax.data.source import DataSource, Info, subset

__all__ = [
    "ClientIndex",
    "DataSource",
    "FeatureSkew",
    "Info",
    "Partition",
    "Partitioner",
    "batch_indices",
    "blur",
    "classes_per_client",
    "client_batches",
    "contrast",
    "dirichlet",
    "drift_from_name",
    "feature_skew_from_name",
    "features_of",
    "iid",
    "import_idx",
    "import_set",
    "inner_dirichlet",
    "invert",
    "label_distribution",
    "list_datasets",
    "load",
    "load_partition",
    "make_partition",
    "natural",
    "noise",
    "noise_skew",
    "occlude",
    "pack",
    "partition_by",
    "partitioner_from_name",
    "plot_feature_skew",
    "plot_label_distribution",
    "power_law",
    "prepare",
    "quantity_skew",
    "rotate",
    "rotation_skew",
    "save_partition",
    "shards",
    "skew_features",
    "subset",
    "translate",
    "writer_skew",
]
