"""Cross-device training whose clients keep their states in host memory or on disk."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.core import Codec, FederatedAlgorithm
from eejax.cotrain.federated.clients import ClientStack
from eejax.cotrain.federated.cohort import cohort_rounds
from eejax.cotrain.federated.epochs import Epochs, span
from eejax.cotrain.federated.flat import Engine, FederatedState
from eejax.cotrain.federated.robust import Adversaries
from eejax.cotrain.federated.rows import place
from eejax.cotrain.federated.samplers import Sampler
from eejax.cotrain.federated.stores import Store
from eejax.cotrain.federated.sums import count_clients
from eejax.protect import Aggregator
from eejax.tiers import EDGE, END
from eejax.wire import identity


def stored(
    algorithm: FederatedAlgorithm,
    mesh: Mesh,
    sampler: Sampler,
    store: Store,
    *,
    steps: int | Epochs,
    batch: int,
    codec: Codec | None = None,
    clients: str = "auto",
    aggregator: Aggregator | None = None,
    attack: Adversaries | None = None,
    reject: bool = True,
) -> Engine:
    """Makes the engine of `sampled` for more states than fit on a device.

    A round takes the states of its cohort from the store, trains in one compiled program, and puts
    them back; while a round is computed, the states of the next cohort are read. States that fit on
    the device belong into `sampled`, which compiles all rounds of a call.

    Args:
      algorithm: a federated algorithm.
      mesh: a mesh over ``("edge", "end")``.
      sampler: draws the cohorts.
      store: `host_store` or `disk_store`.
      steps: local steps of a round, or `Epochs`.
      batch: samples of a step.
      codec: what uploads pass on their way up; identity if None.
      clients: order of the clients on one device, see `clients.chunk_size`.
      aggregator: as of `sampled`.
      attack: as of `sampled`.
      reject: as of `sampled`.

    Returns:
      The engine; its rows are those of `population`, and ``state.clients`` is what the store keeps.

    Raises:
      ValueError: as of `sampled`.
    """
    codec = identity() if codec is None else codec
    rounds_of = cohort_rounds(
        algorithm, mesh, sampler, steps=steps, batch=batch, codec=codec, clients=clients,
        aggregator=aggregator, attack=attack, reject=reject,
    )  # fmt: skip
    tiers, everywhere = (
        NamedSharding(mesh, p) for p in (PartitionSpec(EDGE, END), PartitionSpec())
    )
    laid = FederatedState(everywhere, tiers, everywhere, everywhere, everywhere)
    draw = jax.jit(rounds_of.draw, out_shardings=everywhere)
    train = jax.jit(rounds_of.train, donate_argnums=0, out_shardings=(laid, everywhere))
    count = jax.jit(lambda rows: count_clients(rows).sum(), out_shardings=everywhere)

    def init(params, rows):
        own = ClientStack(algorithm.client_init(params), codec.init(algorithm.upload(params)))
        return rounds_of.init(params)._replace(clients=store.init(own, rows.counts.size))

    def dealt(states):
        seats = mesh.shape[EDGE]
        return place(mesh, jax.tree.map(lambda x: x.reshape(seats, -1, *x.shape[1:]), states))

    def run(state, rows, data, key, rounds=1):
        kept, at, n = state.clients, int(state.steps), rows.counts.size
        store.begin(kept, at)
        everyone, metrics = count(rows), []

        def draw_at(at):
            drawn = draw(jnp.int32(at), rows, key)
            return drawn, np.asarray(drawn.clients)

        def read(ids):
            return store.gather(kept, np.minimum(ids, n - 1), at)

        drawn, ids = draw_at(at)
        states = read(ids)
        for left in reversed(range(rounds)):
            coming, coming_ids = draw_at(at + span(steps)) if left else (drawn, ids[:0])
            state, of_round = train(
                state._replace(clients=dealt(states)), drawn, rows, data, key, everyone
            )
            states = read(coming_ids)
            new, here = jax.device_get(state.clients), ids < n
            new = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), new)
            at += span(steps)
            new = jax.tree.map(lambda x, here=here: x[here], new)
            kept = store.scatter(kept, ids[here], new, at)
            # Who takes part in both rounds was read too early.
            again = np.flatnonzero(np.isin(coming_ids, ids[here]))
            late = store.gather(kept, coming_ids[again], at)
            for x, y in zip(jax.tree.leaves(states), jax.tree.leaves(late)):
                x[again] = y
            drawn, ids = coming, coming_ids
            metrics.append(of_round)
        store.finish(kept, at)
        return state._replace(clients=kept), jax.tree.map(lambda *m: jnp.stack(m), *metrics)

    return Engine(init, run)
