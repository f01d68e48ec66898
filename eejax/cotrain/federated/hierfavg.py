"""HierFAVG: edge servers average their end devices often, the cloud averages the edges seldom."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax import trees
from eejax.core import Codec, FederatedAlgorithm
from eejax.cotrain.federated.clients import check, stack_clients, train_clients, weighs_by_samples
from eejax.cotrain.federated.epochs import Epochs, span
from eejax.cotrain.federated.flat import Engine, FederatedState, compile_rounds
from eejax.cotrain.federated.rows import place, replicate
from eejax.cotrain.federated.sums import count_clients, mean_of, mean_upload, metrics_of
from eejax.tiers import EDGE, END, cast_varying
from eejax.wire import identity

PyTree = Any


def hierfavg(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    *,
    k1: int | Epochs,
    k2: int,
    batch: int,
    codec: Codec | None = None,
    edge_codec: Codec | None = None,
    clients: str = "auto",
    reject: bool = True,
) -> Engine:
    """Makes the engine of hierarchical federated training, for any federated algorithm.

    A round is a round of the cloud: ``k2`` times the clients take ``k1`` local steps and their edge
    server takes the mean of their uploads; then the cloud takes the mean of what the edges have
    become, weighted by their samples, or by their clients where the algorithm does not weigh by
    samples. Each edge runs the server side of the algorithm, on the state
    that the cloud sent. With ``k2 = 1`` or a single edge, FedAvg gives the same as `flat`.

    What an edge uploads is the change of its server state since the cloud sent it; counters and
    other whole numbers in it, equal at all edges, stay at the edges' value.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``.
      k1: local steps between two aggregations at the edge, or `Epochs`.
      k2: aggregations at the edge between two in the cloud.
      batch: samples of a step.
      codec: what uploads pass between end and edge; identity if None.
      edge_codec: what uploads pass between edge and cloud; identity if None.
      clients: order of the clients on one device, see `clients.chunk_size`.
      reject: whether edges leave out clients that send NaN or infinity.

    Returns:
      The engine.

    Raises:
      ValueError: ``k1`` or ``k2`` is below 1, the order of the clients is unknown, or the algorithm
        acts in every round.

    References:
      Liu, Zhang, Song and Letaief, Client-Edge-Cloud Hierarchical Federated Learning, 2020.
    """
    if span(k1) < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1; got k1={k1!r} and k2={k2!r}")
    check(algorithm, k1, clients)
    if algorithm.every_round:
        raise ValueError(
            "an algorithm that acts in every round, such as user-level privacy, needs a single "
            "server: its noise is made for the mean of all clients, not of an edge; use flat or "
            "sampled"
        )
    by_samples = weighs_by_samples(algorithm)
    codec = identity() if codec is None else codec
    edge_codec = identity() if edge_codec is None else edge_codec

    def init(params, rows):
        server = algorithm.init(jax.tree.map(jnp.array, params))
        edges = jax.tree.map(
            lambda x: jnp.broadcast_to(x, rows.counts.shape[:1] + x.shape),
            edge_codec.init(_changing(server)),
        )
        return FederatedState(
            replicate(mesh, server),
            place(mesh, stack_clients(algorithm, params, rows, codec)),
            jax.device_put(edges, NamedSharding(mesh, PartitionSpec(EDGE))),
            replicate(mesh, jnp.zeros((), jnp.int32)),
        )

    def edge_round(carry, rows, data, key):
        server, stack, start = carry
        broadcast = cast_varying(jax.vmap(algorithm.broadcast)(server), (EDGE, END))
        sums, stack = train_clients(
            algorithm, codec, broadcast, stack, rows, data, start, key,
            steps=k1, batch=batch, order=clients, reject=reject,
        )  # fmt: skip
        sums, population = jax.lax.psum((sums, count_clients(rows)), END)
        mean = mean_upload(algorithm, sums, population)
        new = jax.vmap(algorithm.server_update)(server, mean)
        # An edge without samples keeps what the cloud sent.
        server = jax.tree.map(lambda n, o: jnp.where(_like(sums.weight, n) > 0, n, o), new, server)
        return (server, stack, start + span(k1)), sums._replace(upload=())

    def round_(state, rows, data, key):
        edges = rows.counts.shape[0]
        sent = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (edges, *x.shape)), cast_varying(state.server, (EDGE,))
        )
        (server, stack, steps), sums = jax.lax.scan(
            lambda carry, _: edge_round(carry, rows, data, key),
            (sent, state.clients, state.steps),
            length=k2,
        )
        samples = rows.counts.sum(1).astype(jnp.float32)
        weight = jax.lax.psum(samples if by_samples else count_clients(rows), END)

        # Every edge has a key of its own, wherever it lies on the mesh.
        first = jax.lax.axis_index(EDGE) * edges
        edge_keys = jax.vmap(lambda e: jax.random.fold_in(jax.random.fold_in(key, state.steps), e))(
            first + jnp.arange(edges)
        )
        change = trees.sub(_changing(server), _changing(sent))
        kept, payload = jax.vmap(edge_codec.encode)(state.edges, change, edge_keys)
        change = jax.vmap(edge_codec.decode)(payload)
        total = jax.tree.map(
            lambda c: jnp.where(_like(weight, c) > 0, _like(weight, c) * c, 0).sum(0), change
        )
        metrics = jax.tree.map(lambda m: m.sum(0), sums.metrics)
        sums = jax.tree.map(jnp.sum, sums._replace(metrics=()))._replace(metrics=metrics)
        total, cloud_weight, sums = jax.lax.psum((total, weight.sum(), sums), EDGE)
        new = _add_changes(state.server, mean_of(total, cloud_weight), server)
        return FederatedState(new, stack, kept, steps), metrics_of(sums)

    return Engine(init, compile_rounds(round_, mesh))


def _like(weight: jax.Array, x: jax.Array) -> jax.Array:
    """Shapes ``[edges]`` to meet ``[edges, ...]``."""
    return weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _changing(server: PyTree) -> list[jax.Array]:
    """Picks what edges send up: the floating leaves of a server state, in tree order."""
    return [x for x in jax.tree.leaves(server) if _floating(x)]


def _add_changes(server: PyTree, change: list[jax.Array], edges: PyTree) -> PyTree:
    """Adds the mean change to the floating leaves and takes the others from the edges."""
    leaves, structure = jax.tree.flatten(server)
    at_edges, rest = jax.tree.leaves(edges), iter(change)
    return structure.unflatten(
        [
            x + next(rest) if _floating(x) else jax.lax.pmax(e.max(0), EDGE)
            for x, e in zip(leaves, at_edges)
        ]
    )
