"""Where to cut a model between tiers: layer graphs, priced plans, and searches over them."""

from eejax.partition.exhaustive import best, exhaustive
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.partition.plan import OBJECTIVES, Plan, objective, price, pricer, summary
from eejax.partition.staged import from_staged

__all__ = [
    "OBJECTIVES",
    "Layer",
    "LayerGraph",
    "Plan",
    "Tensor",
    "best",
    "check",
    "exhaustive",
    "from_staged",
    "objective",
    "price",
    "pricer",
    "summary",
]
