"""Co-updating: a deployed model notices drift, learns again, and does not forget."""

from eejax.coupdate.centralised import centralised
from eejax.coupdate.collaborative import Distillation, collaborative
from eejax.coupdate.ddm import ddm
from eejax.coupdate.fleet import (
    Deployment,
    NewData,
    Recipe,
    Update,
    as_paths,
    by_node,
    joint_loss_fn,
    record_upload,
    rows_of_ends,
    train_nodes,
)
from eejax.coupdate.forgetting import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    recovered,
)
from eejax.coupdate.kswin import kswin
from eejax.coupdate.learn import Learner, LearnState, learn
from eejax.coupdate.local import local
from eejax.coupdate.page_hinkley import page_hinkley
from eejax.coupdate.replay import Memory, empty_memory, from_data, remember, replay

__all__ = [
    "Deployment",
    "Distillation",
    "LearnState",
    "Learner",
    "Memory",
    "NewData",
    "Recipe",
    "Update",
    "as_paths",
    "average_accuracy",
    "backward_transfer",
    "by_node",
    "centralised",
    "collaborative",
    "ddm",
    "empty_memory",
    "forgetting",
    "forward_transfer",
    "from_data",
    "joint_loss_fn",
    "kswin",
    "learn",
    "local",
    "page_hinkley",
    "record_upload",
    "recovered",
    "remember",
    "replay",
    "rows_of_ends",
    "train_nodes",
]
