"""An algorithm of your own, on one page: FedExP, which eejax does not have.

    eejax run configs/federated/own_algorithm.py

Where clients pull in different directions, their mean is short although each went far. FedExP
lengthens it: the server adds ``eta mean``, where
``eta = max(1, mean |D_i|^2 / (2 (|mean|^2 + eps)))``. So clients send their change D_i and its
squared norm, and the server needs the means of both.

An algorithm is a `FederatedAlgorithm`: pure functions of what the server keeps, what a client keeps
and batches ``[steps, batch, ...]``. Whatever trees `local_update` uploads are averaged by the
engine, which also does everything else: cohorts, tiers, codecs, devices, checkpoints, bytes. Most
algorithms change a part of another, as this one does with FedAvg.

Accuracy in % after 50 rounds, each learning rate tuned by four trials, mean of three seeds, lowest
and highest: FedAvg 95.1 (94.7 to 95.8), FedExP 95.9 (94.2 to 96.9). 90 % take FedAvg 32, 20 and 22
rounds and FedExP 12, 12 and 14, for four bytes more a message.

References: Jhunjhunwala, Wang and Joshi, FedExP: Speeding Up Federated Averaging via Extrapolation,
2023.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated import ServerState, fedavg
from eejax.experiment.runs import federated
from eejax.experiment.runs.federated import ALGORITHMS, Data, Federated, Shared, Task

__all__ = ["fedexp", "get_config", "run"]


class ExpUpload(NamedTuple):
    """What a client sends.

    Attributes:
      change: of the model, D_i.
      square: its squared norm.
    """

    change: Any
    square: jax.Array


class ExpState(NamedTuple):
    """What the server keeps.

    Attributes:
      now: the state of FedAvg.
      before: the model of the round before.
    """

    now: ServerState
    before: Any


def fedexp(
    grad_fn, client_opt: optax.GradientTransformation, eps: float = 1e-3
) -> FederatedAlgorithm:
    """Makes FedExP; clients count alike, as in the paper."""
    base = fedavg(grad_fn, client_opt)

    def square_of(tree):
        return sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree))

    def local_update(params, client_state, batches, key, tau=None):
        change, client_state, metrics = base.local_update(params, client_state, batches, key, tau)
        return ExpUpload(change, square_of(change)), client_state, metrics

    def server_update(state, mean):
        eta = jnp.maximum(1, mean.square / (2 * (square_of(mean.change) + eps)))
        longer = jax.tree.map(lambda d: eta * d, mean.change)
        return ExpState(base.server_update(state.now, longer), state.now.params)

    return base._replace(
        init=lambda params: ExpState(base.init(params), params),
        local_update=local_update,
        server_update=server_update,
        broadcast=lambda state: state.now.params,
        upload=lambda params: ExpUpload(params, jnp.zeros(())),
        weighting="uniform",
    )


def mean_of_two(state: ExpState) -> Any:
    """Gives the model to use: the mean of the last two, as the paper does, since they swing."""
    return jax.tree.map(lambda a, b: (a + b) / 2, state.now.params, state.before)


def _fedexp(task: Task, lr: float, *, eps: float = 1e-3) -> Shared:
    """Tells configs how to make it: the keywords are its options, as in ``fedexp:eps=0.01``."""
    return Shared(fedexp(task.grad_fn, task.sgd(lr), eps), deploy=mean_of_two)


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    return Federated(
        methods=("fedavg", "fedexp"),
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 50,
        report_every=1 if tiny else 2,
        rates=(0.1,) if tiny else (0.1, 0.2, 0.4, 0.8),
        data=Data(partitions=("classes:2",)),
    )


def run(config: Federated, context) -> dict:
    """Runs it beside the algorithms of eejax."""
    return federated.run(config, context, {**ALGORITHMS, "fedexp": _fedexp})
