"""Where to cut a model between tiers: layer graphs, priced plans, solvers, and slices."""

from eejax.partition.adaptive import Adaptation, adapt, conditions, foresee
from eejax.partition.auto_split import SplitPlan, auto_split, quantisation_error
from eejax.partition.coarsen import to_blocks
from eejax.partition.coedge import CoEdgePlan, coedge
from eejax.partition.cogent import CogentPlan, cogent
from eejax.partition.costs import LINEAR, Costs, tabulate, total
from eejax.partition.dads import dads
from eejax.partition.edgent import ExitPlan, edgent
from eejax.partition.edgerec import EmbeddingPlan, edgerec
from eejax.partition.exhaustive import best, exhaustive
from eejax.partition.function import Traced, from_function
from eejax.partition.graph import Layer, LayerGraph, Tensor, check, reads
from eejax.partition.jalad import JaladPlan, jalad
from eejax.partition.jointdnn import jointdnn, jointdnn_ilp
from eejax.partition.measure import (
    measure_device,
    prefix_times,
    profile_staged,
    read_device,
    write_device,
)
from eejax.partition.milp import exact, milp
from eejax.partition.min_cut import cut, min_cut
from eejax.partition.neurosurgeon import neurosurgeon
from eejax.partition.objective import OBJECTIVES, Objective, objective, period, summary, weights_of
from eejax.partition.onnx_file import from_onnx
from eejax.partition.pipedream import PipelineStage, pipedream, replicate
from eejax.partition.plan import Plan, price, pricer
from eejax.partition.profile import Profile, from_profile, layer_seconds, to_profile
from eejax.partition.qdmp import qdmp
from eejax.partition.rates import LinkCodec, Rates, rates_of
from eejax.partition.slicing import TierProgram, export_tiers, own_params, run_tiers, slice_tiers
from eejax.partition.staged import from_staged

__all__ = [
    "LINEAR",
    "OBJECTIVES",
    "Adaptation",
    "CoEdgePlan",
    "CogentPlan",
    "Costs",
    "EmbeddingPlan",
    "ExitPlan",
    "JaladPlan",
    "Layer",
    "LayerGraph",
    "LinkCodec",
    "Objective",
    "PipelineStage",
    "Plan",
    "Profile",
    "Rates",
    "SplitPlan",
    "Tensor",
    "TierProgram",
    "Traced",
    "adapt",
    "auto_split",
    "best",
    "check",
    "coedge",
    "cogent",
    "conditions",
    "cut",
    "dads",
    "edgent",
    "edgerec",
    "exact",
    "exhaustive",
    "export_tiers",
    "foresee",
    "from_function",
    "from_onnx",
    "from_profile",
    "from_staged",
    "jalad",
    "jointdnn",
    "jointdnn_ilp",
    "layer_seconds",
    "measure_device",
    "milp",
    "min_cut",
    "neurosurgeon",
    "objective",
    "own_params",
    "period",
    "pipedream",
    "prefix_times",
    "price",
    "pricer",
    "profile_staged",
    "qdmp",
    "quantisation_error",
    "rates_of",
    "read_device",
    "reads",
    "replicate",
    "run_tiers",
    "slice_tiers",
    "summary",
    "tabulate",
    "to_blocks",
    "to_profile",
    "total",
    "weights_of",
    "write_device",
]
