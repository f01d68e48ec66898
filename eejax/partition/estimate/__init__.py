"""Seconds of layers estimated from measurements, each with its error on held-out ones."""

from eejax.partition.estimate.errors import Errors, errors
from eejax.partition.estimate.fit_device import fit_device
from eejax.partition.estimate.prefix import PrefixEstimate, prefix_seconds
from eejax.partition.estimate.regression import (
    KindFit,
    Regression,
    features_of,
    fit_regression,
    predict_regression,
)

__all__ = [
    "Errors",
    "KindFit",
    "PrefixEstimate",
    "Regression",
    "errors",
    "features_of",
    "fit_device",
    "fit_regression",
    "predict_regression",
    "prefix_seconds",
]
