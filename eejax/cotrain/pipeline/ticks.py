"""The loop over ticks by which one device of a pipeline runs any schedule."""

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eejax.cotrain.pipeline.plan import Pairs, Plan, Row, Step
from eejax.cotrain.pipeline.stages import Stages, varying
from eejax.tiers.mesh import cast_varying

PyTree = Any


class Weights(NamedTuple):
    """Where parameters come from and gradients go to; the state is carried through the ticks.

    Attributes:
      forward: ``(state, row) -> params`` of the stage that a device is to run forward.
      backward: ``(state, row) -> params`` of the stage that it is to run backward.
      absorb: ``(state, row, grads) -> state``.
    """

    forward: Callable[[PyTree, Row], PyTree]
    backward: Callable[[PyTree, Row], PyTree]
    absorb: Callable[[PyTree, Row, PyTree], PyTree]


def run_ticks(
    stages: Stages,
    plan: Plan,
    weights: Weights,
    state: PyTree,
    inputs: PyTree,
    targets: PyTree,
    *,
    axis: str,
    remat: bool | Callable[..., Any] = True,
    input_grads: bool = False,
    losses: int = 1,
) -> tuple[PyTree, jax.Array, PyTree]:
    """Runs a plan from the first tick to the last.

    Args:
      stages: what to run.
      plan: made with ``recompute=(remat is True)``.
      weights: how the state gives parameters and takes gradients.
      state: the initial state.
      inputs: leaves ``[microbatches, batch, ...]``.
      targets: leaves ``[microbatches, ...]``.
      axis: mesh axis of the stages.
      remat: as for `value_and_grad`.
      input_grads: whether to keep the gradients of the inputs.
      losses: 1 to sum the losses of all micro-batches, or their number to keep them apart.

    Returns:
      The last state; ``[losses]`` of this device; and gradients of the inputs, leaves as those of
      ``inputs``, zero but on the first stage, or ``()``.
    """
    device, schedule = lax.axis_index(axis), plan.schedule
    depth, axes = schedule.chunks * schedule.stages, varying((inputs, device))
    blank = cast_varying(stages.activation(_at(inputs, 0)), axes)

    def when(condition, do, otherwise):
        if stages.skip:
            return lax.cond(condition, do, otherwise)
        return jax.tree.map(partial(jnp.where, condition), do(), otherwise())

    def apply(transform, chunk, *args):
        """Calls the function of a stage after a transformation of it."""
        stage = chunk * schedule.stages + device

        def placed(branch):
            def run(params, x, inputs, targets):
                y, loss = branch(params, x, inputs, targets, stage == 0, stage == depth - 1)
                if extra := set(varying(y)) - set(axes):
                    raise ValueError(f"a stage must not make its output vary over {sorted(extra)}")
                return cast_varying(y, axes), loss

            return transform(run)

        runs = [placed(branch) for branch in stages.branches]
        return runs[0](*args) if len(runs) == 1 else lax.switch(stage, runs, *args)

    def differentiate(run, params, x, inputs, targets):
        if input_grads:
            return jax.vjp(lambda *args: run(*args, targets), params, x, inputs)
        return jax.vjp(lambda *args: run(*args, inputs, targets), params, x)

    def pull_back(run):
        """Computes the stage again, and its gradients."""

        def pulled(params, x, inputs, targets, dy):
            (_, loss), vjp = differentiate(run, params, x, inputs, targets)
            return loss, vjp((dy, _one(loss)))

        return pulled

    residuals = {}

    def save(chunk, params, *args):
        """Runs a stage, and gives the residuals of its backward, but not the parameters."""

        def whole(*args):
            return apply(lambda run: run if remat is False else jax.checkpoint(
                run, policy=remat, prevent_cse=False), chunk, *args)  # fmt: skip

        (y, loss), vjp = differentiate(whole, params, *args)
        leaves, residuals["structure"] = jax.tree.flatten(vjp)
        own = jax.tree.leaves(params)
        places = [next((i for i, p in enumerate(own) if p is leaf), None) for leaf in leaves]
        residuals["places"] = places
        return y, (loss, [leaf for leaf, place in zip(leaves, places) if place is None])

    def restore(params, kept):
        own, kept = jax.tree.leaves(params), iter(kept)
        leaves = [next(kept) if i is None else own[i] for i in residuals["places"]]
        return jax.tree.unflatten(residuals["structure"], leaves)

    def forward(state, row, xs):
        args = (
            weights.forward(state, row),
            _at(xs, row.forward_input),
            _at(inputs, row.forward),
            _at(targets, row.forward),
        )
        if remat is not True:
            return save(row.forward_chunk, *args)
        return apply(lambda run: run, row.forward_chunk, *args)[0], ()

    def backward(state, row, xs, dys, saved):
        params = weights.backward(state, row)
        last = row.backward_chunk * schedule.stages + device == depth - 1
        dy = jax.tree.map(lambda g: jnp.where(last, 0, g), _at(dys, row.backward_gradient))
        if remat is not True:
            loss, kept = _at(saved, row.backward_saved)
            return loss, restore(params, kept)((dy, _one(loss)))
        x, m = _at(xs, row.backward_input), row.backward
        return apply(pull_back, row.backward_chunk, params, x, _at(inputs, m), _at(targets, m), dy)

    def tick(carry: PyTree, row: Row, step: Step) -> PyTree:
        state, total, dinputs, xs, dys, saved = carry
        if step.forward:
            y, kept = when(
                row.forward >= 0,
                lambda: forward(state, row, xs),
                lambda: (blank, jax.tree.map(lambda ring: jnp.zeros_like(ring[0]), saved)),
            )
            saved = _put(saved, kept, row.forward_saved)
        if step.backward:
            first = row.backward_chunk * schedule.stages + device == 0

            def do():
                loss, (dparams, dx, *of_inputs) = backward(state, row, xs, dys, saved)
                return (
                    weights.absorb(state, row, dparams),
                    total.at[row.backward % losses].add(loss),
                    _put(dinputs, tuple(of_inputs), jnp.where(first, row.backward, -1)),
                    dx,
                )

            state, total, dinputs, dx = when(
                row.backward >= 0, do, lambda: (state, total, dinputs, blank)
            )
        if step.activations:
            xs = _put(xs, _send(y, axis, step.activations), row.arriving_input)
        if step.gradients:
            dys = _put(dys, _send(dx, axis, step.gradients), row.arriving_gradient)
        return state, total, dinputs, xs, dys, saved

    def ticks(carry: PyTree, rows: jax.Array, step: Step) -> PyTree:
        """Runs ticks of the same code."""
        if len(rows) == 1:
            return tick(carry, row_at(rows[0]), step)
        return lax.scan(lambda carry, r: (tick(carry, row_at(r), step), None), carry, rows)[0]

    columns, structure = jax.tree.flatten(plan.rows)
    table = np.stack(columns, -1)  # One table for all, so that a tick reads it once.

    def row_at(rows):
        return jax.tree.unflatten(structure, list(jnp.asarray(rows)[device]))

    start = row_at(table[0])
    rings = _ring(blank, plan.input_slots), _ring(blank, plan.gradient_slots)
    _, kept = jax.eval_shape(lambda state: forward(state, start, rings[0]), state)
    loss = jax.eval_shape(lambda state: backward(state, start, *rings, _ring(kept, 1))[0], state)
    carry = (
        state,
        _ring(loss, losses),
        (cast_varying(jax.tree.map(jnp.zeros_like, inputs), axes),) if input_grads else (),
        *rings,
        _ring(kept, plan.saved_slots),
    )
    for phase in plan.phases:

        def body(carry, rows, steps=phase.steps):
            done = 0
            for step, same in groupby(steps):
                count = len(list(same))
                carry = ticks(carry, rows[done : done + count], step)
                done += count
            return carry, None

        rows = table[phase.start : phase.stop].reshape(-1, len(phase.steps), *table.shape[1:])
        carry, _ = lax.scan(body, carry, rows)
    state, total, dinputs, *_ = carry
    return state, total, dinputs


