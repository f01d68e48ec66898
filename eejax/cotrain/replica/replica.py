"""What all data-parallel methods share: the tuple `Replica`, its batches, its compiled step."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.names import suggest

PyTree = Any


class Batch(NamedTuple):
    """Samples of all nodes; nodes are rows, laid over the mesh axes of data parallelism.

    Attributes:
      data: leaves ``[nodes, micro, batch, ...]``.
      weights: ``[nodes, micro, batch]``: weight of each sample in the loss; 0 is padding.
    """

    data: PyTree
    weights: Any


GradFn = Callable[..., tuple[PyTree, dict]]
"""``(params, batch, key) -> (grads, metrics)`` of one micro-batch, a `Batch` whose leaves are
``[batch, ...]``; means over its samples by their weights. Metrics is a flat dict of scalars."""


class Replica(NamedTuple):
    """A data-parallel method: every node trains the whole model on its own samples.

    Attributes:
      init: ``(params) -> state``.
      step: ``(state, batch, key) -> (state, metrics)``: one compiled program, which gives up the
        buffers of ``state`` and may be scanned. ``key`` is the key of the whole run, the same at
        every step: step, node and micro-batch fold their numbers in. Metrics are means over the
        samples of all nodes.
      params: ``(state) -> params``: the model, whole.
      nbytes: ``(params, batch) -> {axis: bytes}``: what the mean device sends in a step in ring
        algorithms, by the outermost mesh axis that is crossed; from shapes alone, and equal to
        ``tiers.collectives`` of the compiled step.
    """

    init: Callable[[PyTree], PyTree]
    step: Callable[..., tuple[PyTree, dict]]
    params: Callable[[PyTree], PyTree]
    nbytes: Callable[[PyTree, Batch], dict[str, float]]


class ReplicaState(NamedTuple):
    """Parameters, optimiser state and the number of steps taken (int32)."""

    params: PyTree
    opt_state: PyTree
    count: Any


def split(data: PyTree, sizes: Sequence[int], micro: int = 1) -> Batch:
    """Deals the samples of a global batch out to the nodes, in order, on the host.

    Nodes may have different numbers of samples: shapes must be equal in one program, so rows are
    padded with the first sample at weight 0.

    Args:
      data: leaves ``[n, ...]``.
      sizes: ``[nodes]`` samples of each node, such as `allocate` gives; their sum is n.
      micro: number of micro-batches.

    Returns:
      The batch, ``[nodes, micro, ceil(max(sizes) / micro), ...]``.

    Raises:
      ValueError: sizes do not add up to n, or one is negative; or ``micro`` is below 1.

    Example:
      >>> batch = split(np.arange(5), sizes=(3, 2), micro=2)
      >>> batch.data.tolist(), batch.weights.tolist()
      ([[[0, 1], [2, 0]], [[3, 4], [0, 0]]], [[[1.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    """
    sizes = np.asarray(sizes, np.int64)
    lengths = {np.shape(x)[0] for x in jax.tree.leaves(data)}
    if sizes.ndim != 1 or sizes.min() < 0 or {int(sizes.sum())} != lengths:
        raise ValueError(
            f"sizes {sizes.tolist()} must be >= 0 and add up to the samples {sorted(lengths)}"
        )
    if micro < 1:
        raise ValueError(f"micro must be >= 1, got {micro}")
    width = -(-int(sizes.max()) // micro)
    place = np.arange(micro * width)[None]
    used = place < sizes[:, None]
    index = np.where(used, (np.cumsum(sizes) - sizes)[:, None] + place, 0)
    index, used = (x.reshape(len(sizes), micro, width) for x in (index, used))
    return Batch(jax.tree.map(lambda x: np.asarray(x)[index], data), used.astype(np.float32))


def mean_grad(loss_fn: Callable[..., tuple[Any, dict]]) -> GradFn:
    """Turns a loss of each sample into the gradient of the weighted mean.

    Args:
      loss_fn: ``(params, data, key) -> (loss [batch], metrics)`` with metrics ``[batch]`` each.

    Returns:
      A gradient function; its metrics have ``"loss"`` besides those of ``loss_fn``.

    Example:
      >>> grad_fn = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))
      >>> batch = Batch(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0]))
      >>> grads, metrics = grad_fn(jnp.array(0.0), batch, None)
      >>> float(grads), float(metrics["loss"])
      (-2.0, 2.5)
    """

    def mean_loss(params, batch, key):
        loss, metrics = loss_fn(params, batch.data, key)
        total = jnp.maximum(batch.weights.sum(), jnp.finfo(batch.weights.dtype).tiny)
        means = {
            name: (batch.weights * x).sum() / total for name, x in {**metrics, "loss": loss}.items()
        }
        return means["loss"], means

    return jax.grad(mean_loss, has_aux=True)


def check_axes(mesh: Mesh, axes: Sequence[str]) -> tuple[str, ...]:
    """Checks the mesh axes over which nodes are laid.

    Args:
      mesh: the mesh.
      axes: some of its axes, outermost (slowest link) first.

    Returns:
      The axes.

    Raises:
      ValueError: an axis is unknown, named twice or out of order; names the nearest.
    """
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    for axis in axes:
        if axis not in mesh.axis_names:
            hint = suggest(axis, mesh.axis_names)
            raise ValueError(f"axes: {axis!r} is none of {mesh.axis_names}{hint}")
    if not axes or axes != tuple(a for a in mesh.axis_names if a in axes):
        raise ValueError(f"axes {axes} must be some of {mesh.axis_names}, each once, in this order")
    return axes


def device_count(mesh: Mesh, axes: Sequence[str]) -> int:
    """Counts the devices along some axes of a mesh."""
    return math.prod(mesh.shape[axis] for axis in axes)


def put(mesh: Mesh, tree: PyTree, specs: PyTree = None) -> PyTree:
    """Lays fresh copies of arrays over a mesh, so that a step may give up their buffers.

    Args:
      mesh: the mesh.
      tree: any arrays.
      specs: a partition spec, or a tree of them; replicated if None.

    Returns:
      The copies.
    """
    specs = PartitionSpec() if specs is None else specs
    laid = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(jax.tree.map(jnp.copy, tree), laid)


def compile_step(
    body: Callable, mesh: Mesh, axes: tuple[str, ...], specs: Callable | None = None
) -> Callable:
    """Turns a step, written for one device, into the program of `Replica.step`.

    Args:
      body: ``(state, batch, key) -> (state, metrics)`` inside `jax.shard_map`; metrics are equal on
        all devices. With ``specs`` it takes the specs of the state before these.
      mesh: the mesh; axes other than ``axes`` stay with the compiler.
      axes: the axes over which the nodes are laid.
      specs: ``(state) -> partition specs``; the state is replicated if None.

    Returns:
      ``step(state, batch, key)``.
    """
    devices = device_count(mesh, axes)

    def step(state, batch, key):
        nodes = batch.weights.shape[0]
        for x in jax.tree.leaves(batch.data):
            if x.shape[:3] != batch.weights.shape:
                raise ValueError(
                    f"batch: data {x.shape} and weights {batch.weights.shape} must begin with the "
                    "same [nodes, micro, batch]"
                )
        if nodes % devices:
            raise ValueError(
                f"batch: {nodes} nodes do not divide over {devices} devices of axes {axes}"
            )
        state_specs = PartitionSpec() if specs is None else specs(state)
        return jax.shard_map(
            body if specs is None else functools.partial(body, state_specs),
            mesh=mesh,
            in_specs=(state_specs, PartitionSpec(axes), PartitionSpec()),
            out_specs=(state_specs, PartitionSpec()),
            axis_names=set(axes),
        )(state, batch, key)

    return jax.jit(step, donate_argnums=0)
