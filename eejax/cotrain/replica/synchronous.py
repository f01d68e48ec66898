"""Synchronous data parallelism: all nodes wait for the mean of all gradients."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from eejax import trees
from eejax.cotrain.replica.accumulate import accumulate, flatten, mean, node_keys
from eejax.cotrain.replica.price import add_bytes, all_reduce_bytes, scalar_bytes
from eejax.cotrain.replica.replica import (
    GradFn,
    Replica,
    ReplicaState,
    check_axes,
    compile_step,
    put,
)
from eejax.tiers import cast_varying

PyTree = Any


class Reduce(NamedTuple):
    """A way to sum over nodes.

    Attributes:
      psum: ``(tree, axes) -> tree`` inside `jax.shard_map`; axes are outermost first.
      nbytes: ``(tree, mesh, axes) -> {axis: bytes}``: what one device sends.
    """

    psum: Callable[[PyTree, tuple[str, ...]], PyTree]
    nbytes: Callable[[PyTree, Mesh, tuple[str, ...]], dict[str, float]]


FLAT = Reduce(
    jax.lax.psum, lambda tree, mesh, axes: all_reduce_bytes(trees.nbytes(tree), mesh, axes)
)
"""One all-reduce over all nodes, whatever links lie between them."""


def data_parallel(
    grad_fn: GradFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    axes: Sequence[str],
    *,
    reduce: Reduce = FLAT,
) -> Replica:
    """Makes synchronous data parallelism.

    Node k has the gradient ``g_k``, a mean over its own ``b_k`` samples; every node steps along
    ``sum_k b_k g_k / sum_k b_k``, the gradient of the global batch to the last sample. An
    all-reduce does what a parameter server does, with no node that must carry everybody's traffic.
    Gradients cross once a step, however many micro-batches there are.

    Args:
      grad_fn: gradient of one micro-batch.
      tx: any optimiser.
      mesh: the mesh.
      axes: mesh axes over which the nodes are laid, outermost first.
      reduce: how gradients are summed: `FLAT`, `HIERARCHICAL` or `NESTED`.

    Returns:
      The method.

    Raises:
      ValueError: the mesh has no such axes.

    References:
      Li et al., Scaling Distributed Machine Learning with the Parameter Server, 2014. Goyal et al.,
      Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017.

    Example:
      >>> from eejax.cotrain.replica.replica import mean_grad, split
      >>> from eejax.tiers import make_mesh
      >>> grad_fn = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))
      >>> method = data_parallel(grad_fn, optax.sgd(1.0), make_mesh((1,), ("end",)), ("end",))
      >>> batch = split(jnp.array([1.0, 2.0, 6.0]), sizes=(2, 1))  # Two nodes.
      >>> state, metrics = method.step(method.init(jnp.array(0.0)), batch, jax.random.key(0))
      >>> float(method.params(state))
      3.0
    """
    axes = check_axes(mesh, axes)

    def init(params):
        return put(mesh, ReplicaState(params, tx.init(params), jnp.zeros((), jnp.int32)))

    def body(state, batch, key):
        keys = node_keys(key, state.count, batch.weights.shape[:2], axes)
        sums = accumulate(grad_fn, cast_varying(state.params, axes), *flatten(batch, keys))
        weight, metrics = jax.lax.psum((sums.weight, sums.metrics), axes)
        grads = mean(reduce.psum(sums.grads, axes), weight)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return ReplicaState(params, opt_state, state.count + 1), mean(metrics, weight)

    def nbytes(params, batch):
        return add_bytes(
            reduce.nbytes(params, mesh, axes), scalar_bytes(grad_fn, params, batch, mesh, axes)
        )

    return Replica(init, compile_step(body, mesh, axes), lambda state: state.params, nbytes)
