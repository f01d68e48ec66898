"""Hybrids: data, pipeline and tensor parallelism in one program, and a planner for them."""

from eejax.cotrain.hybrid.hybrid import TIERS, Hybrid, check_hybrid, make_mesh_of, tier_of
from eejax.cotrain.hybrid.memory import Memory, memory
from eejax.cotrain.hybrid.planner import Candidate, Level, plan
from eejax.cotrain.hybrid.step import copies, hybrid_grad, hybrid_step, pack, packed_specs, unpack
from eejax.cotrain.hybrid.traffic import Pass, Ticks, Traffic, nbytes, ticks, traffic

__all__ = [
    "TIERS",
    "Candidate",
    "Hybrid",
    "Level",
    "Memory",
    "Pass",
    "Ticks",
    "Traffic",
    "check_hybrid",
    "copies",
    "hybrid_grad",
    "hybrid_step",
    "make_mesh_of",
    "memory",
    "nbytes",
    "pack",
    "packed_specs",
    "plan",
    "ticks",
    "tier_of",
    "traffic",
    "unpack",
]
