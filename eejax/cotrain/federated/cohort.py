"""Cross-device training: of very many clients, a cohort takes part in each round."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from eejax.cotrain.federated.flat import Engine, FederatedState
from eejax.cotrain.federated.rows import Rows, replicate
from eejax.cotrain.federated.samplers import Cohort, Sampler
from eejax.data import ClientIndex
from eejax.tiers import EDGE, END, cast_varying
from eejax.wire import identity

PyTree = Any

_COHORT = np.iinfo(np.int32).max  # Folded into the key of the run; no client has this number.


def population(index: ClientIndex) -> Rows:
    """Makes one server's rows of all clients that may take part.

    Args:
      index: samples of each client.

    Returns:
      Rows ``[1, clients, ...]`` on the host; give `sampled` a copy on each device by `replicate`.

    Example:
      >>> from eejax.data import pack
      >>> population(pack([[0, 1, 2], [3, 4]])).counts.tolist()
      [[3, 2]]
    """
    table, counts = (np.asarray(a, np.int32)[None] for a in index)
    return Rows(table, counts, np.arange(counts.size, dtype=np.int32)[None])


def sampled(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    sampler: Sampler,
    *,
    steps: int | Epochs,
    batch: int,
    codec: Codec | None = None,
    clients: str = "auto",
) -> Engine:
    """Makes the engine of federated training where a cohort of the clients trains in each round.

    A round touches the rows and the states of its cohort only, whose clients are shared out to the
    devices of the mesh. States of all clients, and the table of their samples, lie on every device.
    Means are over the cohort; ``"population"`` divides by all clients that have samples. With every
    client in the cohort it is `flat`.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``, such as ``tier_mesh(1, size)``.
      sampler: draws the cohorts, such as ``samplers.uniform(100)``.
      steps: local steps of a round, or `Epochs`.
      batch: samples of a step.
      codec: what uploads pass on their way up; identity if None.
      clients: order of the clients on one device, see `clients.chunk_size`.

    Returns:
      The engine; its rows are those of `population`.

    Raises:
      ValueError: the order of the clients is unknown, or the steps are below 1.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017.
    """
    check(algorithm, steps, clients)
    codec = identity() if codec is None else codec
    tiers, everywhere = PartitionSpec(EDGE, END), PartitionSpec()

    def init(params, rows):
        server = algorithm.init(jax.tree.map(jnp.array, params))
        stack = stack_clients(algorithm, params, rows, codec)
        return FederatedState(*replicate(mesh, (server, stack, (), jnp.zeros((), jnp.int32))))

    def train(server, start, own, rows, data, key):
        broadcast = jax.tree.map(lambda x: x[None], algorithm.broadcast(server))
        sums, own = train_clients(
            algorithm, codec, cast_varying(broadcast, (EDGE, END)), own, rows, data, start, key,
            steps=steps, batch=batch, order=clients, gaps=True,
        )  # fmt: skip
        here = Sums(*jax.tree.map(lambda x: x.sum(0), sums[:3]), sums.metrics)
        return jax.lax.psum(jax.lax.psum(here, END), EDGE), own

    train = jax.shard_map(
        train,
        mesh=mesh,
        in_specs=(everywhere, everywhere, tiers, tiers, everywhere, everywhere),
        out_specs=(everywhere, tiers),
    )

    def round_(state, rows, data, key, everyone):
        cohort_key = jax.random.fold_in(jax.random.fold_in(key, _COHORT), state.steps)
        counts = rows.counts[0]
        drawn = sampler(cohort_key, state.steps // span(steps), counts)
        drawn = fill_up(drawn, mesh, counts.size)
        own, here = deal_out(state.clients, drawn, mesh), rows_of_cohort(rows, drawn, mesh)
        sums, own = train(state.server, state.steps, own, here, data, key)
        stack = jax.tree.map(
            lambda s, x: s.at[0, drawn.clients].set(x.reshape(-1, *x.shape[2:]), mode="drop"),
            state.clients,
            own,
        )
        server = algorithm.server_update(state.server, mean_upload(algorithm, sums, everyone))
        server = jax.tree.map(lambda n, o: jnp.where(sums.weight > 0, n, o), server, state.server)
        new = FederatedState(server, ClientStack(*stack), (), state.steps + span(steps))
        return new, mean_of(sums.metrics, sums.weight)

    def run(state, rows, data, key, rounds=1):
        everyone = count_clients(rows).sum()
        return jax.lax.scan(lambda s, _: round_(s, rows, data, key, everyone), state, length=rounds)

    compiled = jax.jit(
        run,
        static_argnames="rounds",
        donate_argnums=0,
        out_shardings=NamedSharding(mesh, everywhere),
    )
    return Engine(init, compiled)


def fill_up(cohort: Cohort, mesh: Mesh, clients: int) -> Cohort:
    """Adds absent clients until every device of the mesh has as many.

    Args:
      cohort: of any size.
      mesh: a mesh over ``("edge", "end")``.
      clients: number of all clients.

    Returns:
      The cohort; who is absent has the number ``clients``, so that nothing is written there.
    """
    more = (0, -len(cohort.clients) % mesh.size)
    return Cohort(
        jnp.pad(jnp.where(cohort.present, cohort.clients, clients), more, constant_values=clients),
        jnp.pad(cohort.present, more),
    )


def deal_out(tree: PyTree, cohort: Cohort, mesh: Mesh) -> PyTree:
    """Takes what belongs to the clients of a cohort, for the devices of the mesh.

    Args:
      tree: leaves ``[1, clients, ...]``.
      cohort: as `fill_up` makes it.
      mesh: a mesh over ``("edge", "end")``.

    Returns:
      Leaves ``[edges of the mesh, size / edges, ...]``.
    """

    def take(x):
        x = x.at[0, cohort.clients].get(mode="clip")
        return x.reshape(mesh.shape[EDGE], -1, *x.shape[1:])

    return jax.tree.map(take, tree)


def rows_of_cohort(rows: Rows, cohort: Cohort, mesh: Mesh) -> Rows:
    """Takes the rows of a cohort; those of absent clients are empty.

    Args:
      rows: of the population, ``[1, clients, ...]``.
      cohort: as `fill_up` makes it.
      mesh: a mesh over ``("edge", "end")``.

    Returns:
      Rows ``[edges of the mesh, size / edges, ...]``.
    """
    here = deal_out(rows, cohort, mesh)
    present = cohort.present.reshape(here.counts.shape)
    return here._replace(counts=jnp.where(present, here.counts, 0))
