"""Stages of different code, parameters and shapes: each tier gets what it can carry."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eejax.core import StagedModel
from eejax.cotrain.pipeline.schedule import Schedule
from eejax.cotrain.pipeline.stages import Stages, stack, unstack, varying
from eejax.models.staged import owned, run_stage
from eejax.tiers.mesh import cast_varying

PyTree = Any

StageFn = Callable[[PyTree, Any, Any], tuple[Any, Any]]
"""``(params, x, targets) -> (y, loss)`` of one stage; 0 where a stage adds nothing to the loss."""


class Unequal(NamedTuple):
    """Unequal stages, and the form of their parameters in a pipeline.

    Attributes:
      stages: for `value_and_grad`.
      pack: ``(trees of the stages, schedule) -> [chunks, stages, width]``, flat and padded with
        zeros to the widest stage, so that each device holds its own stages only.
      unpack: undoes ``pack``, for parameters and gradients.
      widths: values that cross each cut for one sample; the widest is what a message carries.
    """

    stages: Stages
    pack: Callable[[Sequence[PyTree], Schedule], jax.Array]
    unpack: Callable[[jax.Array], list[PyTree]]
    widths: tuple[int, ...]


class Cut(NamedTuple):
    """A `StagedModel` cut for a pipeline, by tier.

    Attributes:
      functions: a `StageFn` for each tier that has a stage, lowest first.
      split: ``params -> list of subtrees``, one for each function.
      join: undoes ``split``, for parameters and gradients.
      tiers: the tier of each function.
    """

    functions: tuple[StageFn, ...]
    split: Callable[[dict[str, PyTree]], list[dict[str, PyTree]]]
    join: Callable[[Sequence[dict[str, PyTree]]], dict[str, PyTree]]
    tiers: tuple[int, ...]


def unequal(
    functions: Sequence[StageFn], params: Sequence[PyTree], inputs: PyTree, targets: PyTree
) -> Unequal:
    """Makes one SPMD program of stages that have nothing in common.

    Each device chooses its stage by `lax.switch`. Parameters are flat vectors, and what crosses a
    cut is flat, too: ``[batch, widest cut]``. So every device has room for the largest stage, and
    every message has the size of the widest cut. Optimisers must work element by element.

    Args:
      functions: the stages in the order of the model, without collectives. The ``x`` of the first
        is ``inputs``. What others take and give is one array of floats ``[batch, ...]``; what the
        last gives is not used.
      params: parameters of each stage, trees of floats, or abstract ones.
      inputs: one micro-batch, leaves ``[batch, ...]``, or abstract ones; only shapes count.
      targets: one micro-batch, leaves ``[batch, ...]``.

    Returns:
      The stages and the functions that pack their parameters.

    Raises:
      ValueError: there are not as many parameters as functions, or a stage gives no floats.

    Example:
      >>> from eejax.cotrain.pipeline import fused
      >>> ends = lambda w, x, t: (x @ w, 0.0), lambda w, x, t: (x, ((x - w[None]) ** 2).mean())
      >>> made = unequal(ends, [jnp.ones((3, 2)), jnp.zeros(2)], jnp.ones((4, 3)), None)
      >>> made.pack([jnp.ones((3, 2)), jnp.zeros(2)], fused(2, 2)).shape, made.widths
      ((1, 2, 6), (2,))
    """
    if len(functions) != len(params):
        raise ValueError(f"params must be {len(functions)}, one a function; got {len(params)}")
    params = [jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), tree) for tree in params]
    flat, unravel = zip(*map(ravel_pytree, params))
    cuts, x = [], inputs
    for i, function in enumerate(functions[:-1]):
        x, _ = jax.eval_shape(function, params[i], x, targets)
        if not isinstance(x, jax.ShapeDtypeStruct) or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"stage {i} must give one array of floats, got {x}")
        cuts.append(x)
    sizes = [int(np.prod(cut.shape[1:])) for cut in cuts]
    width, dtype = max(sizes, default=1), jnp.result_type(jnp.bfloat16, *(c.dtype for c in cuts))
    room = max(vector.size for vector in flat)
    wide = jnp.result_type(*flat)

    def branch(i):
        def run(vector, x, inputs, targets, first, last):
            del first, last
            own = unravel[i](vector[: flat[i].size].astype(flat[i].dtype))
            if i:
                shape = (x.shape[0], *cuts[i - 1].shape[1:])
                x = x[:, : sizes[i - 1]].reshape(shape).astype(cuts[i - 1].dtype)
            y, loss = functions[i](own, x if i else inputs, targets)
            if i == len(cuts):
                y = jnp.zeros((jax.tree.leaves(inputs)[0].shape[0], 0))
            y = y.reshape(y.shape[0], -1).astype(dtype)
            y = jnp.pad(y, ((0, 0), (0, width - y.shape[1])))
            # Branches of a switch must agree in their types.
            return cast_varying((y, jnp.asarray(loss, jnp.float32)), varying((vector, inputs)))

        return run

    def activation(inputs):
        return jnp.zeros((jax.tree.leaves(inputs)[0].shape[0], width), dtype)

    def pack(trees, schedule):
        vectors = [ravel_pytree(tree)[0].astype(wide) for tree in trees]
        return stack([jnp.pad(v, (0, room - v.size)) for v in vectors], schedule)

    def unpack(packed):
        vectors = zip(unravel, flat, unstack(packed))
        return [make(v[: like.size].astype(like.dtype)) for make, like, v in vectors]

    branches = tuple(branch(i) for i in range(len(functions)))
    return Unequal(Stages(branches, activation), pack, unpack, tuple(sizes))


def cut_model(
    model: StagedModel,
    assignment: Sequence[int],
    loss_fn: Callable[[jax.Array, Any], jax.Array] | None = None,
    weights: Sequence[float] | None = None,
) -> Cut:
    """Cuts a model where a partition plan cuts it, for joint training of its exits.

    Each tier runs its stages with their exits, and adds its share ``w_n loss_n`` to the loss, so
    that the labels go to every tier but logits to none.

    Args:
      model: a staged model without dropout.
      assignment: tier of each stage, as in ``Plan.assignment``; never falling.
      loss_fn: ``(logits [batch, classes], targets) -> scalar``; softmax cross-entropy with integer
        labels ``[batch]`` if None.
      weights: ``w_n`` of every exit; 1/N each if None. ``(0, ..., 0, 1)`` trains the last alone.

    Returns:
      Functions and parameters for `unequal`.

    Raises:
      ValueError: ``assignment`` or ``weights`` have the wrong length, or data would go down.

    References:
      Teerapittayanon, McDanel and Kung, Distributed Deep Neural Networks over the Cloud, the Edge
      and End Devices, 2017.

    Example:
      >>> from eejax.models import staged_mlp
      >>> cut = cut_model(staged_mlp(widths=(8, 8, 8)), (0, 0, 2))  # Nothing on the edge.
      >>> cut.tiers, len(cut.functions)
      ((0, 2), 2)
    """
    count, exits = len(model.stages), [exit.head.name for exit in model.exits]
    if len(assignment) != count or list(assignment) != sorted(assignment):
        raise ValueError(
            f"assignment must be {count} tiers, one a stage, that never fall; got {assignment}"
        )
    w = (1 / len(exits),) * len(exits) if weights is None else tuple(weights)
    if len(w) != len(exits):
        raise ValueError(f"weights must be {len(exits)}, one for each exit; got {w}")
    loss_fn = cross_entropy if loss_fn is None else loss_fn
    w_of = {exit.after: w_n for exit, w_n in zip(model.exits, w)}
    groups = [(t, list(g)) for t, g in groupby(range(count), key=lambda i: assignment[i])]
    names = [[name for i in indices for name in owned(model, i)] for _, indices in groups]

    def function(indices):
        def run(params, x, targets):
            loss = 0.0
            for i in indices:
                x, logits = run_stage(model, i, params, x, train=True)
                if logits is not None:
                    loss += w_of[model.stages[i].name] * loss_fn(logits, targets)
            return x, loss

        return run

    return Cut(
        tuple(function(indices) for _, indices in groups),
        lambda params: [{name: params[name] for name in own} for own in names],
        lambda trees: {name: tree[name] for tree in trees for name in tree},
        tuple(tier for tier, _ in groups),
    )


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Gives the softmax cross-entropy, a mean over the batch.

    Args:
      logits: ``[batch, classes]``.
      labels: ``[batch]``, integers.

    Returns:
      A scalar.

    Example:
      >>> round(float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))), 4)  # log 4.
      1.3863
    """
    log_y_hat = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_y_hat, labels[:, None], -1).mean()
