"""Local update: every node retrains the parameters it hosts, alone, on what it sees itself."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eejax.core import ExitRule
from eejax.coupdate.fleet import (
    Deployment,
    NewData,
    Piece,
    Recipe,
    Update,
    as_paths,
    by_node,
    joint_loss_fn,
    pieces,
    rows_of_ends,
    train_nodes,
    walk,
)
from eejax.tiers import record

PyTree = Any


def local(
    deployment: Deployment,
    params: PyTree,
    new: NewData,
    past: NewData,
    recipe: Recipe,
    rule: ExitRule,
    key: jax.Array,
) -> Update:
    """Retrains each tier alone (survey III-B-1, mode ii), from the end upwards.

    An end device trains the stages and exits it hosts on its own new samples and replays its own
    past ones. The nodes above see no raw data: they train on the features of those samples that the
    deployed exits below do not keep, which reach them in any case, and have no past to replay. Only
    the labels of these samples travel for the update, a byte each. No node learns what another
    knows, so a stage must cope with what the stages below it, each different now, send.

    Args:
      deployment: the placed model.
      params: the deployed parameters.
      new: labelled samples at the end devices.
      past: labelled samples of the past that the same devices still have.
      recipe: how each node trains.
      rule: who leaves at an exit, as deployed.
      key: of batches and replay.

    Returns:
      The update; every end device has a path of its own.

    Raises:
      ValueError: the last stage of a tier has no exit.
    """
    names = deployment.topology.names
    cut = pieces(deployment)
    paths, ledger = as_paths(params, len(new.index.counts)), ()
    seen = rows_of_ends(new)
    alive = np.arange(new.index.table.shape[1]) < new.index.counts[:, None]
    stays = _stays(cut, paths, seen["x"], rule)
    for depth, piece in enumerate(cut):
        count = int(alive.sum())
        for below, above in itertools.pairwise(names[: piece.tier + 1]):
            ledger = record(ledger, below, above, "data", "labels", 1, count)
        node_of_end = deployment.topology.ancestor(piece.tier)
        key, node_key = jax.random.split(key)
        trained = train_nodes(
            joint_loss_fn(piece.model), {name: params[name] for name in piece.names}, seen,
            by_node(alive, node_of_end), recipe, node_key, past=past if piece.tier == 0 else None,
        )  # fmt: skip
        paths |= jax.tree.map(lambda x, n=node_of_end: x[n], trained)
        if depth + 1 < len(cut):
            alive &= stays[depth]
            # What the next tier sees from now on: features of the stages that just changed.
            seen["x"] = np.asarray(walk(cut[: depth + 2], paths, rows_of_ends(new)["x"])[-1][0])
    return Update(paths, ledger, {})


def _stays(cut: tuple[Piece, ...], paths: PyTree, x, rule: ExitRule) -> list[np.ndarray]:
    """Tells for each piece which samples ``[ends, m]`` no exit of it lets leave."""
    stays = []
    for piece, (_, logits) in zip(cut, walk(cut, paths, x)):
        leaves = [
            rule.decide(rule.init(), logits[:, i], None, piece.first_exit + i)[0]
            for i in range(len(piece.model.exits))
        ]
        stays.append(~np.asarray(jnp.stack(leaves).any(0)))
    return stays
