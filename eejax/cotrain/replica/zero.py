"""ZeRO: no node keeps what another one keeps already."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from eejax import trees
from eejax.cotrain.replica.accumulate import accumulate, flatten, mean, node_keys
from eejax.cotrain.replica.price import add_bytes, all_reduce_bytes, gather_bytes, scalar_bytes
from eejax.cotrain.replica.replica import (
    GradFn,
    Replica,
    ReplicaState,
    check_axes,
    compile_step,
    device_count,
    put,
)
from eejax.tiers import cast_varying

PyTree = Any


def zero(
    grad_fn: GradFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    axes: Sequence[str],
    *,
    stage: int = 1,
) -> Replica:
    """Makes synchronous data parallelism whose state is sharded over the nodes' devices.

    With n devices, N bytes of parameters and m micro-batches on a device, a device keeps and sends:

    ===== ============ ================ =============== =========================================
    stage optimiser    gradient sums    parameters      bytes sent, in units of N (n - 1) / n
    ===== ============ ================ =============== =========================================
    1     1/n          N                N               2: scatter gradients, gather parameters
    2     1/n          N / n            N               m + 1: scatter every micro-batch
    3     1/n          N / n            N / n           m + 1: gather before, not after
    ===== ============ ================ =============== =========================================

    Plain data parallelism sends 2 as well. Numbers are the same in all stages. Stage 3 gathers the
    whole model for the length of a step, so between steps memory is 1/n, within a step it is not:
    `zero3` gathers a stack of layers one by one.

    A leaf is sharded along its largest dimension that n divides, and keeps its shape, so a
    checkpoint does not depend on n. A leaf without such a dimension stays whole everywhere, and
    its gradient is all-reduced once a step.

    Args:
      grad_fn: gradient of one micro-batch.
      tx: an optimiser that treats each element by itself, such as Adam. Norms over whole gradients
        (global clipping, LAMB, Adafactor) would be norms of shards, and are refused by ``init``.
      mesh: the mesh.
      axes: mesh axes over which the nodes are laid and the state is sharded, outermost first.
      stage: 1, 2 or 3.

    Returns:
      The method.

    Raises:
      ValueError: no such stage, the mesh has no such axes, or (from ``init``) the optimiser is not
        elementwise.

    References:
      Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
      2020.

    Example:
      >>> from eejax.cotrain.replica.replica import mean_grad, split
      >>> from eejax.tiers import make_mesh
      >>> grad_fn = mean_grad(lambda w, x, key: (((w[None] - x) ** 2).sum(-1) / 2, {}))
      >>> mesh = make_mesh((1,), ("end",))
      >>> method = zero(grad_fn, optax.sgd(1.0), mesh, ("end",), stage=3)
      >>> batch = split(jnp.array([[1.0, 5.0], [3.0, 7.0]]), sizes=(1, 1))
      >>> state, metrics = method.step(method.init(jnp.zeros(2)), batch, jax.random.key(0))
      >>> method.params(state).tolist()
      [2.0, 6.0]
    """
    if stage not in (1, 2, 3):
        raise ValueError(f"stage must be 1, 2 or 3, got {stage!r}")
    axes = check_axes(mesh, axes)
    n = device_count(mesh, axes)

    def spec(x):
        dim = shard_dim(x.shape, n)
        return PartitionSpec() if dim < 0 else PartitionSpec(*(None,) * dim, axes)

    def specs(state):
        params, opt_state = jax.tree.map(spec, (state.params, state.opt_state))
        return ReplicaState(params if stage == 3 else PartitionSpec(), opt_state, PartitionSpec())

    def init(params):
        check_elementwise(tx, params, n)
        state = ReplicaState(params, tx.init(params), jnp.zeros((), jnp.int32))
        return ReplicaState(*(put(mesh, x, s) for x, s in zip(state, specs(state))))

    def body(laid, state, batch, key):
        if stage == 3:  # Shards do not tell along which dimension they were cut, but specs do.
            dims = jax.tree.map(lambda s: len(s) - 1, laid.params)
            params = cast_varying(jax.tree.map(gathered, state.params, dims), axes)
        else:
            dims = jax.tree.map(lambda x: shard_dim(x.shape, n), state.params)
            params = cast_varying(state.params, axes)
        keys = node_keys(key, state.count, batch.weights.shape[:2], axes)
        if stage == 1:
            sums = accumulate(grad_fn, params, *flatten(batch, keys))
            grads = jax.tree.map(scattered, sums.grads, dims)
        else:
            sums = accumulate(
                grad_fn, params, *flatten(batch, keys),
                each=lambda grads: jax.tree.map(scattered, grads, dims),
            )  # fmt: skip
            grads = sums.grads
        grads = jax.tree.map(lambda g, dim: jax.lax.psum(g, axes) if dim < 0 else g, grads, dims)
        weight, metrics = jax.lax.psum((sums.weight, sums.metrics), axes)
        own = state.params if stage == 3 else jax.tree.map(cut, state.params, dims)
        updates, opt_state = tx.update(mean(grads, weight), state.opt_state, own)
        new = optax.apply_updates(own, updates)
        if stage < 3:
            new = jax.tree.map(gathered, new, dims)
        return ReplicaState(new, opt_state, state.count + 1), mean(metrics, weight)

    def scattered(g, dim):
        return scatter(g, dim, axes)

    def gathered(x, dim):
        return gather(x, dim, axes, to="invarying")

    def cut(x, dim):
        if dim < 0:
            return x
        size = x.shape[dim] // n
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axes) * size, size, dim)

    def nbytes(params, batch):
        nodes, micro = batch.weights.shape[:2]
        whole = [x for x in jax.tree.leaves(params) if shard_dim(x.shape, n) < 0]
        sharded = [x for x in jax.tree.leaves(params) if shard_dim(x.shape, n) >= 0]
        scatters = 1 if stage == 1 else nodes // n * micro
        return add_bytes(
            gather_bytes((scatters + 1) * trees.nbytes(sharded), mesh, axes),
            all_reduce_bytes(trees.nbytes(whole), mesh, axes),
            scalar_bytes(grad_fn, params, batch, mesh, axes),
        )

    return Replica(init, compile_step(body, mesh, axes, specs), lambda state: state.params, nbytes)


def shard_dim(shape: Sequence[int], n: int) -> int:
    """Chooses the dimension along which a leaf is sharded over n devices.

    Args:
      shape: shape of the leaf.
      n: number of devices.

    Returns:
      The first of the largest dimensions that n divides; -1 if there is none.

    Example:
      >>> shard_dim((3, 3, 16, 32), 8), shard_dim((10,), 8)
      (3, -1)
    """
    return max(
        (dim for dim, size in enumerate(shape) if size and size % n == 0),
        key=lambda dim: shape[dim],
        default=-1,
    )


def gather(x: jax.Array, dim: int, axes: Sequence[str], to: str = "varying") -> jax.Array:
    """Gathers the shards of a leaf along a dimension, inside `jax.shard_map`; none at -1."""
    return x if dim < 0 else jax.lax.all_gather(x, axes, axis=dim, tiled=True, to=to)


def scatter(g: jax.Array, dim: int, axes: Sequence[str]) -> jax.Array:
    """Sums a leaf over devices, each of which gets its shard; the leaf itself at -1."""
    if dim < 0:
        return g
    return jax.lax.psum_scatter(g, axes, scatter_dimension=dim, tiled=True)


def check_elementwise(tx: optax.GradientTransformation, params: PyTree, n: int) -> None:
    """Checks on a corner of every leaf that an optimiser treats shards as it treats the whole.

    Args:
      tx: the optimiser.
      params: the model.
      n: number of devices.

    Raises:
      ValueError: it does not, so sharding it would silently train something else.

    Example:
      >>> check_elementwise(optax.adam(0.1), {"w": jnp.ones((4, 4))}, 2)
      >>> check_elementwise(optax.clip_by_global_norm(1.0), {"w": jnp.ones((4, 4))}, 2)
      Traceback (most recent call last):
      ValueError: tx is not elementwise: ...
    """
    rng = np.random.default_rng(0)

    def corner(x):
        return x[(slice(2),) * x.ndim]

    def shard(x, whole):
        dim = shard_dim(whole.shape, n)
        return x if dim < 0 else jax.lax.slice_in_dim(x, 0, 1, axis=dim)

    def update(params, grads):
        return tx.update(grads, tx.init(params), params)[0]

    whole = jax.tree.map(corner, params)
    # Large, so that a clip by norm would clip.
    grads = jax.tree.map(lambda x: jnp.asarray(1e3 * rng.normal(size=x.shape), x.dtype), whole)
    of_whole = jax.tree.map(shard, update(whole, grads), params)
    of_shard = update(*(jax.tree.map(shard, tree, params) for tree in (whole, grads)))
    for a, b in zip(jax.tree.leaves(of_whole), jax.tree.leaves(of_shard)):
        if n > 1 and not np.allclose(a, b, rtol=1e-3, atol=0, equal_nan=True):
            raise ValueError(
                "tx is not elementwise: its update of a shard is not the shard of its update"
            )
