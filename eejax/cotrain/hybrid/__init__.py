"""Hybrids: data, pipeline and tensor parallelism in one program, and a planner for them."""

from eejax.cotrain.hybrid.hybrid import TIERS, Hybrid, make_mesh_of, tier_of
from eejax.cotrain.hybrid.levels import levels_of
from eejax.cotrain.hybrid.memory import Memory, memory
from eejax.cotrain.hybrid.model import Costs, Layered, batch_form, check_hybrid, predict
from eejax.cotrain.hybrid.perceptron import mlp_model
from eejax.cotrain.hybrid.planner import Candidate, Level, plan
from eejax.cotrain.hybrid.step import copies, hybrid_grad, hybrid_step, pack, packed_specs, unpack
from eejax.cotrain.hybrid.traffic import Pass, Ticks, Traffic, nbytes, ticks, traffic
from eejax.cotrain.hybrid.transformers import text_model, vit_model

__all__ = [
    "TIERS",
    "Candidate",
    "Costs",
    "Hybrid",
    "Layered",
    "Level",
    "Memory",
    "Pass",
    "Ticks",
    "Traffic",
    "batch_form",
    "check_hybrid",
    "copies",
    "hybrid_grad",
    "hybrid_step",
    "levels_of",
    "make_mesh_of",
    "memory",
    "mlp_model",
    "nbytes",
    "pack",
    "packed_specs",
    "plan",
    "predict",
    "text_model",
    "ticks",
    "tier_of",
    "traffic",
    "unpack",
    "vit_model",
]
