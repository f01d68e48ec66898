"""Collaborative update: the cloud learns from the hardest samples and teaches edge and end."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eejax.coinfer import eta
from eejax.core import Codec, Knowledge
from eejax.coupdate.centralised import retrain
from eejax.coupdate.fleet import (
    Deployment,
    NewData,
    Piece,
    Recipe,
    Update,
    as_paths,
    by_node,
    delivered,
    over_link,
    pieces,
    record_upload,
    record_weights,
    rows_of_ends,
    train_nodes,
    walk,
)
from eejax.coupdate.replay import Memory
from eejax.data import ClientIndex, pack
from eejax.models import run
from eejax.tiers import record
from eejax.transfer import kd, with_labels
from eejax.wire import abstract_nbytes

PyTree = Any


class Distillation(NamedTuple):
    """How a tier teaches the tier below.

    Attributes:
      recipe: how a student trains; past samples of an end device are always among its data.
      T: temperature.
      alpha: weight of the labels beside the soft ones.
      codec: what soft labels pass on their way down.
    """

    recipe: Recipe
    T: float
    alpha: float
    codec: Codec


def collaborative(
    deployment: Deployment,
    params: PyTree,
    new: NewData,
    past: NewData,
    memory: Memory,
    recipe: Recipe,
    distillation: Distillation,
    share: float,
    key: jax.Array,
) -> Update:
    """Updates with knowledge from the cloud (survey III-B-1, mode iii).

    1. Every end device sends up the ``share`` of its new samples that its exit is least sure of
       (highest normalised entropy), raw and with labels; the others stay where they are.
    2. The cloud retrains the whole model on them, with replay: the teacher.
    3. Structured knowledge goes down: the parameters that each node hosts. Shared stages are frozen
       there (survey fig. 7); what follows trains exits alone.
    4. The cloud's final answers to the samples that an edge relayed teach the exits at that edge,
       and the deepest exit at the edge then teaches the exits of each end device on the samples
       that it had sent. Soft labels travel; students also see the labels they have, and an end
       device its past samples with the answers that its exit just got from the cloud, so that it
       does not forget.

    On the digits of ``configs/lifecycle_mnist.py``, rotated by 45 degrees, step 4 raises the exit
    at the edge by 1.0 points in the new world and costs it 1.0 in the old; the exit at the end,
    which the cloud has just trained on samples of all devices, gains nothing (three seeds).

    Args:
      deployment: the placed model.
      params: the deployed parameters.
      new: labelled samples at the end devices.
      past: labelled samples of the past that the same devices still have.
      memory: labelled samples of the past that the operator holds in the cloud.
      recipe: how the cloud trains.
      distillation: how edge and end are taught; no ``recipe.steps`` skips it.
      share: of the new samples of a device to send up, in (0, 1].
      key: of batches and replay.

    Returns:
      The update; every end device has exits of its own.

    Raises:
      ValueError: the share is out of range, or the last stage of a tier has no exit.

    References:
      Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015. Ding, Zhou, Liu
      and Yang, A Cloud-Edge Collaboration Framework for Cognitive Service, 2020. Mirzadeh et al.,
      Improved Knowledge Distillation via Teacher Assistant, 2020.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")
    cut, topology = pieces(deployment), deployment.topology
    teacher_key, *keys = jax.random.split(key, 1 + len(cut))

    index = hardest(cut[0], params, new, share)
    picked = np.concatenate([row[:n] for row, n in zip(index.table, index.counts)])
    sent = {name: np.asarray(x)[picked] for name, x in new.samples.items()}
    ledger = record_upload((), topology, sent, len(picked))
    teacher, metrics = retrain(deployment, params, sent, memory, recipe, teacher_key)
    ledger = record_weights(ledger, deployment, teacher)
    paths = delivered(deployment, teacher, len(new.index.counts))
    metrics["uploaded"] = float(len(picked))
    if not distillation.recipe.steps:
        return Update(paths, ledger, metrics)

    uploads = NewData(new.samples, index)
    soft = walk(cut, paths, rows_of_ends(uploads)["x"])[-1][1][:, -1]
    codec = distillation.codec
    nbytes = abstract_nbytes(codec, jax.ShapeDtypeStruct(soft.shape[2:], soft.dtype))
    for depth, piece_key in zip(reversed(range(len(cut) - 1)), keys):
        piece = cut[depth]
        for tier in range(cut[depth + 1].tier, piece.tier, -1):
            source, target = topology.names[tier], topology.names[tier - 1]
            ledger = record(ledger, source, target, "knowledge", "soft labels", nbytes, len(picked))
        soft = jax.vmap(jax.vmap(lambda z: over_link(codec, z)))(soft)
        node_of_end = topology.ancestor(piece.tier)
        fields, alive = _lessons(cut[: depth + 1], paths, uploads, soft, past)
        taught = train_nodes(
            _student_loss(piece, distillation),
            {name: teacher[name] for name in piece.names},
            fields,
            by_node(alive, node_of_end),
            distillation.recipe,
            piece_key,
            trainable=[exit.head.name for exit in piece.model.exits],
        )
        paths |= jax.tree.map(lambda x, n=node_of_end: x[n], taught)
        # The assistant has learnt; its own answers are what it tells the tier below.
        soft = walk(cut[: depth + 1], paths, rows_of_ends(uploads)["x"])[-1][1][:, -1]
    return Update(paths, ledger, metrics)


