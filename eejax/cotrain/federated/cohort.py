"""Cross-device training: of very many clients, a cohort takes part in each round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.core import Codec, FederatedAlgorithm
from eejax.cotrain.federated.clients import ClientStack, check, stack_clients, train_over
from eejax.cotrain.federated.epochs import Epochs, span
from eejax.cotrain.federated.flat import Engine, FederatedState
from eejax.cotrain.federated.robust import Adversaries, make_robust
from eejax.cotrain.federated.rows import Rows, replicate
from eejax.cotrain.federated.samplers import Cohort, Sampler
from eejax.cotrain.federated.sums import count_clients, mean_upload, metrics_of, serve
from eejax.data import ClientIndex
from eejax.protect import Aggregator
from eejax.tiers import EDGE
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
    aggregator: Aggregator | None = None,
    attack: Adversaries | None = None,
    reject: bool = True,
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
      aggregator: what the server does instead of the mean, for as many uploads as the sampler has
        room for; see `flat` for what it costs.
      attack: what adversaries among the clients do to the uploads.
      reject: whether the mean leaves out clients that send NaN or infinity; aggregators always do.

    Returns:
      The engine; its rows are those of `population`.

    Raises:
      ValueError: the order of the clients is unknown, the steps are below 1, or the algorithm and
        the aggregator cannot work together.

    References:
      McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
      2017.
    """
    codec = identity() if codec is None else codec
    rounds_of = cohort_rounds(
        algorithm, mesh, sampler, steps=steps, batch=batch, codec=codec, clients=clients,
        aggregator=aggregator, attack=attack, reject=reject,
    )  # fmt: skip

    def init(params, rows):
        stack = stack_clients(algorithm, params, rows, codec)
        return rounds_of.init(params)._replace(clients=replicate(mesh, stack))

    def round_(state, rows, data, key, everyone):
        drawn = rounds_of.draw(state.steps, rows, key)
        own = deal_out(state.clients, drawn, mesh)
        new, metrics = rounds_of.train(
            state._replace(clients=own), drawn, rows, data, key, everyone
        )
        stack = jax.tree.map(
            lambda s, x: s.at[0, drawn.clients].set(x.reshape(-1, *x.shape[2:]), mode="drop"),
            state.clients,
            new.clients,
        )
        return new._replace(clients=ClientStack(*stack)), metrics

    def run(state, rows, data, key, rounds=1):
        everyone = count_clients(rows).sum()
        return jax.lax.scan(lambda s, _: round_(s, rows, data, key, everyone), state, length=rounds)

    compiled = jax.jit(
        run,
        static_argnames="rounds",
        donate_argnums=0,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    return Engine(init, compiled)


class CohortRounds(NamedTuple):
    """The pieces of a round of a cohort; where the states of clients lie is not their business.

    Attributes:
      init: ``(params) -> FederatedState`` without states of clients.
      draw: ``(steps before the round, rows, key) -> Cohort``, as `fill_up` makes it.
      train: ``(state, cohort, rows, data, key, number of all clients) -> (state, metrics)``, where
        ``state.clients`` are those of the cohort only, ``[edges of the mesh, size / edges, ...]``.
    """

    init: Callable[[PyTree], FederatedState]
    draw: Callable[..., Cohort]
    train: Callable[..., tuple[FederatedState, dict]]


def cohort_rounds(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    sampler: Sampler,
    *,
    steps: int | Epochs,
    batch: int,
    codec: Codec,
    clients: str,
    aggregator: Aggregator | None,
    attack: Adversaries | None,
    reject: bool,
) -> CohortRounds:
    """Makes the pieces of a round; see `sampled` for the arguments and what it refuses."""
    check(algorithm, steps, clients)
    robust = make_robust(algorithm, aggregator, attack, mesh)
    train_all = train_over(
        mesh, algorithm, codec, one_by_one=robust is not None, steps=steps, batch=batch,
        order=clients, gaps=True, reject=reject or robust is not None,
    )  # fmt: skip

    def init(params):
        server = algorithm.init(jax.tree.map(jnp.array, params))
        kept = robust.init(params) if robust else ()
        return FederatedState(*replicate(mesh, (server, (), (), jnp.zeros((), jnp.int32), kept)))

    def draw(start, rows, key):
        cohort_key = jax.random.fold_in(jax.random.fold_in(key, _COHORT), start)
        counts = rows.counts[0]
        drawn = sampler(cohort_key, start // span(steps), counts)
        return fill_up(drawn, mesh, counts.size)

    def train(state, drawn, rows, data, key, everyone):
        here = rows_of_cohort(rows, drawn, mesh)
        sums, own, *sent = train_all(state.server, state.steps, state.clients, here, data, key)
        if robust:
            places = jax.eval_shape(sampler, key, state.steps, rows.counts[0]).clients.size
            mean, kept = robust.mean(state, sent[0], here.ids, sums, everyone, key, places)
        else:
            mean, kept = mean_upload(algorithm, sums, everyone), ()
        server = serve(algorithm, state.server, mean, sums)
        new = FederatedState(server, own, (), state.steps + span(steps), kept)
        return new, metrics_of(sums)

    return CohortRounds(init, draw, train)


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
