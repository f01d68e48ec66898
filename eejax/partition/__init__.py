"""Where to cut a model between tiers: layer graphs, priced plans, and searches over them."""

from eejax.partition.costs import LINEAR, Costs, tabulate, total
from eejax.partition.exhaustive import best, exhaustive
from eejax.partition.graph import Layer, LayerGraph, Tensor, check, reads
from eejax.partition.milp import exact, milp
from eejax.partition.min_cut import cut, min_cut
from eejax.partition.plan import (
    OBJECTIVES,
    Objective,
    Plan,
    objective,
    price,
    pricer,
    summary,
    weights_of,
)
from eejax.partition.rates import LinkCodec, Rates, rates_of
from eejax.partition.staged import from_staged

__all__ = [
    "LINEAR",
    "OBJECTIVES",
    "Costs",
    "Layer",
    "LayerGraph",
    "LinkCodec",
    "Objective",
    "Plan",
    "Rates",
    "Tensor",
    "best",
    "check",
    "cut",
    "exact",
    "exhaustive",
    "from_staged",
    "milp",
    "min_cut",
    "objective",
    "price",
    "pricer",
    "rates_of",
    "reads",
    "summary",
    "tabulate",
    "total",
    "weights_of",
]
