"""Pipeline parallelism: schedules as tables, and one executor that runs them all."""

from eejax.cotrain.pipeline.draw import draw_schedule, text_schedule
from eejax.cotrain.pipeline.executor import device_value_and_grad, value_and_grad
from eejax.cotrain.pipeline.pipedream import AsyncState, Versions, asynchronous, weight_versions
from eejax.cotrain.pipeline.schedule import (
    SCHEDULES,
    Schedule,
    check,
    fused,
    gpipe,
    interleaved,
    one_f_one_b,
    pipedream,
    stash,
    times,
)
from eejax.cotrain.pipeline.stages import Stages, equal, microbatches, stack, unstack
from eejax.cotrain.pipeline.timeline import Task, bubble, timeline
from eejax.cotrain.pipeline.unequal import Cut, Unequal, cut_model, unequal

__all__ = [
    "SCHEDULES",
    "AsyncState",
    "Cut",
    "Schedule",
    "Stages",
    "Task",
    "Unequal",
    "Versions",
    "asynchronous",
    "bubble",
    "check",
    "cut_model",
    "device_value_and_grad",
    "draw_schedule",
    "equal",
    "fused",
    "gpipe",
    "interleaved",
    "microbatches",
    "one_f_one_b",
    "pipedream",
    "stack",
    "stash",
    "text_schedule",
    "timeline",
    "times",
    "unequal",
    "unstack",
    "value_and_grad",
    "weight_versions",
]
