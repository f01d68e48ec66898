"""What the three ways of updating share: new data at the ends, who hosts what, what is sent."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eejax import trees
from eejax.coinfer import joint_loss
from eejax.core import Codec, StagedModel
from eejax.coupdate.learn import learn
from eejax.coupdate.replay import from_data, replay
from eejax.data import ClientIndex, pack
from eejax.models import all_logits, owned, run
from eejax.tiers import Ledger, Topology, record
from eejax.wire import abstract_nbytes

PyTree = Any


class NewData(NamedTuple):
    """Labelled samples at the end devices.

    Attributes:
      samples: ``{"x": [n, ...], "y": [n]}``, all of them.
      index: which of them each end device has.
    """

    samples: dict[str, np.ndarray]
    index: ClientIndex


class Recipe(NamedTuple):
    """How a node trains when it updates.

    Attributes:
      tx: optimiser.
      steps: steps to take.
      batch: new samples of a step.
      replay: remembered samples added to each step; 0 for no replay.
    """

    tx: optax.GradientTransformation
    steps: int
    batch: int
    replay: int


class Deployment(NamedTuple):
    """A model as it is placed on a system.

    Attributes:
      model: the staged model.
      topology: tiers, the end first.
      assignment: tier index of each stage, as in a `partition.Plan`.
      codec: what parameters pass on their way down.
    """

    model: StagedModel
    topology: Topology
    assignment: tuple[int, ...]
    codec: Codec


class Piece(NamedTuple):
    """The stages that one tier hosts, with their exits.

    Attributes:
      tier: index of the tier.
      first_exit: position in the whole model of the first exit here.
      model: the stages; not a whole model, since it reads features.
      names: subtrees of parameters that nodes of this tier hold.
    """

    tier: int
    first_exit: int
    model: StagedModel
    names: tuple[str, ...]


class Update(NamedTuple):
    """What an update made of the system.

    Attributes:
      paths: parameters on the path of each end device up to the top, ``[ends, ...]``; rows are
        equal where devices share them.
      ledger: what was sent for it.
      metrics: flat dict of scalars.
    """

    paths: PyTree
    ledger: Ledger
    metrics: dict[str, float]


def pieces(deployment: Deployment) -> tuple[Piece, ...]:
    """Cuts a model into what each tier hosts, from the end upwards.

    Args:
      deployment: the placed model.

    Returns:
      One piece for each tier that hosts something.

    Raises:
      ValueError: the last stage of a tier has no exit, so that the tier could not answer, let
        alone learn; names the stage.
    """
    model, cut = deployment.model, []
    for tier in sorted(set(deployment.assignment)):
        mine = [i for i, t in enumerate(deployment.assignment) if t == tier]
        stages = tuple(model.stages[i] for i in mine)
        exits = tuple(e for e in model.exits if e.after in {stage.name for stage in stages})
        if not exits or exits[-1].after != stages[-1].name:
            raise ValueError(
                f"stage {stages[-1].name!r}, the last on tier "
                f"{deployment.topology.names[tier]!r}, has no exit to train by"
            )
        names = tuple(name for i in mine for name in owned(model, i))
        cut.append(Piece(tier, model.exits.index(exits[0]), StagedModel(stages, exits), names))
    return tuple(cut)


def as_paths(params: PyTree, ends: int) -> PyTree:
    """Gives every end device the same parameters: ``[...]`` becomes ``[ends, ...]``."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (ends, *x.shape)), params)


def rows_of_ends(data: NewData) -> dict[str, np.ndarray]:
    """Lays samples out by end device, ``[ends, n_max, ...]``; the rest of a row is padding."""
    return {name: np.asarray(x)[data.index.table] for name, x in data.samples.items()}


def joint_loss_fn(model: StagedModel) -> Callable[..., tuple[jax.Array, dict]]:
    """Makes the joint loss of all exits (survey eq. 3 to 6) in the form that `learn` takes."""

    def loss_fn(params, batch, key):
        logits = all_logits(model, params, batch["x"], train=True, key=key)
        return joint_loss(logits, batch["y"])

    return loss_fn


def delivered(deployment: Deployment, params: PyTree, ends: int) -> PyTree:
    """Gives parameters trained in the top tier as they are on the paths of the end devices.

    Args:
      deployment: the placed model.
      params: trained parameters.
      ends: number of end devices.

    Returns:
      ``[ends, ...]``; what stays in the top tier is exact, the rest passed the codec.
    """
    top = len(deployment.topology.tiers) - 1
    stay = {n: params[n] for p in pieces(deployment) if p.tier == top for n in p.names}
    sent = {name: x for name, x in params.items() if name not in stay}
    return as_paths(stay | over_link(deployment.codec, sent), ends)


def over_link(codec: Codec, tree: PyTree) -> PyTree:
    """Gives a tree as it arrives after a codec without state."""
    return codec.decode(codec.encode(codec.init(tree), tree, None)[1])


