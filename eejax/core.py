"""The contracts of eejax, on one page: NamedTuples of pure functions.

A method is a function that closes over what it needs and returns one of these tuples. State goes
in and comes out, ``key`` is the last argument, and a step returns ``(state, metrics)`` where
metrics is a flat dict of scalars. There are no base classes to inherit and no registry to enter.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

PyTree = Any

Kind = Literal["data", "information", "knowledge"]
"""What a transfer carries (survey II-C): raw samples; features, updates and gradients; or soft
labels, prototypes and trained structure."""

KINDS: tuple[Kind, ...] = get_args(Kind)


class Stage(NamedTuple):
    """A piece of a model that runs on one node.

    Attributes:
      name: unique among the stages and heads of a model; the key of its parameters.
      init: ``(key, x) -> params`` for an input ``x`` of shape ``[batch, ...]``.
      apply: ``(params, x, *, train=False, key=None) -> y`` with ``y`` of shape ``[batch, ...]``.
    """

    name: str
    init: Callable[..., PyTree]
    apply: Callable[..., Any]


class Exit(NamedTuple):
    """A head that reads the output of a stage.

    Attributes:
      after: name of the stage whose output the head reads.
      head: a stage whose output is logits ``[batch, classes]``.
    """

    after: str
    head: Stage


class StagedModel(NamedTuple):
    """Stages in order, with at least one exit; ``exits[-1]`` gives the final answer.

    Parameters are ``{stage or head name: subtree}``, so a cut is a slice of ``stages`` and a tier
    owns only the subtrees of its stages. ``models.staged`` has the functions over this tuple.
    """

    stages: tuple[Stage, ...]
    exits: tuple[Exit, ...]


class Codec(NamedTuple):
    """The door that everything crosses on its way over a link.

    A payload is a pytree of arrays, or of ``bytes`` for codecs that run on the host. ``decode``
    restores shapes and dtypes from the payload alone: what it needs is either static structure of
    the payload, which both ends know because they know the model, or travels and is counted.

    Attributes:
      init: ``(abstract tree) -> state``: error-feedback residuals; ``()`` when stateless.
      encode: ``(state, tree, key) -> (state, payload)``.
      decode: ``(payload) -> tree``.
      nbytes: ``(payload or its abstract value) -> int``: exact bytes on the wire.
    """

    init: Callable[[PyTree], PyTree]
    encode: Callable[..., tuple[PyTree, PyTree]]
    decode: Callable[[PyTree], PyTree]
    nbytes: Callable[[PyTree], int]


Weighting = Literal["samples", "uniform", "population"]
"""How uploads become their mean in federated training: weighted by the clients' numbers of samples;
each client alike; or summed and divided by the number of all clients, also those who sent nothing.
"""

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


def _as_params(params: PyTree) -> PyTree:
    return params


class FederatedAlgorithm(NamedTuple):
    """A federated method as closures over a ``grad_fn`` and optax transformations.

    Per-client transforms on the way up (clip, compress, noise) are codecs and belong to the engine,
    so no algorithm knows about them.

    Attributes:
      init: ``(params) -> ServerState``.
      client_init: ``(params) -> ClientState``; ``()`` when clients keep nothing.
      local_update: ``(broadcast, ClientState, batches, key) -> (upload, ClientState,
        metrics)`` with every leaf of ``batches`` shaped ``[steps, batch, ...]``. When clients take
        unequal numbers of steps it is also given ``tau=``, int32: only the first ``tau`` count.
      server_update: ``(ServerState, mean of the uploads) -> ServerState``.
      broadcast: ``(ServerState) ->`` what every client receives.
      upload: ``(params) ->`` a tree of arrays shaped as an upload; the model itself by default.
      weighting: a `Weighting`, or a tree of them where parts of an upload differ.
      every_round: whether the server acts in rounds in which nobody sent anything, too, on a mean
        of zero: noise must be added and counted also then, or it tells that nobody came.
      by_steps: whether ``local_update`` reads ``batches`` by `take_steps` and `count_steps` alone;
        an engine may then give it `Picked` batches, which are not copied beforehand. Whoever
        replaces ``local_update`` by one that reads batches otherwise must make this False.
    """

    init: Callable[[PyTree], PyTree]
    client_init: Callable[[PyTree], PyTree]
    local_update: Callable[..., tuple[PyTree, PyTree, dict]]
    server_update: Callable[[PyTree, PyTree], PyTree]
    broadcast: Callable[[PyTree], PyTree]
    upload: Callable[[PyTree], PyTree] = _as_params
    weighting: PyTree = "samples"
    every_round: bool = False
    by_steps: bool = False


class ExitRule(NamedTuple):
    """Who leaves at an exit.

    Attributes:
      init: ``() -> state``.
      decide: ``(state, logits [batch, classes], features, exit index) -> (leave [batch] bool,
        score [batch] f32)``; a low score means a sure answer.
    """

    init: Callable[[], PyTree]
    decide: Callable[..., tuple[Any, Any]]


class Knowledge(NamedTuple):
    """What one model tells another; every field is optional and all are arrays, so it has a size.

    Attributes:
      logits: ``[batch, classes]``.
      features: a tuple of intermediate outputs.
      prototypes: ``[classes, width]``.
      class_mask: ``[classes]`` bool, the classes the teacher knows.
    """

    logits: Any = None
    features: tuple = ()
    prototypes: Any = None
    class_mask: Any = None


class Distiller(NamedTuple):
    """A distillation loss.

    Attributes:
      init: ``(key, student Knowledge, teacher Knowledge) -> aux``: trainable regressors, or ``{}``.
      apply: ``(aux, student Knowledge, teacher Knowledge, labels [batch]) -> loss [batch]``.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., Any]


