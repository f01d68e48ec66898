"""One answer, many nodes: models with early exits that are trained, calibrated and really run."""

from eejax.coinfer.baselines import oracle, random_exit, random_exit_accuracy
from eejax.coinfer.calibrate import Calibration, Sweep, calibrate, sweep
from eejax.coinfer.execute import Outcome, make_compacted, make_full, make_masked
from eejax.coinfer.hindsight import at_exit, leave_at
from eejax.coinfer.joint import joint_grad_fn, joint_loss
from eejax.coinfer.normalised_entropy import eta, normalised_entropy
from eejax.coinfer.saving import Seconds, executed_saving, hindsight_saving, measure_seconds

__all__ = [
    "Calibration",
    "Outcome",
    "Seconds",
    "Sweep",
    "at_exit",
    "calibrate",
    "eta",
    "executed_saving",
    "hindsight_saving",
    "joint_grad_fn",
    "joint_loss",
    "leave_at",
    "make_compacted",
    "make_full",
    "make_masked",
    "measure_seconds",
    "normalised_entropy",
    "oracle",
    "random_exit",
    "random_exit_accuracy",
    "sweep",
]
