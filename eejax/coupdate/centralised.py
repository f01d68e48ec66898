"""Centralised update: all new data go to the cloud, which retrains the model and sends it down."""

from typing import Any

import jax

from eejax.coupdate.fleet import (
    Deployment,
    NewData,
    Recipe,
    Update,
    delivered,
    joint_loss_fn,
    record_upload,
    record_weights,
)
from eejax.coupdate.learn import learn
from eejax.coupdate.replay import Memory, replay

PyTree = Any


def centralised(
    deployment: Deployment,
    params: PyTree,
    new: NewData,
    memory: Memory,
    recipe: Recipe,
    key: jax.Array,
) -> Update:
    """Retrains the whole model in the cloud (survey III-B-1, mode i).

    Every new sample goes up raw, with its label. The cloud trains all exits jointly from the
    deployed parameters, mixing in what it remembers of the past, and sends every node the
    parameters it hosts.

    Args:
      deployment: the placed model.
      params: the deployed parameters.
      new: labelled samples at the end devices.
      memory: labelled samples of the past that the operator holds in the cloud.
      recipe: how the cloud trains.
      key: of batches and replay.

    Returns:
      The update; all paths are equal.
    """
    params, metrics = retrain(deployment, params, new.samples, memory, recipe, key)
    ledger = record_upload((), deployment.topology, new.samples, int(new.index.counts.sum()))
    ledger = record_weights(ledger, deployment, params)
    paths = delivered(deployment, params, len(new.index.counts))
    return Update(paths, ledger, {"uploaded": float(new.index.counts.sum()), **metrics})


def retrain(
    deployment: Deployment,
    params: PyTree,
    samples: PyTree,
    memory: Memory,
    recipe: Recipe,
    key: jax.Array,
) -> tuple[PyTree, dict[str, float]]:
    """Trains all exits jointly on samples in the cloud, with replay.

    Args:
      deployment: the placed model.
      params: where to start.
      samples: ``{"x": [n, ...], "y": [n]}``.
      memory: labelled samples of the past.
      recipe: how to train.
      key: of batches and replay.

    Returns:
      ``(params, metrics)``; metrics are means over the steps.
    """
    remedy = replay(memory, recipe.replay) if recipe.replay else None
    learner = learn(joint_loss_fn(deployment.model), recipe.tx, remedy)
    state, metrics = learner.run(
        learner.init(params), samples, key, steps=recipe.steps, batch=recipe.batch
    )
    return state.params, {name: float(x) for name, x in metrics.items()}