def _at(tree: PyTree, index: Any) -> PyTree:
    """Takes one element of the leading axis; the first where there is none to take."""
    return jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, jnp.maximum(index, 0), keepdims=False), tree
    )


def _put(tree: PyTree, value: PyTree, index: Any) -> PyTree:
    """Writes one element of the leading axis, or nothing at -1; never copies the whole."""
    value = jax.tree.map(lambda new, old: jnp.where(index >= 0, new, old), value, _at(tree, index))
    return jax.tree.map(
        lambda x, v: lax.dynamic_update_index_in_dim(x, v, jnp.maximum(index, 0), 0), tree, value
    )


def _ring(example: PyTree, slots: int) -> PyTree:
    """Makes room for some values; for one where none is ever written."""

    def zeros(x: Any) -> jax.Array:
        room = jax.ShapeDtypeStruct((max(slots, 1), *x.shape), x.dtype)
        return cast_varying(jnp.zeros(room.shape, room.dtype), varying(x))

    return jax.tree.map(zeros, example)


def _send(tree: PyTree, axis: str, pairs: Pairs) -> PyTree:
    return jax.tree.map(lambda x: lax.ppermute(x, axis, pairs), tree)


def _one(loss: jax.Array) -> jax.Array:
    return cast_varying(jnp.ones_like(loss), varying(loss))
