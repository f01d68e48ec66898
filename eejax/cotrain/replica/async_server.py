"""Asynchronous parameter server: gradients arrive late, of a model that has moved on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from eejax import trees
from eejax.cotrain.replica.accumulate import accumulate, flatten, mean, node_keys
from eejax.cotrain.replica.price import add_bytes, all_reduce_bytes, scalar_bytes
from eejax.cotrain.replica.replica import (
    Batch,
    GradFn,
    Replica,
    check_axes,
    compile_step,
    device_count,
    put,
)
from eejax.tiers import cast_varying

PyTree = Any


class AsyncState(NamedTuple):
    """What the server keeps.

    Attributes:
      history: the last models, ``[largest staleness + 1, ...]``; that after t updates is at t
        modulo the length.
      opt_state: state of the server's optimiser.
      count: int32, updates of the server.
    """

    history: PyTree
    opt_state: PyTree
    count: Any


def async_server(
    grad_fn: GradFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    axes: Sequence[str],
    *,
    delays: Any,
    staleness_aware: bool = False,
) -> Replica:
    """Makes an asynchronous parameter server in lock-step form: who is late is given, not timed.

    At update t the gradients of some workers arrive; that of worker k was computed at the model of
    ``tau_k`` updates ago. The server steps along their mean, weighted by samples. One arrival an
    update is plain asynchronous SGD, c arrivals are n-softsync with ``n = workers / c``, and all
    workers with no staleness are `data_parallel`. With ``staleness_aware`` a gradient is divided by
    ``max(tau, 1)``, so the learning rate of that gradient is ``alpha / tau``.

    Args:
      grad_fn: gradient of one micro-batch.
      tx: optimiser of the server.
      mesh: the mesh.
      axes: mesh axes over which the workers are laid, outermost first.
      delays: whole numbers ``[period, workers]``: the staleness tau of the gradient of each worker
        at each update, -1 where none arrives; update t takes row t modulo the period. A staleness
        that reaches behind the first model means the first model. A worker computes what arrives
        from the batch of its arrival, which is fair as long as samples are random.
      staleness_aware: whether late gradients count less.

    Returns:
      The method; its metrics have ``"staleness"``, the mean over arrivals. ``nbytes`` is that of
      this program, which sums by an all-reduce; the modelled server receives one gradient and sends
      one model for each arrival.

    Raises:
      ValueError: delays are not as stated, or the mesh has no such axes.

    References:
      Zhang et al., Staleness-aware Async-SGD for Distributed Deep Learning, 2016. Dean et al.,
      Large Scale Distributed Deep Networks, 2012.

    Example:
      >>> from eejax.cotrain.replica.replica import mean_grad, split
      >>> from eejax.tiers import make_mesh
      >>> grad_fn = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))
      >>> method = async_server(  # The second worker is always one update late.
      ...     grad_fn, optax.sgd(0.5), make_mesh((1,), ("end",)), ("end",), delays=[[0, 1]]
      ... )
      >>> batch = split(jnp.zeros(2), sizes=(1, 1))
      >>> state = method.init(jnp.array(8.0))
      >>> for _ in range(3):
      ...     state, metrics = method.step(state, batch, jax.random.key(0))
      ...     print(float(method.params(state)))
      4.0
      1.0
      -0.25
    """
    axes = check_axes(mesh, axes)
    delays = np.asarray(delays)
    if delays.ndim != 2 or not np.issubdtype(delays.dtype, np.integer) or delays.min() < -1:
        raise ValueError(f"delays must be whole numbers >= -1, [period, workers]; got {delays!r}")
    if (delays < 0).all(1).any():
        raise ValueError("delays: at least one gradient must arrive at each update")
    period, workers = delays.shape
    depth = int(delays.max()) + 1

    def init(params):
        history = jax.tree.map(lambda x: jnp.broadcast_to(x, (depth, *jnp.shape(x))), params)
        return put(mesh, AsyncState(history, tx.init(params), jnp.zeros((), jnp.int32)))

    def model(state, staleness=0):
        # Before update 0 there is only the first model.
        version = jnp.maximum(state.count - staleness, 0) % depth
        return jax.tree.map(lambda h: h[version], state.history)

    def late_grad(state, batch, key):
        tau, data = batch.data
        grads, metrics = grad_fn(model(state, tau), Batch(data, batch.weights), key)
        scale = 1 / jnp.maximum(tau, 1) if staleness_aware else jnp.float32(1)
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads), metrics

    def body(state, batch, key):
        rows, micro = batch.weights.shape[:2]
        if rows * device_count(mesh, axes) != workers:
            raise ValueError(f"batch: delays are of {workers} workers, the batch is not")
        row = jnp.asarray(delays, jnp.int32)[state.count % period]
        tau = jax.lax.dynamic_slice_in_dim(row, jax.lax.axis_index(axes) * rows, rows)
        weights = jnp.where((tau >= 0)[:, None, None], batch.weights, 0)
        tau = jnp.broadcast_to(tau[:, None], (rows, micro))
        keys = node_keys(key, state.count, (rows, micro), axes)
        sums = accumulate(
            late_grad,
            cast_varying(state, axes),
            *flatten(Batch((tau, batch.data), weights), keys),
        )
        weight, metrics = jax.lax.psum((sums.weight, sums.metrics), axes)
        grads = mean(jax.lax.psum(sums.grads, axes), weight)
        params = model(state)
        updates, opt_state = tx.update(grads, state.opt_state, params)
        new = optax.apply_updates(params, updates)
        history = jax.tree.map(
            lambda h, x: h.at[(state.count + 1) % depth].set(x), state.history, new
        )
        arrived = row >= 0
        staleness = jnp.where(arrived, row, 0).sum() / arrived.sum()
        return AsyncState(history, opt_state, state.count + 1), {
            **mean(metrics, weight),
            "staleness": staleness,
        }

    def nbytes(params, batch):
        return add_bytes(
            all_reduce_bytes(trees.nbytes(params), mesh, axes),
            scalar_bytes(grad_fn, params, batch, mesh, axes),
        )

    return Replica(init, compile_step(body, mesh, axes), jax.jit(model), nbytes)
