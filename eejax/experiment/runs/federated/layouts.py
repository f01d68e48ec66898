"""How engines that work in rounds are laid out: who sits where, what runs, what it costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from eejax import tiers
from eejax.cotrain import decentralised, federated
from eejax.cotrain.federated import Engine, Epochs, Rows, samplers
from eejax.experiment.runs.federated import bill as bills
from eejax.experiment.runs.federated.adversaries import AGGREGATORS, aggregator_of, attack_of
from eejax.experiment.runs.federated.bill import Bill
from eejax.experiment.runs.federated.lab import Lab, Start
from eejax.experiment.runs.federated.methods import GRAPHS
from eejax.experiment.runs.federated.neighbours import between_neighbours
from eejax.experiment.runs.federated.protection import made_of, secure_of
from eejax.experiment.runs.federated.samples import pack_wide

PyTree = Any

_COHORT = np.iinfo(np.int32).max  # What `federated.sampled` folds into the key of the run.


class Layout(NamedTuple):
    """How an engine that works in rounds is laid out.

    Attributes:
      rows: the clients.
      mesh: accelerators.
      place: ``(mesh, rows) -> rows`` there.
      engine: ``(lr, key) -> Engine``; both may be traced, and ``key`` is that of the run.
      bill: what rounds cost.
      same: what else its program depends on, beside method and shapes.
      alone: whether every client has a model of its own, and there is no server.
    """

    rows: Rows
    mesh: Mesh
    place: Callable[[Mesh, PyTree], PyTree]
    engine: Callable[[Any, jax.Array], Engine]
    bill: Bill
    same: Any = None
    alone: bool = False


def layout_of(lab: Lab, start: Start) -> Layout:
    """Lays out the engine of a method.

    Args:
      lab: what all trainings share.
      start: what the training starts from.

    Returns:
      The layout.

    Raises:
      ValueError: the algorithm does not suit the engine; says why.
    """
    engine = start.cell.method.engine
    make = {
        "semi": _semi, "sampled": _sampled, "poisson": _poisson, "hierarchical": _hierarchical,
        "gossip": _gossip, "central": _central,
    }.get(engine, _flat)  # fmt: skip
    layout, share = make(lab, start), start.cell.method.settings.get("share", 0)
    shared = round(share * len(start.split.shared))
    return layout._replace(bill=bills.with_samples(layout.bill, start, shared, lab.samples))


def _flat(lab: Lab, start: Start) -> Layout:
    """All clients that are there in every round; the server waits for all that answer."""
    config = lab.config
    if start.faults.dropout:
        return _semi(lab, start, deadline_s=np.inf)
    if start.there is not None:
        rounds = bills.rounds_of(start, config.rounds, np.inf, cohort=start.there)
        price = bills.in_rounds(start, rounds.seconds, start.there, start.there)
        sampler = samplers.available(config.data.clients, start.there)
        return _cohorts(lab, start, sampler, config.data.clients, price, start.there.tobytes())
    rounds = bills.rounds_of(start, config.rounds, np.inf)
    everyone = np.ones_like(rounds.arrived)
    rows = federated.population(start.split.train)
    mesh = tiers.tier_mesh(*rows.counts.shape)

    def engine(lr, key):
        return federated.flat(
            made_of(lab, start, lr, key).algorithm, mesh, steps=start.local,
            **_options(lab, start), **_server(lab, start, rows.counts.size),
        )  # fmt: skip

    price = bills.in_rounds(start, rounds.seconds, everyone, everyone)
    return Layout(rows, mesh, federated.place, engine, price)


def _semi(lab: Lab, start: Start, deadline_s: float | None = None) -> Layout:
    """Whose update comes in time is the cohort."""
    settings, clients = start.cell.method.settings, lab.config.data.clients
    quorum = int(settings.get("quorum", 1))
    deadline_s = settings["deadline_s"] if deadline_s is None else deadline_s
    rounds = bills.rounds_of(start, lab.config.rounds, deadline_s, quorum)
    sampler = samplers.available(clients, rounds.arrived)
    price = bills.in_rounds(start, rounds.seconds, np.ones_like(rounds.arrived), rounds.arrived)
    return _cohorts(lab, start, sampler, clients, price, rounds.arrived.tobytes())


def _sampled(lab: Lab, start: Start) -> Layout:
    """A cohort of equal size, drawn anew for each round, of those who are there."""
    size = int(start.cell.method.settings["size"])
    sampler = samplers.uniform(size)
    if start.there is not None:
        sampler = samplers.available(size, start.there)
    same = None if start.there is None else start.there.tobytes()
    return _drawn(lab, start, sampler, size, same)


def _poisson(lab: Lab, start: Start) -> Layout:
    """Every client on its own takes part with the same probability."""
    clients = lab.config.data.clients
    sampler = samplers.poisson(start.cell.method.settings["size"] / clients)
    cohort = jax.eval_shape(sampler, start.key, jnp.array(0), jnp.zeros(clients))
    return _drawn(lab, start, sampler, cohort.clients.size)


def _drawn(lab: Lab, start: Start, sampler, places: int, same: Any = None) -> Layout:
    """A cohort of the sampler in each round."""
    took = drawn(sampler, start.key, lab.config.rounds, start.split.train.counts, start.local)
    rounds = bills.rounds_of(start, lab.config.rounds, np.inf, cohort=took)
    price = bills.in_rounds(start, rounds.seconds, took, took)
    return _cohorts(lab, start, sampler, places, price, same)


def drawn(
    sampler: samplers.Sampler, key: jax.Array, rounds: int, counts: np.ndarray, local: Any
) -> np.ndarray:
    """Tells whom `federated.sampled` draws.

    Args:
      sampler: draws the cohorts.
      key: of the run.
      rounds: how many.
      counts: samples of each client.
      local: steps or `Epochs` of a round.

    Returns:
      bool ``[rounds, clients]``.
    """
    span = local.epochs if isinstance(local, Epochs) else local

    def cohort(number):
        draw = jax.random.fold_in(jax.random.fold_in(key, _COHORT), number * span)
        clients, present = sampler(draw, number, jnp.asarray(counts))
        return jnp.zeros(len(counts), bool).at[clients].set(present, mode="drop")

    return np.asarray(jax.jit(jax.vmap(cohort))(jnp.arange(rounds)))


def _cohorts(lab: Lab, start: Start, sampler, places: int, price: Bill, same: Any = None) -> Layout:
    mesh = tiers.tier_mesh(1, places)

    def engine(lr, key):
        return federated.sampled(
            made_of(lab, start, lr, key).algorithm, mesh, sampler, steps=start.local,
            **_options(lab, start), **_server(lab, start, places),
        )  # fmt: skip

    rows = federated.population(start.split.train)
    return Layout(rows, mesh, federated.replicate, engine, price, same)


def _hierarchical(lab: Lab, start: Start) -> Layout:
    """Edge servers aggregate often, the cloud seldom."""
    k2, options = int(start.cell.method.settings["k2"]), _options(lab, start)
    rows = federated.rows_of(start.topology, start.split.train)
    mesh = tiers.tier_mesh(*rows.counts.shape)

    def engine(lr, key):
        return federated.hierfavg(
            made_of(lab, start, lr, key).algorithm, mesh, k1=start.local, k2=k2,
            edge_codec=start.codec, **options,
        )  # fmt: skip

    algorithm = lab.made(start.cell.method, lab.config.learning_rate).algorithm
    price = bills.hierarchical(start, algorithm, k2, lab.config.rounds)
    return Layout(rows, mesh, federated.place, engine, price)


def _gossip(lab: Lab, start: Start) -> Layout:
    """Neighbours of a graph take the mean of their models, without a server."""
    rows = federated.rows_of(start.topology, start.split.train)
    mesh = tiers.tier_mesh(*rows.counts.shape)
    w = GRAPHS[start.cell.method.settings["graph"]](lab.config.data.clients)

    def engine(lr, key):
        return decentralised.dpsgd(
            made_of(lab, start, lr, key).algorithm, mesh, w=decentralised.seat(w, rows),
            steps=start.local, batch=lab.config.batch, clients=lab.config.clients,
        )  # fmt: skip

    algorithm = lab.made(start.cell.method, lab.config.learning_rate).algorithm
    sent = jax.eval_shape(algorithm.init, start.params)
    price = between_neighbours(start, w, rows, sent, lab.config.rounds)
    return Layout(rows, mesh, federated.place, engine, price, alone=True)


def _central(lab: Lab, start: Start) -> Layout:
    """All samples at a single client, which is the cloud."""
    table, counts = start.split.train
    together = np.concatenate([row[:count] for row, count in zip(table, counts)])
    one = pack_wide([together], len(lab.samples.arrays["y"]))
    rows = federated.population(one)
    mesh = tiers.tier_mesh(1, 1)

    def engine(lr, key):
        return federated.flat(
            made_of(lab, start, lr, key).algorithm, mesh, steps=start.local, **_options(lab, start)
        )

    price = bills.in_one_place(start, lab.samples.nbytes, lab.config.rounds)
    return Layout(rows, mesh, federated.place, engine, price)


def _options(lab: Lab, start: Start) -> dict[str, Any]:
    return {"batch": lab.config.batch, "codec": start.codec, "clients": lab.config.clients}


def _server(lab: Lab, start: Start, places: int) -> dict[str, Any]:
    """What the server does with the uploads of a round, and what attackers do to them."""
    method = start.cell.method
    aggregator = secure_of(method, places)
    if method.engine in AGGREGATORS:
        aggregator = aggregator_of(lab.config, method, places)
    return {"aggregator": aggregator, "attack": attack_of(lab.config, start.cell.seed)}
