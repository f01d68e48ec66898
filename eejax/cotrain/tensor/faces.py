"""Two faces of a layout: collectives written by hand, or inserted by the compiler."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from eejax.cotrain.tensor.check import check
from eejax.cotrain.tensor.embed import cross_entropy, label_spec
from eejax.cotrain.tensor.layout import Layout

PyTree = Any
Face = Literal["shard_map", "jit"]


class Model(NamedTuple):
    """A classifier of tokens or images whose body runs on the blocks of one device.

    Attributes:
      init: ``(key) -> params``, whole, the same for every layout.
      specs: ``(layout) ->`` partition specs of ``params``.
      input_spec: ``(layout) ->`` partition spec of the inputs.
      logits: ``(layout, params, inputs) -> [rows, classes]``, blocks; they lie like activations
        inside a block.
      seq: rows of the inputs that belong together.
      sizes: what a layout has to split, for `check`.
    """

    init: Callable[[jax.Array], PyTree]
    specs: Callable[[Layout], PyTree]
    input_spec: Callable[[Layout], Any]
    logits: Callable[[Layout, PyTree, jax.Array], jax.Array]
    seq: int
    sizes: dict[str, int]


def spread(
    body: Callable, layout: Layout, mesh: Mesh, in_specs: Any, out_specs: Any, face: Face
) -> Callable:
    """Makes a function of whole arrays from a body ``(layout, *arguments)`` that sees blocks.

    Args:
      body: written once for both faces.
      layout: where everything lies.
      mesh: the devices.
      in_specs: a tree of partition specs for each argument.
      out_specs: partition specs of the result.
      face: ``"shard_map"`` runs the body on the blocks of each device with the collectives of the
        layout, exactly. ``"jit"`` runs it on whole arrays that lie as the layout says, and XLA
        inserts collectives (what ``pjit`` was).

    Returns:
      ``(*arguments) -> result``, to be differentiated and compiled.

    Raises:
      ValueError: the face is unknown.
    """
    if face == "shard_map":
        return jax.shard_map(
            lambda *args: body(layout, *args), mesh=mesh, in_specs=in_specs, out_specs=out_specs
        )
    if face != "jit":
        raise ValueError(f"face must be 'shard_map' or 'jit', got {face!r}")

    def pinned(tree, specs):
        return jax.lax.with_sharding_constraint(tree, shardings(mesh, specs))

    # Pinned arguments have pinned gradients.
    return lambda *args: pinned(body(layout.on(mesh), *pinned(args, in_specs)), out_specs)


def forward(
    model: Model, layout: Layout, mesh: Mesh, face: Face = "shard_map"
) -> Callable[[PyTree, jax.Array], jax.Array]:
    """Makes ``(params, inputs) -> logits`` over a mesh; arguments as in `loss_and_grad`."""
    check(layout, mesh, **model.sizes)
    in_specs = (model.specs(layout), model.input_spec(layout))
    out = layout.inner
    return _checked(model, layout, mesh, spread(model.logits, layout, mesh, in_specs, out, face))


def loss_and_grad(
    model: Model, layout: Layout, mesh: Mesh, face: Face = "shard_map"
) -> Callable[[PyTree, dict], tuple[jax.Array, PyTree]]:
    """Makes ``(params, batch) -> (loss, gradients)`` over a mesh, to be compiled.

    Args:
      model: what is trained.
      layout: where everything lies.
      mesh: the devices.
      face: see `spread`.

    Returns:
      A function of whole arrays; ``batch`` has ``inputs`` and ``labels``, the loss is the mean
      cross-entropy, and gradients lie like the parameters.

    Raises:
      ValueError: the face is unknown, the mesh lacks an axis, or a size cannot be split.
    """
    check(layout, mesh, **model.sizes)

    def body(layout, params, inputs, labels):
        return cross_entropy(layout, model.logits(layout, params, inputs), labels)

    in_specs = (model.specs(layout), model.input_spec(layout), label_spec(layout))
    loss = spread(body, layout, mesh, in_specs, jax.sharding.PartitionSpec(), face)
    grad = _checked(model, layout, mesh, jax.value_and_grad(loss))
    return lambda params, batch: grad(params, batch["inputs"], batch["labels"])


def train_step(
    model: Model,
    layout: Layout,
    mesh: Mesh,
    optimiser: optax.GradientTransformation,
    face: Face = "shard_map",
) -> Callable[[tuple[PyTree, PyTree], dict], tuple[tuple[PyTree, PyTree], dict]]:
    """Makes a compiled step ``((params, optimiser state), batch) -> (the same, metrics)``.

    Args:
      model: what is trained.
      layout: where everything lies.
      mesh: the devices.
      optimiser: works leaf by leaf on the blocks, so its state lies like the parameters.
      face: see `spread`.

    Returns:
      The step; it reuses the memory of the state it is given. ``metrics`` has the ``loss``.
    """
    grad = loss_and_grad(model, layout, mesh, face)

    def step(state, batch):
        params, memory = state
        loss, grads = grad(params, batch)
        updates, memory = optimiser.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def init(model: Model, key: jax.Array, layout: Layout, mesh: Mesh) -> PyTree:
    """Draws parameters in place: the same numbers for every layout, whole on no device.

    Args:
      model: what is to be trained.
      key: random key.
      layout: where everything lies.
      mesh: the devices.

    Returns:
      Parameters that lie as the layout says.

    Raises:
      ValueError: the mesh lacks an axis, or a size cannot be split.
    """
    check(layout, mesh, **model.sizes)
    return jax.jit(model.init, out_shardings=shardings(mesh, model.specs(layout)))(key)


def place(tree: PyTree, mesh: Mesh, specs: PyTree) -> PyTree:
    """Lays arrays over a mesh, wherever they lie now: on the host, or as another layout has them.

    Args:
      tree: whole arrays, or sharded ones.
      mesh: the devices.
      specs: partition specs of the tree.

    Returns:
      The same values.
    """
    return jax.device_put(tree, shardings(mesh, specs))


def shardings(mesh: Mesh, specs: PyTree) -> PyTree:
    """Turns partition specs into shardings on a mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def _checked(model: Model, layout: Layout, mesh: Mesh, fn: Callable) -> Callable:
    def call(params, inputs, *rest):
        tokens = inputs.shape[0]
        if tokens % model.seq:
            raise ValueError(f"inputs have {tokens} rows, not a multiple of seq={model.seq}")
        check(layout, mesh, tokens=tokens, sequences=tokens // model.seq)
        return fn(params, inputs, *rest)

    return call
