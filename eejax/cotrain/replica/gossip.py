"""D-PSGD: no server; every node averages with its neighbours and steps by its own gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from eejax import trees
from eejax.cotrain.replica.accumulate import accumulate, mean, node_keys
from eejax.cotrain.replica.mixing import check_mixing, mix, mix_bytes
from eejax.cotrain.replica.price import add_bytes, scalar_bytes
from eejax.cotrain.replica.replica import (
    GradFn,
    Replica,
    ReplicaState,
    check_axes,
    compile_step,
    device_count,
    put,
)

PyTree = Any


def gossip(
    grad_fn: GradFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    axes: Sequence[str],
    *,
    w: Any,
    adapt_first: bool = False,
) -> Replica:
    """Makes decentralised parallel SGD.

    Node i has its own model ``x_i`` and steps ``x_i <- sum_j W_ij x_j - gamma g_i(x_i)``; models
    and gradients may then travel and compute at the same time. With ``adapt_first`` nodes step
    first and average what comes out, ``x_i <- sum_j W_ij (x_j - gamma g_j(x_j))``: on the complete
    graph that is synchronous SGD, one model everywhere. Gradients are means over a node's own
    samples, and all nodes count the same, whatever their batch sizes.

    Args:
      grad_fn: gradient of one micro-batch.
      tx: optimiser of each node; its state stays at the node.
      mesh: the mesh.
      axes: mesh axes over which the nodes are laid, outermost first.
      w: doubly stochastic mixing matrix ``[nodes, nodes]``, such as ``ring(n)``.
      adapt_first: whether to step before averaging.

    Returns:
      The method; its state has parameters ``[nodes, ...]``, and ``params`` gives their mean.

    Raises:
      ValueError: the matrix is not doubly stochastic, its nodes do not divide over the devices,
        or the mesh has no such axes.

    References:
      Lian et al., Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for
      Decentralized Parallel Stochastic Gradient Descent, 2017. Adapting first: Sayed, Adaptation,
      Learning, and Optimization over Networks, 2014.

    Example:
      >>> from eejax.cotrain.replica.mixing import ring
      >>> from eejax.cotrain.replica.replica import mean_grad, split
      >>> from eejax.tiers import make_mesh
      >>> grad_fn = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))
      >>> mesh = make_mesh((1,), ("end",))
      >>> method = gossip(grad_fn, optax.sgd(0.5), mesh, ("end",), w=ring(4))
      >>> batch = split(jnp.array([0.0, 2.0, 4.0, 6.0]), sizes=(1, 1, 1, 1))
      >>> state, metrics = method.step(method.init(jnp.array(0.0)), batch, jax.random.key(0))
      >>> state.params.tolist(), float(method.params(state))
      ([0.0, 1.0, 2.0, 3.0], 1.5)
    """
    axes = check_axes(mesh, axes)
    w = check_mixing(w)
    devices = device_count(mesh, axes)
    if len(w) % devices:
        raise ValueError(f"w: {len(w)} nodes do not divide over {devices} devices of axes {axes}")
    nodes, laid = PartitionSpec(axes), ReplicaState(*(PartitionSpec(axes),) * 2, PartitionSpec())

    def init(params):
        own = (params, tx.init(params))
        own = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(w), *jnp.shape(x))), own)
        return ReplicaState(*put(mesh, own, nodes), put(mesh, jnp.zeros((), jnp.int32)))

    def body(laid, state, batch, key):
        del laid
        if batch.weights.shape[0] * devices != len(w):
            raise ValueError(f"batch: w is of {len(w)} nodes, the batch is not")
        keys = node_keys(key, state.count, batch.weights.shape[:2], axes)
        sums = jax.lax.map(lambda xs: accumulate(grad_fn, *xs), (state.params, batch, keys))
        total = jax.tree.map(lambda x: x.sum(0), (sums.weight, sums.metrics))
        weight, metrics = jax.lax.psum(total, axes)
        grads = jax.vmap(mean)(sums.grads, sums.weight)
        updates, opt_state = jax.vmap(tx.update)(grads, state.opt_state, state.params)
        if adapt_first:
            params = mix(optax.apply_updates(state.params, updates), w, axes)
        else:
            params = optax.apply_updates(mix(state.params, w, axes), updates)
        return ReplicaState(params, opt_state, state.count + 1), mean(metrics, weight)

    def nbytes(params, batch):
        return add_bytes(
            mix_bytes(trees.nbytes(params), w, mesh, axes),
            scalar_bytes(grad_fn, params, batch, mesh, axes),
        )

    return Replica(
        init,
        compile_step(body, mesh, axes, lambda state: laid),
        jax.jit(lambda state: jax.tree.map(lambda x: x.mean(0), state.params)),
        nbytes,
    )


def consensus_distance(params: PyTree) -> jax.Array:
    """Measures how far nodes are from their mean: ``sqrt(mean_i ||x_i - mean_j x_j||^2)``.

    Args:
      params: leaves ``[nodes, ...]``.

    Returns:
      A scalar.

    Example:
      >>> float(consensus_distance({"w": jnp.array([[1.0, 0.0], [-1.0, 0.0]])}))
      1.0
    """
    squares = [
        jnp.square(x - x.mean(0, keepdims=True)).sum() / x.shape[0] for x in jax.tree.leaves(params)
    ]
    return jnp.sqrt(sum(squares))
