"""Loss and gradients of a pipeline in one SPMD program, for any schedule."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from eejax.cotrain.pipeline.plan import make_plan
from eejax.cotrain.pipeline.schedule import Schedule
from eejax.cotrain.pipeline.stages import Stages
from eejax.cotrain.pipeline.ticks import Weights, run_ticks
from eejax.names import suggest
from eejax.tiers.mesh import cast_varying

PyTree = Any


def value_and_grad(
    stages: Stages,
    schedule: Schedule,
    mesh: Mesh,
    *,
    axis: str = "stage",
    grad_axes: Sequence[str] = (),
    remat: bool | Callable[..., Any] = True,
    input_grads: bool = False,
) -> Callable[..., tuple[jax.Array, PyTree]]:
    """Makes the pipelined loss and its gradients; use it under `jax.jit`.

    The loss is the mean over micro-batches and over ``grad_axes``. Gradients are summed over
    ``grad_axes`` once, after the last tick. Every device holds its own stages only, and room for as
    many waiting activations as the fullest device needs, whatever M is in `fused` and
    `one_f_one_b`. SPMD programs are in lock-step: `bubble` with ``lockstep=True`` is theirs.

    Args:
      stages: from `equal` or `unequal`.
      schedule: a table; `fused` is the fastest choice.
      mesh: from `tiers.make_mesh`.
      axis: mesh axis of the stages.
      grad_axes: mesh axes over which batches are split and parameters are copied.
      remat: True stashes the input of a stage and computes the stage again in its backward; False
        stashes all residuals; a policy of `jax.checkpoint_policies` stashes what it names.
      input_grads: whether to return gradients of the inputs, which must be floats, too.

    Returns:
      ``(params, inputs, targets) -> (loss, grads)``, or ``(loss, (grads, input grads))``. Leaves of
      ``params`` are ``[chunks, stages, ...]`` as from `stack`, leaves of inputs and targets
      ``[microbatches, batch, ...]``.

    Raises:
      ValueError: the mesh does not suit the schedule, or, when called, shapes do not.

    Example:
      >>> from eejax.cotrain.pipeline import equal, fused
      >>> from eejax.tiers import make_mesh
      >>> stages = equal(lambda w, x: w * x, lambda y, t: ((y - t) ** 2).mean())
      >>> step = value_and_grad(stages, fused(1, 2), make_mesh((1,), ("stage",)))
      >>> x = jnp.array([[[1.0]], [[2.0]]])  # Two micro-batches of one sample.
      >>> loss, grad = jax.jit(step)(jnp.array([[3.0]]), x, 2 * x)
      >>> float(loss), grad.tolist()  # ((3 - 2)^2 + (6 - 4)^2) / 2.
      (2.5, [[5.0]])
    """
    grad_axes = tuple(grad_axes)
    check_mesh(schedule, mesh, axis, grad_axes)
    local = device_value_and_grad(
        stages, schedule, axis=axis, grad_axes=grad_axes, remat=remat, input_grads=input_grads
    )
    copies = math.prod(mesh.shape[name] for name in grad_axes)

    def mean(params, inputs, targets):
        loss, grads = local(params, inputs, targets)
        return jax.tree.map(lambda g: g / copies, (lax.psum(loss, grad_axes), grads))

    own, split = PartitionSpec(None, axis), PartitionSpec(None, grad_axes)
    of_inputs = PartitionSpec(axis, None, grad_axes)
    run = jax.shard_map(
        mean,
        mesh=mesh,
        in_specs=(own, split, split),
        out_specs=(PartitionSpec(), (own, of_inputs) if input_grads else own),
    )

    def step(params, inputs, targets):
        check_shapes(schedule, params, (inputs, targets), copies)
        loss, grads = run(params, inputs, targets)
        if input_grads:
            # Only the first stage reads the inputs.
            grads = (grads[0], jax.tree.map(lambda g: g[0], grads[1]))
        return loss, grads

    return step


def device_value_and_grad(
    stages: Stages,
    schedule: Schedule,
    *,
    axis: str = "stage",
    grad_axes: Sequence[str] = (),
    remat: bool | Callable[..., Any] = True,
    input_grads: bool = False,
) -> Callable[..., tuple[jax.Array, PyTree]]:
    """Makes what one device runs inside `jax.shard_map`, to combine with other parallelism.

    Args:
      stages: as for `value_and_grad`.
      schedule: as for `value_and_grad`.
      axis: as for `value_and_grad`.
      grad_axes: as for `value_and_grad`; with tensor parallelism also the axes over which it copies
        parameters, or their gradients are summed in every tick.
      remat: as for `value_and_grad`.
      input_grads: as for `value_and_grad`.

    Returns:
      ``(params, inputs, targets) -> (loss, grads)`` over leaves of this device,
      ``[chunks, 1, ...]`` and ``[microbatches, batch, ...]``. The loss is summed over the stages
      and averaged over micro-batches, but not reduced over other axes; the gradients are summed
      over ``grad_axes``, not averaged. Gradients of inputs are ``[1, microbatches, batch, ...]``,
      zero on all devices but the first.
    """
    plan = make_plan(schedule, recompute=remat is True)

    def absorb(grads, row, dparams):
        if schedule.chunks == 1:
            return jax.tree.map(lambda g, d: g + d[None], grads, dparams)
        return jax.tree.map(lambda g, d: g.at[row.backward_chunk].add(d), grads, dparams)

    def run(params, inputs, targets):
        params = cast_varying(jax.tree.map(lambda p: p[:, 0], params), (axis, *grad_axes))
        weights = Weights(
            lambda _, row: _chunk(params, row.forward_chunk),
            lambda _, row: _chunk(params, row.backward_chunk),
            absorb,
        )
        grads, losses, dinputs = run_ticks(
            stages, plan, weights, jax.tree.map(jnp.zeros_like, params), inputs, targets,
            axis=axis, remat=remat, input_grads=input_grads,
        )  # fmt: skip
        # Once here, not in every tick.
        grads = lax.psum(jax.tree.map(lambda g: g[:, None], grads), tuple(grad_axes))
        if input_grads:
            grads = (grads, jax.tree.map(lambda g: g[None], dinputs[0]))
        mean = jax.tree.map(lambda g: g / schedule.microbatches, grads)
        return lax.psum(losses[0], axis) / schedule.microbatches, mean

    return run


def check_mesh(schedule: Schedule, mesh: Mesh, axis: str, grad_axes: Sequence[str]) -> None:
    """Refuses a mesh that does not suit a schedule.

    Args:
      schedule: the schedule.
      mesh: the mesh.
      axis: name of the axis of the stages.
      grad_axes: names of the axes of copies.

    Raises:
      ValueError: an axis is missing, or the stages are not as many as its devices.
    """
    for name in (axis, *grad_axes):
        if name not in mesh.shape:
            known = ", ".join(mesh.shape)
            raise ValueError(f"axis {name!r} is none of {known}{suggest(name, mesh.shape)}")
    if axis in grad_axes:
        raise ValueError(f"grad_axes must not hold {axis!r}, the axis of the stages")
    if mesh.shape[axis] != schedule.stages:
        raise ValueError(
            f"schedule {schedule.name!r} has {schedule.stages} stages, but mesh axis {axis!r} "
            f"{mesh.shape[axis]} devices"
        )


def check_shapes(schedule: Schedule, params: PyTree, batches: PyTree, copies: int) -> None:
    """Refuses parameters and batches that do not suit a schedule.

    Args:
      schedule: the schedule.
      params: leaves ``[chunks, stages, ...]``.
      batches: leaves ``[microbatches, batch, ...]``.
      copies: devices over which a batch is split.

    Raises:
      ValueError: says which leading axes are wrong.
    """
    want = (schedule.chunks, schedule.stages)
    for p in jax.tree.leaves(params):
        if p.shape[:2] != want:
            raise ValueError(
                f"params must be [chunks, stages, ...] = {want} as from stack, got {p.shape}"
            )
    for x in jax.tree.leaves(batches):
        if x.ndim < 2 or x.shape[0] != schedule.microbatches or x.shape[1] % copies:
            raise ValueError(
                f"inputs and targets must be [microbatches, batch, ...] with "
                f"{schedule.microbatches} micro-batches and a batch that {copies} copies divide, "
                f"got {x.shape}"
            )


def _chunk(params: PyTree, chunk: Any) -> PyTree:
    def take(p):
        # Nothing is copied where there is no choice.
        return p[0] if p.shape[0] == 1 else lax.dynamic_index_in_dim(p, chunk, keepdims=False)

    return jax.tree.map(take, params)
