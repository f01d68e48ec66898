"""LoAdaBoost: clients whose loss is high train on, those whose loss is low stop early."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated import Engine, Epochs, FederatedState, ServerState, fedavg
from eejax.cotrain.federated.local import GradFn
from eejax.tiers import cast_varying

PyTree = Any


class LoadaState(NamedTuple):
    """What the server keeps.

    Attributes:
      server: model and optimiser, as of FedAvg.
      median: median of the clients' losses in the last round, f32.
    """

    server: ServerState
    median: jax.Array


def checkpoints(epochs: int) -> tuple[int, ...]:
    """Lists after how many epochs a client looks at its loss.

    Args:
      epochs: E, even.

    Returns:
      E/2, then E/2 more, then E/2 - 1 more and so on, at most 3E/2; the last one ends training.

    Raises:
      ValueError: ``epochs`` is not even or not positive.

    Example:
      >>> checkpoints(10), checkpoints(2)
      ((5, 10, 14, 15), (1, 2, 3))
    """
    if epochs < 2 or epochs % 2:
        raise ValueError(f"epochs must be even and at least 2, got {epochs!r}")
    half, ends = epochs // 2, [epochs // 2]
    while ends[-1] < 3 * half:
        ends.append(min(ends[-1] + max(half - len(ends) + 1, 1), 3 * half))
    return tuple(ends)


def most_epochs(epochs: int) -> Epochs:
    """Gives the ``steps`` of the engine: room for 3E/2 epochs, of which many are not used.

    Example:
      >>> most_epochs(10).epochs
      15
    """
    return Epochs(checkpoints(epochs)[-1])


def loadaboost(
    grad_fn: GradFn,
    loss_fn: Callable[[PyTree, PyTree], jax.Array],
    client_opt: optax.GradientTransformation,
    epochs: int,
    *,
    median: float = 1.0,
    server_opt: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Makes LoAdaBoost FedAvg.

    A client trains for E/2 epochs and then looks at its loss on its own samples. Is that at most
    the median of all clients in the last round, it stops; else it trains on, for E/2 epochs, then
    for E/2 - 1 and so on, until its loss is below or it has trained for 3E/2. Models and losses go
    up; the server averages the models and sends the new median along with the next one. Where data
    are skewed, the paper also shares data, as `data_sharing` does.

    Engines add up uploads, and a median is no sum: `with_median` makes an engine renew it. Without
    that the threshold stays where it began: at the largest float every client stops after E/2, at
    the smallest all train for 3E/2, and both are FedAvg.

    Args:
      grad_fn: gradient of the loss on one batch.
      loss_fn: ``(params, batch) -> scalar``; a client's loss is the mean over the batches of an
        epoch, the last of which is filled up.
      client_opt: optimiser of the clients, whose state lasts for the round.
      epochs: E, even; give the engine ``steps=most_epochs(epochs)``.
      median: threshold of the first round, finite.
      server_opt: optimiser of the server; plain averaging if None.

    Returns:
      The algorithm; a client keeps its loss. Metrics are ``"loss"`` after training and
      ``"epochs"``, how many were trained.

    Raises:
      ValueError: ``epochs`` is not even, or the median not finite.

    References:
      Huang et al., LoAdaBoost: Loss-based AdaBoost Federated Machine Learning with Reduced
      Computational Complexity on IID and Non-IID Intensive Care Data, 2020.

    Example:
      >>> def grad_fn(w, batch, key):
      ...     return w - batch.mean(), {}
      >>> def loss_fn(w, batch):
      ...     return (w - batch.mean()) ** 2 / 2
      >>> algorithm = loadaboost(grad_fn, loss_fn, optax.sgd(0.5), epochs=2, median=1.0)
      >>> sent = algorithm.broadcast(algorithm.init(jnp.array(0.0)))
      >>> batches = jnp.array([[4.0], [4.0], [4.0]])  # Three epochs of one step.
      >>> upload, loss, metrics = algorithm.local_update(sent, (), batches, jax.random.key(0))
      >>> float(upload), float(loss), float(metrics["epochs"])  # A loss of 2 is too high.
      (3.0, 0.5, 2.0)
    """
    ends = jnp.asarray(checkpoints(epochs), jnp.int32)
    if not np.isfinite(median):
        raise ValueError(f"median must be finite, got {median!r}")
    base = fedavg(grad_fn, client_opt, server_opt)

    def local_update(broadcast, last, batches, key, tau=None):
        del last
        params, threshold = broadcast
        steps = jax.tree.leaves(batches)[0].shape[0]
        keys = jax.random.split(key, steps)
        epoch = (steps if tau is None else tau) // checkpoints(epochs)[-1]
        axes = tuple(jax.typeof(keys).manual_axis_type.varying)

        def step(t, carry):
            w, opt_state = carry
            batch, step_key = jax.tree.map(lambda x: x[t], (batches, keys))
            updates, opt_state = client_opt.update(grad_fn(w, batch, step_key)[0], opt_state, w)
            return cast_varying((optax.apply_updates(w, updates), opt_state), axes)

        def loss_of(w):
            def add(t, total):
                return total + loss_fn(w, jax.tree.map(lambda x: x[t], batches))

            zero = cast_varying(jnp.zeros(()), axes)
            return jax.lax.fori_loop(0, epoch, add, zero) / jnp.maximum(epoch, 1)

        def train_on(carry):
            i, begin, trained, _ = carry
            trained = jax.lax.fori_loop(begin * epoch, ends[i] * epoch, step, trained)
            return cast_varying((i + 1, ends[i], trained, loss_of(trained[0])), axes)

        def unfinished(carry):
            i, _, _, loss = carry
            return (i < len(ends)) & (loss > threshold)

        start = (jnp.int32(0), jnp.int32(0), (params, client_opt.init(params)), jnp.zeros(()))
        carry = train_on(cast_varying(start, axes))
        _, trained_for, (w, _), loss = jax.lax.while_loop(unfinished, train_on, carry)
        metrics = {"loss": loss, "epochs": trained_for.astype(jnp.float32)}
        return trees.sub(w, params), loss, metrics

    def server_update(state, mean):
        return state._replace(server=base.server_update(state.server, mean))

    return FederatedAlgorithm(
        init=lambda params: LoadaState(base.init(params), jnp.float32(median)),
        client_init=lambda params: jnp.float32(jnp.nan),
        local_update=local_update,
        server_update=server_update,
        broadcast=lambda state: (state.server.params, state.median),
    )


def with_median(engine: Engine) -> Engine:
    """Makes an engine of `loadaboost` renew the threshold after each round.

    Args:
      engine: `flat`, `hierfavg` or `sampled`; of a hierarchical round, the cloud takes the median
        of all clients in its last edge round.

    Returns:
      The engine; of clients that did not take part in a round, no loss counts.
    """

    def round_(state, rows, data, key):
        cleared = jax.tree.map(lambda loss: jnp.full_like(loss, jnp.nan), state.clients.state)
        state = state._replace(clients=state.clients._replace(state=cleared))
        state, metrics = engine.run(state, rows, data, key, rounds=1)
        median = jnp.nanmedian(state.clients.state)
        median = jnp.where(jnp.isnan(median), state.server.median, median)
        server = state.server._replace(median=median)
        return state._replace(server=server), jax.tree.map(lambda m: m[0], metrics)

    def run(state: FederatedState, rows: Any, data: PyTree, key: jax.Array, rounds: int = 1):
        return jax.lax.scan(lambda s, _: round_(s, rows, data, key), state, length=rounds)

    return Engine(engine.init, jax.jit(run, static_argnames="rounds", donate_argnums=0))
