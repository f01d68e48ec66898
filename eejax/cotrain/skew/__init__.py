"""Remedies for data that are not IID: shared, generated and virtual samples, and adaptive work."""

from eejax.cotrain.skew.data_sharing import data_sharing, hold_out, price_sharing, warm_up
from eejax.cotrain.skew.faug import (
    Generator,
    draw_seeds,
    faug,
    fit_generator,
    generate,
    price_faug,
)
from eejax.cotrain.skew.loadaboost import (
    LoadaState,
    checkpoints,
    loadaboost,
    most_epochs,
    with_median,
)
from eejax.cotrain.skew.skewscout import (
    Climb,
    Kept,
    Period,
    climb,
    keep_models,
    objective,
    skewscout,
    start_climb,
    travel,
)
from eejax.cotrain.skew.vhl import Virtual, gaussian_classes, match, price_virtual, vhl

__all__ = [
    "Climb",
    "Generator",
    "Kept",
    "LoadaState",
    "Period",
    "Virtual",
    "checkpoints",
    "climb",
    "data_sharing",
    "draw_seeds",
    "faug",
    "fit_generator",
    "gaussian_classes",
    "generate",
    "hold_out",
    "keep_models",
    "loadaboost",
    "match",
    "most_epochs",
    "objective",
    "price_faug",
    "price_sharing",
    "price_virtual",
    "skewscout",
    "start_climb",
    "travel",
    "vhl",
    "warm_up",
    "with_median",
]