def record_upload(ledger: Ledger, topology: Topology, samples: PyTree, count: int) -> Ledger:
    """Counts raw labelled samples on their way from the ends to the top, as ``"data"``.

    Args:
      ledger: what was recorded before.
      topology: the system; a sample crosses every link.
      samples: ``{"x": [n, ...], "y": [n]}``; a label takes one byte.
      count: how many go up.

    Returns:
      A new ledger.
    """
    nbytes = trees.nbytes(jax.tree.map(lambda x: x[:1], samples["x"])) + 1
    for below, above in zip(topology.names, topology.names[1:]):
        ledger = record(ledger, below, above, "data", "labelled samples", nbytes, count)
    return ledger


def record_weights(ledger: Ledger, deployment: Deployment, params: PyTree) -> Ledger:
    """Counts updated parameters on their way down, as ``"knowledge"``.

    Structured knowledge (survey fig. 7): every node gets once what it and the nodes below it host,
    and passes on what is not its own.

    Args:
      ledger: what was recorded before.
      deployment: the placed model.
      params: updated parameters of one path.

    Returns:
      A new ledger.
    """
    topology, below = deployment.topology, {}
    for piece in pieces(deployment):
        below |= {name: params[name] for name in piece.names}
        if piece.tier + 1 == len(topology.tiers):
            break
        source, target = topology.names[piece.tier + 1], topology.names[piece.tier]
        nbytes = abstract_nbytes(deployment.codec, below)
        count = topology.tiers[piece.tier].nodes
        ledger = record(ledger, source, target, "knowledge", "parameters", nbytes, count)
    return ledger


def by_node(alive: np.ndarray, node_of_end: np.ndarray) -> ClientIndex:
    """Lists for each node of a tier the samples that reach it from its end devices.

    Args:
      alive: bool ``[ends, m]``.
      node_of_end: ``[ends]``, as `Topology.ancestor` gives it.

    Returns:
      Positions in ``[ends * m]``, one row a node.

    Example:
      >>> alive = np.array([[True, False], [True, True], [False, True]])
      >>> by_node(alive, np.array([0, 0, 1])).table.tolist()
      [[0, 2, 3], [5, 5, 5]]
    """
    flat = np.arange(alive.size).reshape(alive.shape)
    mine = [node_of_end == node for node in range(node_of_end.max() + 1)]
    return pack([flat[m][alive[m]] for m in mine])


def train_nodes(
    loss_fn: Callable[..., tuple[jax.Array, dict]],
    params: PyTree,
    fields: dict[str, Any],
    index: ClientIndex,
    recipe: Recipe,
    key: jax.Array,
    *,
    past: NewData | None = None,
    trainable: Iterable[str] | None = None,
) -> PyTree:
    """Trains all nodes of a tier from the same parameters, each on its own samples.

    Args:
      loss_fn: as for `learn`.
      params: parameters that a node holds.
      fields: ``[ends, m, ...]``, samples and what belongs to them.
      index: which of them each node has, as `by_node` gives it.
      recipe: how a node trains.
      key: every node gets a key of its own.
      past: what each node remembers, one row a node; no replay if None.
      trainable: subtrees to train; all if None.

    Returns:
      Parameters ``[nodes, ...]``. A node without samples keeps what it has.
    """
    rows = {name: x.reshape(-1, *x.shape[2:])[index.table] for name, x in fields.items()}
    memories = None
    if past is not None and recipe.replay:
        memories = rows_of_ends(past), past.index.counts

    def train(xs):
        rows, count, memory, key = xs
        remedy = None
        if memory is not None:
            samples, seen = memory
            buffer = from_data(samples, past.index.table.shape[1], key, count=seen)
            remedy = replay(buffer, recipe.replay)
        learner = learn(loss_fn, recipe.tx, remedy, trainable)
        state, _ = learner.run(
            learner.init(params), rows, key, steps=recipe.steps, batch=recipe.batch, count=count
        )
        return state.params

    keys = jax.random.split(key, len(index.counts))
    return jax.jit(lambda *xs: jax.lax.map(train, xs))(rows, index.counts, memories, keys)


@functools.partial(jax.jit, static_argnames="cut")
def walk(cut: tuple[Piece, ...], paths: PyTree, x: Any) -> list[tuple[jax.Array, jax.Array]]:
    """Runs samples of every end device up its own path.

    Args:
      cut: pieces of the model, from the end upwards.
      paths: parameters ``[ends, ...]``.
      x: raw input ``[ends, m, ...]``.

    Returns:
      For each piece ``(inputs [ends, m, ...], logits [ends, exits of the piece, m, classes])``.
    """

    def one_end(xs):
        params, x = xs
        seen = []
        for piece in cut:
            features, logits = run(piece.model, params, x)
            seen.append((x, logits))
            x = features
        return seen

    return jax.lax.map(one_end, (paths, x))