def _no_state(params: PyTree) -> tuple:
    del params
    return ()


def _no_loss(state, params, batch, outputs) -> float:
    del state, params, batch, outputs
    return 0.0


def _same_gradient(state, grads):
    del state
    return grads


def _same_state(state, *_):
    return state


def _same_batch(state, batch, key):
    del key
    return state, batch


class Continual(NamedTuple):
    """A remedy against forgetting: six hooks of a training step, each a no-op by default.

    Attributes:
      init: ``(params) -> state``.
      loss_term: ``(state, params, batch, outputs) -> scalar`` added to the task loss.
      transform: ``(state, grads) -> grads``.
      after_step: ``(state, old params, new params, task grads) -> state``.
      after_task: ``(state, params, data) -> state``.
      batch: ``(state, batch, key) -> (state, batch)``: mixes in replayed samples.
    """

    init: Callable[..., PyTree] = _no_state
    loss_term: Callable[..., Any] = _no_loss
    transform: Callable[..., PyTree] = _same_gradient
    after_step: Callable[..., PyTree] = _same_state
    after_task: Callable[..., PyTree] = _same_state
    batch: Callable[..., tuple[PyTree, PyTree]] = _same_batch


class DriftDetector(NamedTuple):
    """Tells when the data of a deployed model have changed.

    Attributes:
      init: ``(reference [n]) -> state`` from values seen while all was well.
      update: ``(state, values [m]) -> (state, metrics)``: takes the next values in their order;
        ``metrics["alarm"]`` is a bool and ``metrics["statistic"]`` what the alarm compares.
    """

    init: Callable[..., PyTree]
    update: Callable[..., tuple[PyTree, dict]]


class Compressor(NamedTuple):
    """A way to make a model smaller; its state lives inside the optimiser state.

    Attributes:
      init: ``(params) -> state``.
      apply: ``(params, state) -> params`` used in the forward pass.
      update: ``(state, params, grads, step) -> state``.
      export: ``(params, state) -> artefact`` as it is stored.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., PyTree]
    update: Callable[..., PyTree]
    export: Callable[..., PyTree]


class Peft(NamedTuple):
    """Parameter-efficient fine-tuning: what is trained, what is frozen, and how they join.

    Attributes:
      init: ``(key, params) -> (train, frozen)``.
      join: ``(train, frozen) -> params``.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    join: Callable[[PyTree, PyTree], PyTree]
