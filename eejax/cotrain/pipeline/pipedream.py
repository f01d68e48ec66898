"""Asynchronous pipelines: PipeDream with weight stashing, and 2BW; no flush between minibatches."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from eejax.cotrain.pipeline.executor import check_mesh, check_shapes
from eejax.cotrain.pipeline.plan import assign_slots, backward_ends, make_plan
from eejax.cotrain.pipeline.schedule import Schedule, times
from eejax.cotrain.pipeline.stages import Stages
from eejax.cotrain.pipeline.ticks import Weights, run_ticks
from eejax.tiers.mesh import cast_varying

PyTree = Any


class AsyncState(NamedTuple):
    """What a run leaves behind.

    Attributes:
      params: leaves ``[1, stages, ...]``.
      opt_state: a state for each stage, leaves ``[1, stages, ...]``.
    """

    params: PyTree
    opt_state: PyTree


class Versions(NamedTuple):
    """Weight versions of every stage, and where they are kept.

    Attributes:
      used: version that each micro-batch uses at each stage, ``[microbatches, stages]``; version v
        is that after v updates.
      slots: versions that a stage keeps at most, the newest included, ``[stages]``.
      final: slot of the newest after the run, ``[stages]``.
      tables: int32 ``[ticks, stages]``: slot that a forward reads, that a backward reads, that an
        update reads, and that it writes, -1 where a backward is followed by no update.
    """

    used: np.ndarray
    slots: np.ndarray
    final: np.ndarray
    tables: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def weight_versions(
    schedule: Schedule, group: int = 1, *, double_buffered: bool = False
) -> Versions:
    """Works out which weights every micro-batch sees, and how many versions a stage must keep.

    With weight stashing a forward uses the newest weights, and its backward the same. With the
    schedule `pipedream` and an update after each minibatch, stage s of S then keeps ``S - s``
    versions, and its gradients are ``S - 1 - s`` updates late. Double buffering (2BW) fixes the
    delay at one update and needs two versions, if an update gathers at least S micro-batches.

    Args:
      schedule: a schedule of one chunk.
      group: micro-batches of an update.
      double_buffered: whether to use 2BW instead of weight stashing.

    Returns:
      The versions.

    Raises:
      ValueError: the schedule has chunks, the group does not divide the micro-batches, or is too
        small for 2BW.

    Example:
      >>> from eejax.cotrain.pipeline import pipedream
      >>> weight_versions(pipedream(4, 8)).slots.tolist()
      [4, 3, 2, 1]
      >>> weight_versions(pipedream(4, 8), group=4, double_buffered=True).slots.tolist()
      [2, 2, 2, 2]
    """
    if schedule.chunks != 1:
        raise ValueError(f"schedule {schedule.name!r} must have 1 chunk, got {schedule.chunks}")
    if schedule.microbatches % group:
        raise ValueError(
            f"group must divide the {schedule.microbatches} micro-batches, got {group}"
        )
    forward, backward = times(schedule)
    # Tick of the update that makes version v + 1, after the last backward of its group.
    updates = backward.reshape(-1, group, schedule.stages).max(1)
    newest = (updates[None] < forward[:, None]).sum(1)
    used = newest
    if double_buffered:
        used = np.maximum(np.arange(schedule.microbatches) // group - 1, 0)[:, None] + 0 * newest
        if (used > newest).any():
            raise ValueError(
                f"group must be at least the {schedule.stages} stages for double buffering, got "
                f"{group}"
            )
    tables = tuple(np.full((schedule.ticks, schedule.stages), -1, np.int32) for _ in range(4))
    slots, final = [], []
    for s in range(schedule.stages):
        made = [-1, *(backward_ends(t) for t in updates[:, s])]
        ends = [*made[1:], math.inf]  # The newest is read for the next update, or is the result.
        for m, v in enumerate(used[:, s]):
            ends[v] = max(ends[v], backward_ends(backward[m, s]))
        of = np.array(assign_slots(list(zip(made, ends))))
        tables[0][forward[:, s], s] = tables[1][backward[:, s], s] = of[used[:, s]]
        tables[2][updates[:, s], s], tables[3][updates[:, s], s] = of[:-1], of[1:]
        slots.append(of.max() + 1)
        final.append(of[-1])
    return Versions(used, np.array(slots), np.array(final), tables)


def asynchronous(
    stages: Stages,
    tx: optax.GradientTransformation,
    schedule: Schedule,
    mesh: Mesh,
    *,
    group: int = 1,
    double_buffered: bool = False,
    axis: str = "stage",
    grad_axes: Sequence[str] = (),
    remat: bool | Callable[..., Any] = True,
) -> tuple[Callable[[PyTree], AsyncState], Callable[..., tuple[AsyncState, dict]]]:
    """Makes PipeDream or 2BW: stages update their weights while others still use older ones.

    Forward and backward of a micro-batch use the same weights of a stage, those that
    `weight_versions` tells; the gradient goes into the newest. A run is filled and drained once,
    whatever the number of its minibatches. Each device keeps as many versions as the first stage
    needs: S, or 2 in 2BW.

    Args:
      stages: from `equal` or `unequal`.
      tx: optimiser of every stage by itself, so no norms over the whole model.
      schedule: `pipedream`; or `fused`, whose delay is ``2 (S - 1 - s)``.
      mesh: from `tiers.make_mesh`.
      group: micro-batches of an update, whose mean gradient it takes.
      double_buffered: whether to use 2BW instead of weight stashing.
      axis: mesh axis of the stages.
      grad_axes: mesh axes over which batches are split and parameters are copied; gradients are
        averaged over them at every update.
      remat: as for `value_and_grad`.

    Returns:
      ``init``: ``(params) -> AsyncState`` with leaves ``[1, stages, ...]`` as from `stack`; and
      ``run``: ``(AsyncState, inputs, targets) -> (AsyncState, metrics)`` over leaves
      ``[microbatches, batch, ...]``, with ``metrics["loss"]`` ``[microbatches]``, each at the
      weights that its micro-batch used.

    Raises:
      ValueError: see `weight_versions`; or the mesh or shapes do not suit the schedule.

    References:
      Narayanan et al., PipeDream: Generalized Pipeline Parallelism for DNN Training, 2019.
      Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training, 2021 (2BW).

    Example:
      >>> from eejax.cotrain.pipeline import equal, pipedream
      >>> from eejax.tiers import make_mesh
      >>> stages = equal(lambda w, x: w * x, lambda y, t: ((y - t) ** 2).mean() / 2)
      >>> mesh = make_mesh((1,), ("stage",))
      >>> init, run = asynchronous(stages, optax.sgd(0.5), pipedream(1, 2), mesh)
      >>> x = jnp.ones((2, 1, 1))
      >>> state, metrics = jax.jit(run)(init(jnp.zeros((1, 1))), x, 4 * x)
      >>> metrics["loss"].tolist(), state.params.tolist()  # One stage is plain SGD: 0 -> 2 -> 3.
      ([8.0, 2.0], [[3.0]])
    """
    grad_axes = tuple(grad_axes)
    check_mesh(schedule, mesh, axis, grad_axes)
    versions = weight_versions(schedule, group, double_buffered=double_buffered)
    plan = make_plan(schedule, recompute=remat is True)
    plan = plan._replace(rows=plan.rows._replace(versions=versions.tables))
    room, copies = int(versions.slots.max()), math.prod(mesh.shape[name] for name in grad_axes)

    def absorb(state, row, dparams):
        ring, opt_state, grads = state
        _, _, newest, new = row.versions
        grads = jax.tree.map(jnp.add, grads, dparams)

        def update():
            mean = jax.tree.map(lambda g: g / (group * copies), lax.psum(grads, grad_axes))
            params = _read(ring, newest)
            updates, opt = tx.update(mean, opt_state, params)
            params = optax.apply_updates(params, updates)
            put = lambda w, p: lax.dynamic_update_index_in_dim(w, p, new, 0)  # noqa: E731
            return jax.tree.map(put, ring, params), opt, jax.tree.map(jnp.zeros_like, grads)

        if group == 1:
            return update()
        return lax.cond(new >= 0, update, lambda: (ring, opt_state, grads))

    def read(state, slot):
        # Each copy has a gradient of its own; the weights themselves stay equal by their type.
        return cast_varying(_read(state[0], slot), grad_axes)

    weights = Weights(
        lambda state, row: read(state, row.versions[0]),
        lambda state, row: read(state, row.versions[1]),
        absorb,
    )

    def local(state, inputs, targets):
        params, opt_state = jax.tree.map(lambda leaf: leaf[0, 0], state)
        ring = jax.tree.map(lambda p: jnp.stack([p] * room), params)
        grads = cast_varying(jax.tree.map(jnp.zeros_like, params), (axis, *grad_axes))
        state = ring, opt_state, grads
        (ring, opt_state, _), losses, _ = run_ticks(
            stages, plan, weights, state, inputs, targets,
            axis=axis, remat=remat, losses=schedule.microbatches,
        )  # fmt: skip
        params = _read(ring, jnp.asarray(versions.final)[lax.axis_index(axis)])
        state = jax.tree.map(lambda x: x[None, None], AsyncState(params, opt_state))
        return state, lax.psum(losses, (axis, *grad_axes)) / copies

    def init(params):
        return AsyncState(params, jax.vmap(jax.vmap(tx.init))(params))

    def run(state, inputs, targets):
        check_shapes(schedule, state.params, (inputs, targets), copies)
        own, split = PartitionSpec(None, axis), PartitionSpec(None, grad_axes)
        sharded = jax.shard_map(
            local, mesh=mesh, in_specs=(own, split, split), out_specs=(own, PartitionSpec())
        )
        state, losses = sharded(state, inputs, targets)
        return state, {"loss": losses}

    return init, run


def _read(ring: PyTree, slot: Any) -> PyTree:
    return jax.tree.map(
        lambda w: lax.dynamic_index_in_dim(w, jnp.maximum(slot, 0), keepdims=False), ring
    )
