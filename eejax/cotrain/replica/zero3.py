"""ZeRO-3 of a stack of layers: no device ever holds more than one layer of it, whole."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from eejax import trees
from eejax.cotrain.replica.accumulate import Sums, add_up, flatten, mean, node_keys
from eejax.cotrain.replica.price import add_bytes, all_reduce_bytes, gather_bytes, scalar_bytes
from eejax.cotrain.replica.replica import (
    Batch,
    Replica,
    ReplicaState,
    check_axes,
    compile_step,
    device_count,
    mean_grad,
    put,
)
from eejax.cotrain.replica.zero import check_elementwise, gather, scatter, shard_dim
from eejax.tiers import cast_varying

PyTree = Any
LAYERS = "layers"


class Layered(NamedTuple):
    """A model of equal layers between two ends.

    Its parameters are a dict: ``"layers"`` holds those of all layers, leaves ``[layers, ...]``, and
    all other entries belong to the ends, which may share them.

    Attributes:
      before: ``(ends, data, key) -> x``.
      layer: ``(params, x, key) -> x`` with the parameters of one layer.
      after: ``(ends, x, data, key) -> (loss [batch], metrics)`` with metrics ``[batch]`` each.
    """

    before: Callable[..., PyTree]
    layer: Callable[..., PyTree]
    after: Callable[..., tuple[Any, dict]]


def layered_loss(model: Layered) -> Callable[..., tuple[Any, dict]]:
    """Makes the loss of a layered model on one device, for `mean_grad`.

    Args:
      model: the model.

    Returns:
      ``(params, data, key) -> (loss [batch], metrics)``; the layers run in a scan.

    Example:
      >>> model = Layered(
      ...     lambda ends, x, key: x, lambda w, x, key: w * x, lambda ends, x, data, key: (x, {})
      ... )
      >>> layered_loss(model)({"layers": jnp.array([2.0, 3.0])}, jnp.ones(1), jax.random.key(0))
      (Array([6.], dtype=float32), {})
    """

    def loss_fn(params, data, key):
        layers, ends = params[LAYERS], {k: v for k, v in params.items() if k != LAYERS}
        first, middle, last = jax.random.split(key, 3)
        keys = jax.random.split(middle, len(jax.tree.leaves(layers)[0]))
        x = model.before(ends, data, first)
        x, _ = jax.lax.scan(lambda x, p: (model.layer(p[0], x, p[1]), None), x, (layers, keys))
        return model.after(ends, x, data, last)

    return loss_fn


def zero3(
    model: Layered,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    axes: Sequence[str],
    *,
    remat: Literal["gathers", "full"] = "gathers",
) -> Replica:
    """Makes ZeRO stage 3 that gathers layer by layer.

    The scan over the layers carries shards. A layer is gathered where it runs, dropped, and
    gathered again in the backward pass, and its gradient is scattered there. So beside its shards
    of parameters, gradients and optimiser state a device holds one layer and the ends, however many
    layers there are, and what the backward of each layer needs.

    With n devices, P bytes of layers, E of ends and m micro-batches on a device, a device sends
    ``(n - 1) / n (3 m P + (m + 1) E)``: two gathers and a scatter of each layer for each
    micro-batch, and one gather of the ends; less by what no backward needs, such as a bias, which
    is gathered once. ``zero(stage=3)`` takes any model and sends ``(n - 1) / n (m + 1) (P + E)``,
    but holds all of it within a step. Numbers are those of `data_parallel` with
    ``mean_grad(layered_loss(model))``.

    Leaves are sharded as in `zero`, those of layers never along the layers.

    Args:
      model: the model.
      tx: an optimiser that treats each element by itself, as for `zero`.
      mesh: the mesh.
      axes: mesh axes over which the nodes are laid and the state is sharded, outermost first.
      remat: ``"full"`` keeps only the input of each layer and runs it again. ``"gathers"`` only
        gathers again and keeps activations, but also what a layer computes from its parameters
        alone, such as a cast.

    Returns:
      The method.

    Raises:
      ValueError: the policy is unknown, the mesh has no such axes, or (from ``init``) the optimiser
        is not elementwise or the parameters have no ``"layers"`` of equal number.

    References:
      Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
      2020. Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023.

    Example:
      >>> from eejax.cotrain.replica.replica import split
      >>> from eejax.tiers import make_mesh
      >>> model = Layered(
      ...     before=lambda ends, x, key: x,
      ...     layer=lambda w, x, key: x + w[None],
      ...     after=lambda ends, x, data, key: ((x**2).sum(-1) / 2, {}),
      ... )
      >>> method = zero3(model, optax.sgd(0.5), make_mesh((1,), ("end",)), ("end",))
      >>> state = method.init({"layers": jnp.zeros((2, 3))})  # Two layers.
      >>> batch = split(jnp.ones((4, 3)), sizes=(2, 2))
      >>> state, metrics = method.step(state, batch, jax.random.key(0))
      >>> method.params(state)["layers"].tolist(), float(metrics["loss"])
      ([[-0.5, -0.5, -0.5], [-0.5, -0.5, -0.5]], 1.5)
    """
    if remat not in _POLICIES:
        raise ValueError(f"remat must be one of {tuple(_POLICIES)}, got {remat!r}")
    axes = check_axes(mesh, axes)
    n = device_count(mesh, axes)

    def specs(state):
        params = _map_ends_and_layers(lambda x, skip: _spec(x, skip, n, axes), state.params)
        opt_state = optax.tree_map_params(
            tx,
            lambda _, spec: spec,
            state.opt_state,
            params,
            transform_non_params=lambda _: PartitionSpec(),
        )
        return ReplicaState(params, opt_state, PartitionSpec())

    def init(params):
        _check_layers(params)
        check_elementwise(tx, params, n)
        state = ReplicaState(params, tx.init(params), jnp.zeros((), jnp.int32))
        return ReplicaState(*(put(mesh, x, s) for x, s in zip(state, specs(state))))

    def body(laid, state, batch, key):
        dims = jax.tree.map(lambda s: len(s) - 1, laid.params)
        own = cast_varying(state.params, axes)
        of_ends, of_layers = _parts(dims)
        own_ends, own_layers = _parts(own)

        def layer(params, x, key):
            # Within the scan a leaf has no axis of layers.
            whole = jax.tree.map(lambda p, dim: gather(p, dim - 1, axes), params, of_layers)
            return model.layer(whole, x, key)

        # The scan already keeps XLA from merging both gathers.
        layer = jax.checkpoint(layer, policy=_POLICIES[remat], prevent_cse=False)
        loss_fn = layered_loss(model._replace(layer=layer))
        ends = jax.tree.map(lambda p, dim: gather(p, dim, axes), own_ends, of_ends)

        def total(layers, ends, micro, key):
            loss, metrics = loss_fn({**ends, LAYERS: layers}, micro.data, key)
            used = micro.weights > 0
            sums = {
                name: jnp.where(used, micro.weights * x, 0).sum()
                for name, x in {**metrics, "loss": loss}.items()
            }
            return sums["loss"], sums

        def one(micro, key):
            grad_fn = jax.grad(total, (0, 1), has_aux=True)
            (layers, rest), metrics = grad_fn(own_layers, ends, micro, key)
            rest = jax.tree.map(lambda g, dim: scatter(g, dim, axes), rest, of_ends)
            return Sums({**rest, LAYERS: layers}, micro.weights.sum(), metrics)

        keys = node_keys(key, state.count, batch.weights.shape[:2], axes)
        sums = add_up(one, flatten(batch, keys))
        grads = jax.tree.map(
            lambda g, dim: jax.lax.psum(g, axes) if dim < 0 else g, sums.grads, dims
        )
        weight, metrics = jax.lax.psum((sums.weight, sums.metrics), axes)
        updates, opt_state = tx.update(mean(grads, weight), state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates)
        return ReplicaState(new, opt_state, state.count + 1), mean(metrics, weight)

    def nbytes(params, batch):
        nodes, micro = batch.weights.shape[:2]
        m = nodes // n * micro
        dims = _map_ends_and_layers(lambda x, skip: _dim(x, skip, n), params)
        gathers = {name: jax.tree.map(lambda _: 1, tree) for name, tree in params.items()}
        gathers[LAYERS] = jax.tree.map(
            lambda again: m * (1 + again), _needed_again(model, params, batch, remat)
        )
        sent = whole = 0
        for x, dim, times in zip(*map(jax.tree.leaves, (params, dims, gathers))):
            whole += trees.nbytes(x) * (dim < 0)
            sent += trees.nbytes(x) * (dim >= 0) * (times + m)
        return add_bytes(
            gather_bytes(sent, mesh, axes),
            all_reduce_bytes(whole, mesh, axes),
            scalar_bytes(mean_grad(layered_loss(model)), params, batch, mesh, axes),
        )

    return Replica(init, compile_step(body, mesh, axes, specs), lambda state: state.params, nbytes)


_POLICIES = {
    "gathers": lambda primitive, *_, **__: primitive.name != "all_gather",
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _needed_again(model: Layered, params: dict, batch: Batch, remat: str) -> PyTree:
    """Tells for each leaf of a layer whether its backward pass needs it."""
    needed = []
    layer = jax.checkpoint(model.layer) if remat == "full" else model.layer

    def trace(params, data, key):
        ends, layers = _parts(params)
        own = jax.tree.map(lambda p: p[0], layers)
        x = model.before(ends, data, key)
        _, vjp = jax.vjp(lambda p, x: layer(p, x, key), own, x)
        kept = {id(leaf) for leaf in jax.tree.leaves(vjp)}
        needed.append(jax.tree.map(lambda p: id(p) in kept, own))

    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), batch.data)
    jax.eval_shape(trace, trees.abstract(params), data, jax.random.key(0))
    return needed[0]


def _parts(tree: dict) -> tuple[dict, PyTree]:
    return {name: x for name, x in tree.items() if name != LAYERS}, tree[LAYERS]


def _map_ends_and_layers(f: Callable[[Any, int], Any], params: dict) -> dict:
    """Calls a function of every leaf and the number of axes that must stay whole."""
    return {
        name: jax.tree.map(lambda x, skip=int(name == LAYERS): f(x, skip), tree)
        for name, tree in params.items()
    }


def _dim(x: Any, skip: int, n: int) -> int:
    dim = shard_dim(x.shape[skip:], n)
    return dim if dim < 0 else dim + skip


def _spec(x: Any, skip: int, n: int, axes: tuple[str, ...]) -> PartitionSpec:
    dim = _dim(x, skip, n)
    return PartitionSpec() if dim < 0 else PartitionSpec(*(None,) * dim, axes)


def _check_layers(params: PyTree) -> None:
    shapes = {jnp.shape(x)[:1] for x in jax.tree.leaves(dict(params).get(LAYERS))}
    if len(shapes) != 1 or shapes == {()}:
        raise ValueError(
            f"params must have {LAYERS!r} whose leaves are [layers, ...], got {sorted(params)}, "
            f"with leading axes {sorted(shapes)}"
        )
