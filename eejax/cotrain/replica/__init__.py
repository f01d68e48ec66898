"""Data parallelism: synchronous, hierarchical, sharded, asynchronous and decentralised."""

from eejax.cotrain.replica.allocation import (
    Speed,
    allocate,
    equal,
    measure_speed,
    samples_that_fit,
    step_seconds,
)
from eejax.cotrain.replica.async_server import AsyncState, async_server
from eejax.cotrain.replica.gossip import consensus_distance, gossip
from eejax.cotrain.replica.hierarchical import (
    HIERARCHICAL,
    NESTED,
    hier_bytes,
    hier_psum,
    nested_bytes,
    nested_psum,
)
from eejax.cotrain.replica.mixing import (
    complete,
    metropolis,
    mix,
    mix_bytes,
    ring,
    spectral_gap,
    star,
)
from eejax.cotrain.replica.replica import Batch, GradFn, Replica, ReplicaState, mean_grad, split
from eejax.cotrain.replica.ring_all_reduce import (
    ring_all_gather,
    ring_bytes,
    ring_psum,
    ring_reduce_scatter,
)
from eejax.cotrain.replica.synchronous import FLAT, Reduce, data_parallel
from eejax.cotrain.replica.zero import zero
from eejax.cotrain.replica.zero3 import Layered, layered_loss, zero3

__all__ = [
    "FLAT",
    "HIERARCHICAL",
    "NESTED",
    "AsyncState",
    "Batch",
    "GradFn",
    "Layered",
    "Reduce",
    "Replica",
    "ReplicaState",
    "Speed",
    "allocate",
    "async_server",
    "complete",
    "consensus_distance",
    "data_parallel",
    "equal",
    "gossip",
    "hier_bytes",
    "hier_psum",
    "layered_loss",
    "mean_grad",
    "measure_speed",
    "metropolis",
    "mix",
    "mix_bytes",
    "nested_bytes",
    "nested_psum",
    "ring",
    "ring_all_gather",
    "ring_bytes",
    "ring_psum",
    "ring_reduce_scatter",
    "samples_that_fit",
    "spectral_gap",
    "split",
    "star",
    "step_seconds",
    "zero",
    "zero3",
]
