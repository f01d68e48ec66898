"""The training loop of updating: one compiled program, with the hooks against forgetting."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.core import Continual
from eejax.data import client_batches
from eejax.names import suggest

PyTree = Any


class LearnState(NamedTuple):
    """Where a node stands.

    Attributes:
      params: all parameters, the frozen ones too.
      opt_state: state of the optimiser, for the trainable parameters alone.
      continual: state of the remedy against forgetting.
      step: steps so far, int32; the position in the shuffled data.
    """

    params: PyTree
    opt_state: PyTree
    continual: PyTree
    step: jax.Array


class Learner(NamedTuple):
    """Three closures that train a model; `learn` makes them.

    Attributes:
      init: ``(params) -> LearnState``. It copies, so ``params`` stay valid.
      run: ``(state, data, key, *, steps, batch, count=None) -> (state, metrics)``. It consumes the
        state it is given.
      after_task: ``(state, data) -> state``: tells the remedy that a task is over.
    """

    init: Callable[[PyTree], LearnState]
    run: Callable[..., tuple[LearnState, dict]]
    after_task: Callable[[LearnState, PyTree], LearnState]


def learn(
    loss_fn: Callable[..., tuple[jax.Array, dict]],
    tx: optax.GradientTransformation,
    continual: Continual | None = None,
    trainable: Iterable[str] | None = None,
) -> Learner:
    """Makes the training loop of one node, or of many under ``vmap``, ``lax.map``, ``shard_map``.

    ``run`` takes ``steps`` steps in one compiled program. Each draws ``batch`` rows of ``data``, a
    dict of fields ``[n, ...]``, by a permutation that depends on ``key`` and the epoch alone, so
    100 steps equal 60 and then 40 with the same key. The hooks follow the order of `Continual`:
    ``batch``, the loss plus ``loss_term``, ``transform``, the optimiser, ``after_step``. ``count``
    tells how many rows are samples, the rest being padding; it is traced, so nodes with different
    amounts of data share one program. A node with none stays as it is and reports NaN.

    Args:
      loss_fn: ``(params, batch, key) -> (loss, outputs)``, a dict. Its scalars become metrics,
        everything in it goes to ``loss_term``.
      tx: the optimiser.
      continual: a remedy against forgetting; its hooks see the trainable parameters. None by
        default.
      trainable: top-level names of the parameters to train. The others are frozen: no gradient is
        computed for them and no optimiser state kept (structured knowledge, survey fig. 7). All by
        default.

    Returns:
      The learner. Its metrics are means over the steps: the scalars among the outputs, and
      ``"loss"``, which includes the ``loss_term``.

    Raises:
      ValueError: ``init`` finds no parameters of a trainable name; ``run`` finds fields of
        different lengths, or ``steps`` or ``batch`` below 1.

    Example:
      >>> def loss_fn(params, batch, key):
      ...     error = ((params["w"] - batch["x"]) ** 2).mean()
      ...     return error, {"error": error}
      >>> learner = learn(loss_fn, optax.sgd(0.5))
      >>> state = learner.init({"w": jnp.zeros(())})
      >>> data = {"x": jnp.full(8, 3.0)}
      >>> state, metrics = learner.run(state, data, jax.random.key(0), steps=2, batch=4)
      >>> float(state.params["w"]), float(metrics["loss"])
      (3.0, 4.5)
    """
    continual = Continual() if continual is None else continual
    names = None if trainable is None else frozenset(trainable)

    def split(params):
        if names is None:
            return params, {}
        train = {name: x for name, x in params.items() if name in names}
        return train, {name: x for name, x in params.items() if name not in names}

    def join(train, frozen):
        return train if names is None else {**train, **frozen}

    def init(params):
        for name in names or ():
            if name not in params:
                known = ", ".join(params)
                raise ValueError(f"trainable {name!r} is none of {known}{suggest(name, params)}")
        train, _ = split(params)
        step = jnp.zeros((), jnp.int32)
        return _copy(LearnState(params, tx.init(train), continual.init(train), step))

    def after_task(state, data):
        train, _ = split(state.params)
        return _copy(state._replace(continual=continual.after_task(state.continual, train, data)))

    @functools.partial(jax.jit, static_argnames=("steps", "batch"), donate_argnames="state")
    def program(state, data, count, key, steps, batch):
        train, frozen = split(state.params)
        shuffle, key = jax.random.split(key)
        table = jnp.arange(jax.tree.leaves(data)[0].shape[0], dtype=jnp.int32)
        rows = client_batches(shuffle, table, count, state.step, steps, batch)

        def one_step(carry, row):
            train, opt_state, remedy, step = carry
            mix_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
            sample = jax.tree.map(lambda x: x[row], data)
            remedy, sample = continual.batch(remedy, sample, mix_key)

            def losses(train):
                loss, outputs = loss_fn(join(train, frozen), sample, loss_key)
                term = continual.loss_term(remedy, train, sample, outputs)
                return (loss, jnp.asarray(term, loss.dtype)), outputs

            (loss, term), pull, outputs = jax.vjp(losses, train, has_aux=True)
            (grads,) = pull((jnp.ones_like(loss), jnp.ones_like(term)))
            # XLA drops this second backward pass unless `after_step` uses it.
            (task_grads,) = pull((jnp.ones_like(loss), jnp.zeros_like(term)))
            updates, opt_state = tx.update(continual.transform(remedy, grads), opt_state, train)
            new = optax.apply_updates(train, updates)
            remedy = continual.after_step(remedy, train, new, task_grads)
            scalars = {name: x for name, x in outputs.items() if jnp.ndim(x) == 0}
            return (new, opt_state, remedy, step + 1), {**scalars, "loss": loss + term}

        carry = (train, state.opt_state, state.continual, state.step)
        (train, *rest), metrics = jax.lax.scan(one_step, carry, rows)
        new = LearnState(join(train, frozen), *rest)
        new = jax.tree.map(lambda new, old: jnp.where(count > 0, new, old), new, state)
        return new, {name: jnp.where(count > 0, x.mean(), jnp.nan) for name, x in metrics.items()}

    def run(state, data, key, *, steps, batch, count=None):
        lengths = {x.shape[0] for x in jax.tree.leaves(data)}
        if len(lengths) != 1:
            raise ValueError(f"data: all fields must have the same length, got {sorted(lengths)}")
        for name, value in (("steps", steps), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        count = jnp.asarray(lengths.pop() if count is None else count, jnp.int32)
        return program(state, data, count, key, steps, batch)

    return Learner(init, run, after_task)


def _copy(tree: PyTree) -> PyTree:
    # `run` donates its state: no array of it may be the caller's, or be in it twice.
    return jax.tree.map(jnp.copy, tree)
