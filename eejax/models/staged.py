"""Functions over `StagedModel`: check, initialise, run, and tell who owns which parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from eejax.core import Exit, Stage, StagedModel

PyTree = Any


def staged(stages: tuple[Stage, ...], exits: tuple[Exit, ...]) -> StagedModel:
    """Makes a model of stages, after checking that they fit together.

    Args:
      stages: in the order in which data pass them, at least one.
      exits: in the order of their stages, at most one a stage; the last reads the last stage.

    Returns:
      The model.

    Raises:
      ValueError: a name is used twice, an exit reads no stage or is out of order, or the last stage
        has no exit; names it.

    Example:
      >>> double = Stage("double", lambda key, x: {}, lambda params, x, **_: 2 * x)
      >>> head = Stage("answer", lambda key, x: {}, lambda params, x, **_: x - 1)
      >>> model = staged((double,), (Exit("double", head),))
      >>> all_logits(model, {"double": {}, "answer": {}}, jnp.ones((1, 2))).tolist()
      [[[1.0, 1.0]]]
    """
    names = [stage.name for stage in stages] + [exit.head.name for exit in exits]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(f"name {twice[0]!r} is used by two stages or heads")
    order = [stage.name for stage in stages]
    reads = [exit.after for exit in exits]
    for after in reads:
        if after not in order:
            raise ValueError(f"exit after {after!r}: the stages are {', '.join(order)}")
    positions = [order.index(after) for after in reads]
    if positions != sorted(set(positions)):
        raise ValueError(f"exits after {reads} must follow the stages {order}, one each at most")
    if not order or positions[-1:] != [len(order) - 1]:
        raise ValueError("the last stage must have an exit, which gives the final answer")
    return StagedModel(tuple(stages), tuple(exits))


def init(model: StagedModel, key: jax.Array, x: jax.Array) -> dict[str, PyTree]:
    """Draws the parameters of all stages and heads.

    Args:
      model: a staged model.
      key: each stage and head gets a key of its own.
      x: an input ``[batch, ...]``, or its ``jax.ShapeDtypeStruct``; only shape and dtype count.

    Returns:
      ``{stage or head name: subtree}``.

    Example:
      >>> from eejax.models import staged_mlp
      >>> x = jax.ShapeDtypeStruct((1, 2), jnp.float32)
      >>> params = init(staged_mlp(classes=3, widths=(4, 4)), jax.random.key(0), x)
      >>> sorted(params)
      ['exit1', 'exit2', 'stage1', 'stage2']
    """
    params = {}
    keys = iter(jax.random.split(key, len(model.stages) + len(model.exits)))

    def add(piece: Stage, x: Any) -> Any:
        params[piece.name] = piece.init(next(keys), x)
        return jax.eval_shape(piece.apply, params[piece.name], x)

    x = jax.eval_shape(lambda x: x, x)
    for i, stage in enumerate(model.stages):
        x = add(stage, x)
        if (exit := exit_after(model, i)) is not None:
            add(exit.head, x)
    return params


def exit_after(model: StagedModel, index: int) -> Exit | None:
    """Finds the exit that reads a stage.

    Args:
      model: a staged model.
      index: position of the stage.

    Returns:
      The exit, or None.

    Example:
      >>> from eejax.models import staged_mlp
      >>> exit_after(staged_mlp(), 1).head.name
      'exit2'
    """
    name = model.stages[index].name
    return next((exit for exit in model.exits if exit.after == name), None)


def run_stage(
    model: StagedModel,
    index: int,
    params: dict[str, PyTree],
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs one stage and its exit.

    Args:
      model: a staged model.
      index: position of the stage.
      params: at least the subtrees that `owned` names.
      x: ``[batch, ...]``, the input of the model or the features of the stage before.
      train: passed to the stage and the head.
      key: for dropout and the like; each stage and head folds its own number in.

    Returns:
      ``(features [batch, ...], logits [batch, classes])``; None without an exit.

    Example:
      >>> from eejax.models import staged_mlp
      >>> model, x = staged_mlp(classes=3, widths=(4, 4)), jnp.ones((1, 2))
      >>> params = init(model, jax.random.key(0), x)
      >>> on_end = {name: params[name] for name in owned(model, 0)}
      >>> features, logits = run_stage(model, 0, on_end, x)
      >>> features.shape, logits.shape
      ((1, 4), (1, 3))
    """
    stage, exit = model.stages[index], exit_after(model, index)

    def apply(piece: Stage, x: jax.Array, number: int) -> jax.Array:
        own = None if key is None else jax.random.fold_in(key, number)
        with jax.named_scope(piece.name):
            return piece.apply(params[piece.name], x, train=train, key=own)

    features = apply(stage, x, 2 * index)
    return features, None if exit is None else apply(exit.head, features, 2 * index + 1)


def run(
    model: StagedModel,
    params: dict[str, PyTree],
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Runs the whole model and answers at every exit (survey eq. 5).

    Args:
      model: a staged model, or some consecutive stages of one with at least one exit.
      params: all parameters.
      x: ``[batch, ...]``.
      train: passed to stages and heads.
      key: for dropout and the like.

    Returns:
      ``(features [batch, ...], logits [exits, batch, classes])``: the output of the last stage, and
      the answers, the last of which is final.

    Example:
      >>> from eejax.models import staged_mlp
      >>> model, x = staged_mlp(classes=3, widths=(4, 4)), jnp.ones((1, 2))
      >>> features, logits = run(model, init(model, jax.random.key(0), x), x)
      >>> features.shape, logits.shape
      ((1, 4), (2, 1, 3))
    """
    answers = []
    for i in range(len(model.stages)):
        x, logits = run_stage(model, i, params, x, train=train, key=key)
        if logits is not None:
            answers.append(logits)
    return x, jnp.stack(answers)


def all_logits(
    model: StagedModel,
    params: dict[str, PyTree],
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
) -> jax.Array:
    """Gives the answers of `run` alone, ``[exits, batch, classes]``."""
    return run(model, params, x, train=train, key=key)[1]


def owned(model: StagedModel, index: int) -> tuple[str, ...]:
    """Names the subtrees that a node needs to run one stage: its own, and that of its exit.

    Args:
      model: a staged model.
      index: position of the stage.

    Returns:
      One name, or two.

    Example:
      >>> from eejax.models import staged_mlp
      >>> owned(staged_mlp(), 0)
      ('stage1', 'exit1')
    """
    exit = exit_after(model, index)
    return (model.stages[index].name,) + (() if exit is None else (exit.head.name,))