def hardest(piece: Piece, params: PyTree, new: NewData, share: float) -> ClientIndex:
    """Picks the new samples that the last exit of each end device is least sure of.

    Args:
      piece: what end devices host.
      params: the deployed parameters.
      new: samples at the end devices.
      share: of the samples of each device, rounded up.

    Returns:
      The picked samples, the least sure first.
    """
    rows = rows_of_ends(new)["x"]
    logits = walk((piece,), as_paths({name: params[name] for name in piece.names}, len(rows)), rows)
    scores = np.array(eta(logits[0][1][:, -1]))
    scores[np.arange(scores.shape[1]) >= new.index.counts[:, None]] = -1.0
    order = np.argsort(-scores, axis=1, kind="stable")
    counts = np.ceil(share * new.index.counts).astype(int)
    return pack([row[o[:n]] for row, o, n in zip(new.index.table, order, counts)])


def _lessons(cut, paths, uploads, soft, past):
    """Gathers what the students of the last piece learn from, ``[ends, m, ...]``, and who counts.

    End devices add their past samples, with the answers of their exit as the cloud sent it.
    """
    rows = rows_of_ends(uploads)
    x, _ = walk(cut, paths, rows["x"])[-1]
    parts = [({"x": x, "y": rows["y"], "soft": soft}, uploads.index)]
    if len(cut) == 1:
        rows = rows_of_ends(past)
        x, logits = walk(cut, paths, rows["x"])[-1]
        parts.append(({"x": x, "y": rows["y"], "soft": logits[:, -1]}, past.index))
    fields = {
        name: np.concatenate([np.asarray(fields[name]) for fields, _ in parts], 1)
        for name in ("x", "y", "soft")
    }
    alive = [np.arange(i.table.shape[1]) < i.counts[:, None] for _, i in parts]
    return fields, np.concatenate(alive, 1)


def _student_loss(piece: Piece, distillation: Distillation):
    distiller = with_labels(kd(distillation.T), distillation.alpha)

    def loss_fn(params, batch, key):
        _, logits = run(piece.model, params, batch["x"], train=True, key=key)
        teacher = Knowledge(logits=batch["soft"])
        losses = [distiller.apply({}, Knowledge(logits=z), teacher, batch["y"]) for z in logits]
        return jnp.stack(losses).mean(), {}

    return loss_fn
