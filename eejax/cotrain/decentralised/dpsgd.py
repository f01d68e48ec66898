"""D-PSGD among clients: train locally, then take the weighted mean of the neighbours' models."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.core import FederatedAlgorithm
from eejax.cotrain.decentralised.graphs import MixingRule
from eejax.cotrain.federated import Engine, Epochs, FederatedState, Rows, place, replicate
from eejax.cotrain.federated.clients import check, stack_clients, train_clients
from eejax.cotrain.federated.epochs import span
from eejax.cotrain.federated.sums import mean_upload, metrics_of, sum_up
from eejax.cotrain.replica import mix
from eejax.cotrain.replica.mixing import check_mixing
from eejax.tiers import EDGE, END
from eejax.wire import identity

PyTree = Any

_GRAPH = np.iinfo(np.int32).max - 1  # Folded into the key of the run; no client has this number.


def dpsgd(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    *,
    w: Any | MixingRule,
    steps: int | Epochs,
    batch: int,
    clients: str = "auto",
) -> Engine:
    """Makes the engine of federated training without a server.

    Client i has its own model ``x_i``. A round is local training of every client, then
    ``x_i <- sum_j W_ij x_j`` over itself and its neighbours. Any federated algorithm will do: a
    client runs its server side too, on its own upload, and with `fedavg` that is plain local
    training. What the algorithm keeps at its server, such as a momentum, is mixed as the model is;
    whole numbers stay as they are. Clients count alike, so the complete graph is `flat` with
    ``weighting="uniform"``, and the identity matrix is training alone.

    The paper takes one step a round, of the gradient at ``x_i``, while models travel
    (`replica.gossip`); here models travel after the ``steps``, which is D-PSGD with local updates.

    A client without samples, or one that diverged, keeps its model and mixes it.

    A fixed matrix is mixed by permutes between the devices of the mesh that share an edge of the
    graph, a rule by an all-gather, since its edges are not known when the round is compiled. That
    is how the simulator moves models; what clients send one another is `graph_bytes`.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``.
      w: doubly stochastic matrix over the seats of the rows, ``[edges * ends, edges * ends]``, see
        `seat`; or a rule that gives one for each round, such as `random_matching`.
      steps: local steps of a round, or `Epochs`.
      batch: samples of a step.
      clients: order of the clients on one device, see `flat`.

    Returns:
      The engine. ``state.server`` holds the states of all clients, ``[edges, ends, ...]``;
      `mean_model` gives their mean. Metrics are as of `flat`, and ``"consensus"`` is the
      distance of the models from their mean after mixing, see `replica.consensus_distance`.

    Raises:
      ValueError: the matrix is not doubly stochastic or not of as many nodes as there are seats,
        the order of the clients is unknown, or the steps are below 1.

    References:
      Lian et al., Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for
      Decentralized Parallel Stochastic Gradient Descent, 2017. Local steps and changing graphs:
      Koloskova et al., A Unified Theory of Decentralized SGD with Changing Topology and Local
      Updates, 2020.

    Example:
      >>> import optax
      >>> from eejax.cotrain.federated import fedavg, rows_of
      >>> from eejax.cotrain.replica import ring
      >>> from eejax.data import pack
      >>> from eejax.tiers import three_tier, tier_mesh
      >>> def grad_fn(w, batch, key):  # Of (w - x)^2 / 2.
      ...     return w - batch.mean(), {}
      >>> rows = rows_of(three_tier(4, 1), pack([[0], [1], [2], [3]]))
      >>> algorithm, mesh = fedavg(grad_fn, optax.sgd(0.5)), tier_mesh(1, 1)
      >>> engine = dpsgd(algorithm, mesh, w=ring(4), steps=1, batch=1)
      >>> state, data = engine.init(jnp.array(0.0), rows), jnp.array([0.0, 2.0, 4.0, 6.0])
      >>> state, _ = engine.run(state, rows, data, jax.random.key(0))
      >>> [round(float(x), 2) for x in state.server.params[0]]  # Of 0, 1, 2, 3.
      [1.33, 1.0, 2.0, 1.67]
    """
    check(algorithm, steps, clients)
    algorithm = algorithm._replace(weighting="uniform")
    rule = w if callable(w) else None
    w = None if callable(w) else check_mixing(w)
    tiers, everywhere = PartitionSpec(EDGE, END), PartitionSpec()
    laid = FederatedState(tiers, tiers, everywhere, everywhere)

    def init(params, rows):
        own = algorithm.init(jax.tree.map(jnp.array, params))
        seats = rows.counts.shape
        return FederatedState(
            place(mesh, jax.tree.map(lambda x: jnp.broadcast_to(x, seats + jnp.shape(x)), own)),
            place(mesh, stack_clients(algorithm, params, rows, identity())),
            (),
            replicate(mesh, jnp.zeros((), jnp.int32)),
        )

    def mixed(server, here, key):
        n = here.counts.size * mesh.size
        order = seats_by_device(here.counts.shape, mesh)
        if w is not None:
            if len(w) != n:
                raise ValueError(f"w: {len(w)} nodes do not sit on the {n} seats of the rows")
            return _map_floating(lambda x: mix(x, w[order][:, order], (EDGE, END)), server)
        matrix = rule(key, n)[order][:, order]
        first = jax.lax.axis_index((EDGE, END)) * here.counts.size
        mine = jax.lax.dynamic_slice_in_dim(matrix, first, here.counts.size)

        def one(x):
            everyone = jax.lax.all_gather(x, (EDGE, END), tiled=True)
            return jnp.tensordot(mine.astype(x.dtype), everyone, 1)

        return _map_floating(one, server)

    def round_(state, rows, data, key):
        ends = rows.counts.shape

        # To the clients of this device everyone is an edge server of its own, with one client.
        def flatten(tree):
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        def alone(tree):
            return jax.tree.map(lambda x: x[:, None], flatten(tree))

        def unflatten(tree):
            return jax.tree.map(lambda x: x.reshape(*ends, *x.shape[1:]), tree)

        server, here = flatten(state.server), alone(rows)
        sums, stack = train_clients(
            algorithm, identity(), jax.vmap(algorithm.broadcast)(server), alone(state.clients),
            here, data, state.steps, key, steps=steps, batch=batch, order=clients,
        )  # fmt: skip
        trained = jax.vmap(algorithm.server_update)(
            server, mean_upload(algorithm, sums, jnp.ones_like(sums.weight))
        )
        some = sums.weight > 0
        trained = jax.tree.map(lambda n, o: jnp.where(_like(some, n), n, o), trained, server)
        graph_key = jax.random.fold_in(jax.random.fold_in(key, _GRAPH), state.steps)
        server = mixed(trained, rows, graph_key)

        (total,) = sum_up(sums._replace(upload=()))
        models = jax.vmap(algorithm.broadcast)(server)
        metrics = metrics_of(total) | {"consensus": _distance(models, rows)}
        stack = unflatten(jax.tree.map(lambda x: x[:, 0], stack))
        return FederatedState(unflatten(server), stack, (), state.steps + span(steps)), metrics

    def run(state: FederatedState, rows: Rows, data: PyTree, key: jax.Array, rounds: int = 1):
        def block(state, rows, data, key):
            return jax.lax.scan(lambda s, _: round_(s, rows, data, key), state, length=rounds)

        return jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(laid, tiers, everywhere, everywhere),
            out_specs=(laid, everywhere),
        )(state, rows, data, key)

    out = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (laid, everywhere))
    run = jax.jit(run, static_argnames="rounds", donate_argnums=0, out_shardings=out)
    return Engine(init, run)


def seats_by_device(here: tuple[int, int], mesh: Mesh) -> np.ndarray:
    """Lists the seats device by device; within an edge server they lie on several devices.

    Args:
      here: edges and ends on one device.
      mesh: a mesh over ``("edge", "end")``.

    Returns:
      Seats, numbered edge by edge, in the order of the devices.

    Example:
      >>> from eejax.tiers import tier_mesh
      >>> seats_by_device((2, 2), tier_mesh(1, 1)).tolist()
      [0, 1, 2, 3]
    """
    (e, n), (rows, columns) = (mesh.shape[EDGE], mesh.shape[END]), here
    seats = np.arange(e * rows * n * columns).reshape(e, rows, n, columns)
    return seats.transpose(0, 2, 1, 3).reshape(-1)


def mean_model(state: FederatedState, rows: Rows, algorithm: FederatedAlgorithm) -> PyTree:
    """Takes the mean of all clients' models, which exists nowhere in the system, for evaluation.

    Args:
      state: state of the engine.
      rows: the clients; empty seats do not count.
      algorithm: the algorithm that was trained.

    Returns:
      What the algorithm would broadcast, mean over the clients.
    """
    seated = jnp.asarray(rows.ids >= 0, jnp.float32)
    models = jax.vmap(jax.vmap(algorithm.broadcast))(state.server)
    share = seated / seated.sum()
    return jax.tree.map(lambda x: jnp.tensordot(share.astype(x.dtype), x, 2), models)


def _distance(models: PyTree, rows: Rows) -> jax.Array:
    seated = (rows.ids >= 0).reshape(-1).astype(jnp.float32)
    count = jax.lax.psum(seated.sum(), (EDGE, END))
    leaves = [x for x in jax.tree.leaves(models) if _floating(x)]
    totals = [jnp.tensordot(seated.astype(x.dtype), x, 1) for x in leaves]
    means = [t / count for t in jax.lax.psum(totals, (EDGE, END))]
    squares = sum(
        jnp.square(jnp.where(_like(seated, x) > 0, x - m[None], 0)).sum()
        for x, m in zip(leaves, means)
    )
    return jnp.sqrt(jax.lax.psum(squares, (EDGE, END)) / count)


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _map_floating(fn: Callable[[jax.Array], jax.Array], tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: fn(x) if _floating(x) else x, tree)


def _like(weight: jax.Array, x: jax.Array) -> jax.Array:
    """Shapes ``[clients]`` to meet ``[clients, ...]``."""
    return weight.reshape(weight.shape + (1,) * (x.ndim - 1))
