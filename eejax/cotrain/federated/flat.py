"""Flat federated training: every round all clients train and one server takes the mean.

Whole rounds are one compiled program over the mesh ``("edge", "end")``; sums go up the tiers, over
``end`` first and then over ``edge``, so the wide-area link carries one sum for each edge.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.core import Codec, FederatedAlgorithm
from eejax.cotrain.federated.clients import (
    ClientStack,
    Sums,
    check,
    count_clients,
    mean_of,
    mean_upload,
    stack_clients,
    train_clients,
)
from eejax.cotrain.federated.epochs import Epochs, span
from eejax.cotrain.federated.rows import Rows, place, replicate
from eejax.tiers import EDGE, END, cast_varying
from eejax.wire import identity

PyTree = Any


class FederatedState(NamedTuple):
    """All that a federated run must keep to go on.

    Attributes:
      server: the algorithm's server state.
      clients: what the clients keep, ``[edges, ends, ...]``.
      edges: what the edge servers keep, ``[edges, ...]``; ``()`` in flat training.
      steps: int32, local steps that every client was to take until now, or `Epochs`.
    """

    server: PyTree
    clients: ClientStack
    edges: PyTree
    steps: jax.Array


class Engine(NamedTuple):
    """A way to run a federated algorithm.

    Attributes:
      init: ``(params, rows) -> FederatedState``.
      run: ``(state, rows, data, key, rounds=1) -> (state, metrics)``: trains for ``rounds`` rounds
        in one compiled program and gives up the buffers of ``state``. ``key`` is the key of the
        whole run, the same in every call: rounds fold in how many steps were taken, so a run may be
        cut anywhere. Every metric is ``[rounds]``, weighted by the samples of the clients.
    """

    init: Callable[..., FederatedState]
    run: Callable[..., tuple[FederatedState, dict]]


def flat(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    *,
    steps: int | Epochs,
    batch: int,
    codec: Codec | None = None,
    clients: str = "auto",
) -> Engine:
    """Makes the engine of flat federated training.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``.
      steps: local steps of a round, or `Epochs`.
      batch: samples of a step.
      codec: what uploads pass on their way up; identity if None.
      clients: order of the clients on one device, see `clients.chunk_size`.

    Returns:
      The engine.

    Raises:
      ValueError: the order of the clients is unknown, or the steps are below 1.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017.
    """
    check(algorithm, steps, clients)
    codec = identity() if codec is None else codec

    def init(params, rows):
        return FederatedState(
            replicate(mesh, algorithm.init(jax.tree.map(jnp.array, params))),
            place(mesh, stack_clients(algorithm, params, rows, codec)),
            (),
            replicate(mesh, jnp.zeros((), jnp.int32)),
        )

    def round_(state, rows, data, key):
        broadcast = jax.tree.map(
            lambda x: jnp.broadcast_to(x, rows.counts.shape[:1] + x.shape),
            cast_varying(algorithm.broadcast(state.server), (EDGE, END)),
        )
        sums, stack = train_clients(
            algorithm, codec, broadcast, state.clients, rows, data, state.steps, key,
            steps=steps, batch=batch, order=clients,
        )  # fmt: skip
        here = Sums(*jax.tree.map(lambda x: x.sum(0), sums[:3]), sums.metrics)
        population = count_clients(rows).sum()
        sums, population = jax.lax.psum(jax.lax.psum((here, population), END), EDGE)
        mean = mean_upload(algorithm, sums, population)
        server = algorithm.server_update(state.server, mean)
        # A round without any sample changes nothing, not even the optimiser of the server.
        server = jax.tree.map(lambda n, o: jnp.where(sums.weight > 0, n, o), server, state.server)
        new = FederatedState(server, stack, (), state.steps + span(steps))
        return new, mean_of(sums.metrics, sums.weight)

    return Engine(init, compile_rounds(round_, mesh))


def compile_rounds(round_: Callable, mesh: Mesh) -> Callable:
    """Turns a round, written for one device, into the program of `Engine.run`.

    Args:
      round_: ``(state, rows, data, key) -> (state, metrics)`` inside `jax.shard_map`.
      mesh: a mesh over ``("edge", "end")``.

    Returns:
      ``run(state, rows, data, key, rounds=1)``.
    """
    tiers, edges, everywhere = PartitionSpec(EDGE, END), PartitionSpec(EDGE), PartitionSpec()
    specs = FederatedState(everywhere, tiers, edges, everywhere)

    def run(state: FederatedState, rows: Rows, data: PyTree, key: jax.Array, rounds: int = 1):
        def block(state, rows, data, key):
            return jax.lax.scan(lambda s, _: round_(s, rows, data, key), state, length=rounds)

        return jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(specs, tiers, everywhere, everywhere),
            out_specs=(specs, everywhere),
        )(state, rows, data, key)

    # Stated, so that what comes out is laid as what went in and the next call compiles nothing.
    laid = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (specs, everywhere))
    return jax.jit(run, static_argnames="rounds", donate_argnums=0, out_shardings=laid)
