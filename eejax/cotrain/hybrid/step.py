"""Data, pipeline and tensor parallelism together, in one compiled program."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from eejax.cotrain import pipeline, tensor
from eejax.cotrain.hybrid.hybrid import DATA, STAGE, Hybrid
from eejax.cotrain.hybrid.model import FIRST, LAST, Layered, check_hybrid
from eejax.cotrain.pipeline.stages import Stages, varying, zeros_of
from eejax.cotrain.tensor.layout import split
from eejax.tiers import cast_varying

PyTree = Any


def pack(params: PyTree, hybrid: Hybrid) -> PyTree:
    """Puts parameters in the form of checkpoints into that of a pipeline.

    Layers become ``[chunks, stages, layers, ...]``. The ends of the model do, too, and are zero but
    on the first stage (embedding and positions) and on the last (norm and head): an SPMD program
    has room for them everywhere, and their gradients need no sum over the stages.

    Args:
      params: from ``init`` of the model, the same for every hybrid.
      hybrid: the layout.

    Returns:
      Leaves ``[chunks, stages, ...]``.
    """
    grid = (hybrid.chunks, hybrid.stages)
    packed = _on_ends(lambda p, place: jnp.zeros(grid + p.shape).at[place].set(p), params)
    layers = jax.tree.map(lambda p: p.reshape(*grid, -1, *p.shape[1:]), params["layers"])
    return packed | {"layers": layers}


def unpack(packed: PyTree) -> PyTree:
    """Undoes `pack`, for parameters and gradients, whatever the hybrid was."""
    layers = jax.tree.map(lambda p: p.reshape(-1, *p.shape[3:]), packed["layers"])
    return _on_ends(lambda p, place: p[place], packed) | {"layers": layers}


def packed_specs(hybrid: Hybrid, model: Layered) -> PyTree:
    """Gives the partition specs of packed parameters."""
    return jax.tree.map(lambda spec: P(None, STAGE, *spec), model.specs(hybrid.layout))


def copies(hybrid: Hybrid, model: Layered) -> PyTree:
    """Gives the mesh axes over which the gradient of each parameter is summed, once a step.

    These are the data axis, and the axes of the grid that split activations but not the parameter.
    Activations inside a block lie on the same axes as those between blocks, and where they do not,
    in ``"1d"``, the axis splits all parameters that they meet.
    """
    layout, axes = hybrid.layout, sum(split(hybrid.layout.act), ())

    def of(spec):
        used = {axis for entry in spec for axis in split(P(entry, None))[0]}
        return (DATA, *(axis for axis in layout.axes if axis in axes and axis not in used))

    return jax.tree.map(of, model.specs(layout))


def hybrid_grad(
    model: Layered, hybrid: Hybrid, mesh: Mesh
) -> Callable[[PyTree, dict], tuple[jax.Array, PyTree]]:
    """Makes ``(packed params, batch) -> (loss, gradients)`` of one program, to be compiled.

    The loss is the mean over all labels that count, as on one device, however they are spread over
    micro-batches and copies. The backward of a stage starts from its input, and gathers operands
    again. Gradients stay on the device until the last tick; then each leaf is summed once, over the
    axes that `copies` names.

    Args:
      model: what is trained.
      hybrid: the layout.
      mesh: from `make_mesh_of`.

    Returns:
      The function; ``batch`` has ``inputs [microbatches, tokens, ...]`` and
      ``labels [microbatches, labels]`` as from `pipeline.microbatches`, and gradients lie like the
      parameters.

    Raises:
      ValueError: the mesh is of another hybrid, or, when called, sizes cannot be split.
    """
    if dict(mesh.shape) != hybrid.sizes:
        raise ValueError(f"mesh must have axes {hybrid.sizes}, has {dict(mesh.shape)}")
    layout, whole = hybrid.layout, tensor.layout(hybrid.scheme, batch=(DATA,))
    summed = copies(hybrid, model)
    specs = packed_specs(hybrid, model)
    stages = Stages((_stage(layout, model),), _blank(layout, hybrid, model))
    local = pipeline.device_value_and_grad(stages, hybrid.table, axis=STAGE)

    def body(params, inputs, labels):
        counts = (labels >= 0).sum(1).astype(jnp.float32)
        counts = lax.psum(counts, layout.inner_tokens)
        weights = counts * hybrid.microbatches / jnp.maximum(lax.psum(counts.sum(), DATA), 1)
        params = jax.tree.map(cast_varying, params, summed)
        # What crosses the cuts varies over no more axes than the inputs do.
        inputs = cast_varying(inputs, layout.tokens + layout.features)
        loss, grads = local(params, inputs, (labels, weights))
        return lax.psum(loss, DATA), jax.tree.map(lax.psum, grads, summed)

    run = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(specs, P(None, *whole.down.ids), P(None, *tensor.label_spec(whole))),
        out_specs=(P(), specs),
    )

    def grad(params, batch):
        microbatches, tokens = batch["inputs"].shape[:2]
        if microbatches != hybrid.microbatches:
            raise ValueError(
                f"batch must be [microbatches={hybrid.microbatches}, tokens], "
                f"got {batch['inputs'].shape}"
            )
        check_hybrid(hybrid, model, microbatches * tokens)
        return run(params, batch["inputs"], batch["labels"])

    return grad


def hybrid_step(
    model: Layered,
    hybrid: Hybrid,
    mesh: Mesh,
    optimiser: optax.GradientTransformation,
) -> tuple[Callable, Callable]:
    """Makes the training of a model in one compiled program.

    Args:
      model: what is trained.
      hybrid: the layout.
      mesh: from `make_mesh_of`.
      optimiser: works element by element, so that its state lies like the parameters.

    Returns:
      ``init(key) -> (packed params, optimiser state)``, the same numbers for every hybrid, and
      ``step((params, optimiser state), batch) -> (the same, metrics)``, which reuses the memory of
      the state; ``batch`` as for `hybrid_grad`, ``metrics`` has the ``loss``.

    Raises:
      ValueError: the mesh is of another hybrid, or, when called, sizes cannot be split.
    """
    grad = hybrid_grad(model, hybrid, mesh)
    shardings = tensor.shardings(mesh, packed_specs(hybrid, model))

    def init(key):
        check_hybrid(hybrid, model)
        params = jax.jit(lambda key: pack(model.init(key), hybrid), out_shardings=shardings)(key)
        # Zeros do not depend on the parameters, so nothing else says where they lie.
        like = optax.tree_map_params(
            optimiser,
            lambda _, sharding: sharding,
            jax.eval_shape(optimiser.init, params),
            shardings,
            transform_non_params=lambda _: NamedSharding(mesh, P()),
        )
        return params, jax.jit(optimiser.init, out_shardings=like)(params)

    def step(state, batch):
        params, memory = state
        loss, grads = grad(params, batch)
        updates, memory = optimiser.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), {"loss": loss}

    return init, jax.jit(step, donate_argnums=0)


def _on_ends(fn: Callable, params: PyTree) -> PyTree:
    """Applies ``(leaf, (chunk, stage))`` to the parameters before and behind the layers."""
    places = dict.fromkeys(FIRST, (0, 0)) | dict.fromkeys(LAST, (-1, -1))
    return {
        name: jax.tree.map(lambda p, place=place: fn(p, place), params[name])
        for name, place in places.items()
        if name in params
    }


def _stage(layout: tensor.Layout, model: Layered) -> Callable:
    def run(params, x, inputs, targets, first, last):
        labels, weight = targets

        def start():
            return cast_varying(model.start(layout, params, inputs), varying(x))

        def finish(y):
            return weight * tensor.cross_entropy(layout, model.finish(layout, params, y), labels)

        x = lax.cond(first, start, lambda: x)
        # A single layer has no other to make room for.
        alone = jax.tree.leaves(params["layers"])[0].shape[0] == 1
        y = model.stack(layout, params["layers"], x, "none" if alone else "gathers")
        nothing = zeros_of(jax.eval_shape(finish, y))
        return y, lax.cond(last, finish, lambda _: nothing, y)

    return run


def _blank(layout: tensor.Layout, hybrid: Hybrid, model: Layered) -> Callable:
    """Makes zeros as what crosses the cuts; inputs are split over fewer axes than activations."""

    def ways(axes):
        return math.prod(hybrid.sizes[a] for a in axes)

    def zeros(inputs):
        rows = inputs.shape[0] * ways(split(P(layout.down.ids[0], None))[0])
        return jnp.zeros((rows // ways(layout.tokens), model.hidden // ways(layout.features)))

    return zeros
