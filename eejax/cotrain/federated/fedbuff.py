"""FedBuff: the server collects updates in a buffer and steps when it is full."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eejax.cotrain.federated.asynchronous import AsyncServer
from eejax.cotrain.federated.fedasync import polynomial

PyTree = Any


class FedBuffState(NamedTuple):
    """What the server keeps.

    Attributes:
      params: the global model.
      opt_state: state of the server's optimiser.
      buffer: weighted sum of the updates that wait.
      weight: sum of their weights.
      waiting: int32, how many wait.
      version: int32, steps of the server.
    """

    params: PyTree
    opt_state: PyTree
    buffer: PyTree
    weight: jax.Array
    waiting: jax.Array
    version: jax.Array


def fedbuff(
    size: int,
    server_opt: optax.GradientTransformation | None = None,
    *,
    staleness: Callable[[jax.Array], jax.Array] | None = None,
    weighting: str = "uniform",
) -> AsyncServer:
    """Makes the server of FedBuff: every ``size`` updates it steps along their mean.

    Args:
      size: updates of a step, K.
      server_opt: optimiser of the server; ``optax.sgd(1.0)`` if None.
      staleness: scales an update by its staleness; ``polynomial(0.5)``, as published, if None.
      weighting: ``"uniform"``, as published: the sum over K; or ``"samples"``: the mean weighted by
        the clients' samples, as in FedAvg.

    Returns:
      The server.

    Raises:
      ValueError: the size is below 1, or the weighting unknown.

    References:
      Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, 2022.

    Example:
      >>> server = fedbuff(2)
      >>> state = server.init(jnp.array(1.0))
      >>> state = server.receive(state, state.params, jnp.array(2.0), 10, jnp.array(0))
      >>> float(state.params), int(state.version)
      (1.0, 0)
      >>> state = server.receive(state, state.params, jnp.array(8.0), 10, jnp.array(3))
      >>> float(state.params), int(state.version)  # 1 + (2 + 8 / 2) / 2.
      (4.0, 1)
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if weighting not in ("uniform", "samples"):
        raise ValueError(f"weighting must be 'uniform' or 'samples', got {weighting!r}")
    server_opt = optax.sgd(1.0) if server_opt is None else server_opt
    staleness = polynomial(0.5) if staleness is None else staleness

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        nothing = jax.tree.map(jnp.zeros_like, params)
        return FedBuffState(params, server_opt.init(params), nothing, jnp.zeros(()), zero, zero)

    def receive(state, pulled, upload, samples, stale):
        del pulled
        weight = 1.0 if weighting == "uniform" else jnp.asarray(samples, jnp.float32)
        scale = weight * staleness(stale)
        buffer = jax.tree.map(
            lambda b, u: b + jnp.asarray(scale, b.dtype) * u, state.buffer, upload
        )
        state = state._replace(
            buffer=buffer, weight=state.weight + weight, waiting=state.waiting + 1
        )
        return jax.lax.cond(state.waiting >= size, step, lambda s: s, state)

    def step(state):
        gradient = jax.tree.map(lambda b: -b / state.weight.astype(b.dtype), state.buffer)
        updates, opt_state = server_opt.update(gradient, state.opt_state, state.params)
        return FedBuffState(
            optax.apply_updates(state.params, updates),
            opt_state,
            jax.tree.map(jnp.zeros_like, state.buffer),
            jnp.zeros(()),
            jnp.zeros((), jnp.int32),
            state.version + 1,
        )

    return AsyncServer(init, receive, lambda s: s.params, lambda s: s.version)
