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
    check,
    stack_clients,
    train_clients,
    train_over,
)
from eejax.cotrain.federated.epochs import Epochs, span
from eejax.cotrain.federated.robust import Adversaries, make_robust
from eejax.cotrain.federated.rows import Rows, place, replicate
from eejax.cotrain.federated.sums import count_clients, mean_upload, metrics_of, serve, sum_up
from eejax.protect import Aggregator
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
      aggregator: what the server's robust aggregation keeps; ``()`` where it takes the mean.
    """

    server: PyTree
    clients: ClientStack
    edges: PyTree
    steps: jax.Array
    aggregator: PyTree = ()


class Engine(NamedTuple):
    """A way to run a federated algorithm.

    Attributes:
      init: ``(params, rows) -> FederatedState``.
      run: ``(state, rows, data, key, rounds=1) -> (state, metrics)``: trains for ``rounds`` rounds
        in one compiled program and gives up the buffers of ``state``. ``key`` is the key of the
        whole run, the same in every call: rounds fold in how many steps were taken, so a run may be
        cut anywhere. Every metric is ``[rounds]``, weighted by the samples of the clients; that
        named ``rejected`` is a number of clients, who sent NaN or infinity and were left out.
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
    aggregator: Aggregator | None = None,
    attack: Adversaries | None = None,
    reject: bool = True,
) -> Engine:
    """Makes the engine of flat federated training.

    With an aggregator or an attack, the uploads of a round are kept one by one: every device holds
    all of them, a model for each client, gathers those of the others over the network, and
    aggregates alone. Otherwise it holds a sum, and sums alone cross the network.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``.
      steps: local steps of a round, or `Epochs`.
      batch: samples of a step.
      codec: what uploads pass on their way up; identity if None.
      clients: order of the clients on one device, see `clients.chunk_size`.
      aggregator: what the server does instead of the mean. It gets ``edges * ends`` uploads, those
        of empty rows with weight 0.
      attack: what adversaries among the clients do to the uploads.
      reject: whether the mean leaves out clients that send NaN or infinity; aggregators always do.

    Returns:
      The engine.

    Raises:
      ValueError: the order of the clients is unknown, the steps are below 1, or the algorithm and
        the aggregator cannot work together.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017.
    """
    check(algorithm, steps, clients)
    codec = identity() if codec is None else codec
    robust = make_robust(algorithm, aggregator, attack, mesh)

    def init(params, rows):
        return FederatedState(
            replicate(mesh, algorithm.init(jax.tree.map(jnp.array, params))),
            place(mesh, stack_clients(algorithm, params, rows, codec)),
            (),
            *replicate(mesh, (jnp.zeros((), jnp.int32), robust.init(params) if robust else ())),
        )

    def round_(state, rows, data, key):
        broadcast = jax.tree.map(
            lambda x: jnp.broadcast_to(x, rows.counts.shape[:1] + x.shape),
            cast_varying(algorithm.broadcast(state.server), (EDGE, END)),
        )
        sums, stack = train_clients(
            algorithm, codec, broadcast, state.clients, rows, data, state.steps, key,
            steps=steps, batch=batch, order=clients, reject=reject,
        )  # fmt: skip
        sums, population = sum_up(sums, count_clients(rows))
        server = serve(algorithm, state.server, mean_upload(algorithm, sums, population), sums)
        new = FederatedState(server, stack, (), state.steps + span(steps))
        return new, metrics_of(sums)

    if robust is None:
        return Engine(init, compile_rounds(round_, mesh))

    train = train_over(
        mesh, algorithm, codec, one_by_one=True, steps=steps, batch=batch, order=clients
    )

    def robust_round(state, rows, data, key):
        sums, stack, sent = train(state.server, state.steps, state.clients, rows, data, key)
        population = count_clients(rows).sum()
        mean, kept = robust.mean(state, sent, rows.ids, sums, population, key)
        server = serve(algorithm, state.server, mean, sums)
        new = FederatedState(server, stack, (), state.steps + span(steps), kept)
        return new, metrics_of(sums)

    return Engine(init, compile_rounds(robust_round, mesh, inside=False))


def compile_rounds(round_: Callable, mesh: Mesh, inside: bool = True) -> Callable:
    """Turns a round into the program of `Engine.run`.

    Args:
      round_: ``(state, rows, data, key) -> (state, metrics)``.
      mesh: a mesh over ``("edge", "end")``.
      inside: whether the round is written for one device, inside `jax.shard_map`, and not for all.

    Returns:
      ``run(state, rows, data, key, rounds=1)``.
    """
    tiers, edges, everywhere = PartitionSpec(EDGE, END), PartitionSpec(EDGE), PartitionSpec()
    specs = FederatedState(everywhere, tiers, edges, everywhere, everywhere)

    def run(state: FederatedState, rows: Rows, data: PyTree, key: jax.Array, rounds: int = 1):
        def block(state, rows, data, key):
            return jax.lax.scan(lambda s, _: round_(s, rows, data, key), state, length=rounds)

        if not inside:
            return block(state, rows, data, key)
        return jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(specs, tiers, everywhere, everywhere),
            out_specs=(specs, everywhere),
        )(state, rows, data, key)

    # Stated, so that what comes out is laid as what went in and the next call compiles nothing.
    laid = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (specs, everywhere))
    return jax.jit(run, static_argnames="rounds", donate_argnums=0, out_shardings=laid)
