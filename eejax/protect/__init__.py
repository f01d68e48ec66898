"""Security and privacy: robust aggregation, attacks, user-level privacy, secure aggregation."""

from eejax.protect import attacks
from eejax.protect.accountant import (
    PrivacySpent,
    Sampling,
    calibrate,
    check_sampler,
    epsilon,
    sampling,
)
from eejax.protect.aggregator import Aggregator
from eejax.protect.bulyan import bulyan
from eejax.protect.clip import clip
from eejax.protect.combination import refuse
from eejax.protect.fixed_point import fixed_point
from eejax.protect.fltrust import fltrust
from eejax.protect.gaussian_noise import gaussian_noise
from eejax.protect.krum import krum, multi_krum
from eejax.protect.mean import mean
from eejax.protect.median import median
from eejax.protect.names import codec_from_name
from eejax.protect.norm_bound import norm_bound
from eejax.protect.secagg import Traffic, secagg_nbytes, secure_sum
from eejax.protect.secure_mean import secure_mean
from eejax.protect.trimmed_mean import trimmed_mean
from eejax.protect.user_level_dp import AdaptiveClip, user_level_dp

__all__ = [
    "AdaptiveClip",
    "Aggregator",
    "PrivacySpent",
    "Sampling",
    "Traffic",
    "attacks",
    "bulyan",
    "calibrate",
    "check_sampler",
    "clip",
    "codec_from_name",
    "epsilon",
    "fixed_point",
    "fltrust",
    "gaussian_noise",
    "krum",
    "mean",
    "median",
    "multi_krum",
    "norm_bound",
    "refuse",
    "sampling",
    "secagg_nbytes",
    "secure_mean",
    "secure_sum",
    "trimmed_mean",
    "user_level_dp",
]
