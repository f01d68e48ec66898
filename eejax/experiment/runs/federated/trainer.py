"""Trainers: one method on one split of the data, with its engine, its bill and its judge."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from eejax import tiers
from eejax.cotrain import federated
from eejax.cotrain.federated import Engine, Epochs, Rows, samplers
from eejax.experiment.runs.federated import bill as bills
from eejax.experiment.runs.federated.adversaries import (
    AGGREGATORS,
    aggregator_of,
    attack_of,
    attackers_of,
)
from eejax.experiment.runs.federated.bill import Bill
from eejax.experiment.runs.federated.judge import judge
from eejax.experiment.runs.federated.lab import ASYNCHRONOUS, Cell, Lab, Start, once, start_of
from eejax.experiment.runs.federated.methods import Shared
from eejax.experiment.runs.federated.setting import pack_wide

PyTree = Any

_COHORT = np.iinfo(np.int32).max  # What `federated.sampled` folds into the key of the run.


class Trainer(NamedTuple):
    """A training that can be cut into pieces; ``lr`` is the learning rate of the clients.

    Attributes:
      first: ``() -> state``.
      advance: ``(lr, state, rounds) -> (state, loss)``: the last loss; gives up ``state``.
      accuracy: ``(lr, state) -> float``: of the model, or of personal models.
      bill: what rounds cost.
    """

    first: Callable[[], PyTree]
    advance: Callable[..., tuple[PyTree, float]]
    accuracy: Callable[..., float]
    bill: Bill


class Layout(NamedTuple):
    """How an engine that works in rounds is laid out.

    Attributes:
      rows: the clients.
      mesh: accelerators.
      place: ``(mesh, rows) -> rows`` there.
      engine: ``(lr) -> Engine``; ``lr`` may be traced.
      same: what else its program depends on, beside method and shapes.
    """

    rows: Rows
    mesh: Mesh
    place: Callable[[Mesh, PyTree], PyTree]
    engine: Callable[[Any], Engine]
    same: Any = None


def make_trainer(lab: Lab, cell: Cell) -> Trainer:
    """Makes a trainer.

    Args:
      lab: what all trainings share.
      cell: what to train.

    Returns:
      The trainer.

    Raises:
      ValueError: the method does not suit its engine; says why.
    """
    start, method = start_of(lab, cell), cell.method
    if method.engine == "central" and not isinstance(lab.made(method, 0.1), Shared):
        raise ValueError(f"methods: {method.text!r}: central trains one model, not personal ones")
    if method.engine in ASYNCHRONOUS:
        return _as_they_come(lab, start)
    if method.engine in AGGREGATORS:
        return _in_rounds(lab, start, *_flat(lab, start))
    make = {
        "flat": _flat, "semi": _semi, "sampled": _sampled, "hierarchical": _hierarchical,
        "central": _central,
    }[method.engine]  # fmt: skip
    return _in_rounds(lab, start, *make(lab, start))


def _flat(lab: Lab, start: Start) -> tuple[Layout, Bill]:
    """All clients in every round; the server waits for all that answer."""
    if start.faults.dropout:
        return _semi(lab, start, deadline_s=np.inf)
    rounds = bills.rounds_of(start, lab.config.rounds, np.inf)
    everyone = np.ones_like(rounds.arrived)
    rows = federated.population(start.split.train)
    mesh = tiers.tier_mesh(*rows.counts.shape)

    def engine(lr):
        return federated.flat(
            _algorithm(lab, start, lr), mesh, steps=start.local,
            **_options(lab, start), **_robust(lab, start, rows.counts.size),
        )  # fmt: skip

    price = bills.in_rounds(start, rounds.seconds, everyone, everyone)
    share = start.cell.method.settings.get("share", 0)
    price = bills.with_samples(price, start, round(share * len(start.split.shared)), lab.samples)
    return Layout(rows, mesh, federated.place, engine), price


def _semi(lab: Lab, start: Start, deadline_s: float | None = None) -> tuple[Layout, Bill]:
    """Whose update comes in time is the cohort."""
    settings, clients = start.cell.method.settings, lab.config.data.clients
    quorum = int(settings.get("quorum", 1))
    deadline_s = settings["deadline_s"] if deadline_s is None else deadline_s
    rounds = bills.rounds_of(start, lab.config.rounds, deadline_s, quorum)
    sampler = samplers.available(clients, rounds.arrived)
    price = bills.in_rounds(start, rounds.seconds, np.ones_like(rounds.arrived), rounds.arrived)
    return _cohorts(lab, start, sampler, clients, rounds.arrived.tobytes()), price


def _sampled(lab: Lab, start: Start) -> tuple[Layout, Bill]:
    """A cohort of equal size, drawn anew for each round."""
    size, counts = int(start.cell.method.settings["size"]), start.split.train.counts
    sampler = samplers.uniform(size)
    took = drawn(sampler, start.key, lab.config.rounds, counts, start.local)
    rounds = bills.rounds_of(start, lab.config.rounds, np.inf, cohort=took)
    return _cohorts(lab, start, sampler, size), bills.in_rounds(start, rounds.seconds, took, took)


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


def _cohorts(lab: Lab, start: Start, sampler, size: int, same: Any = None) -> Layout:
    mesh = tiers.tier_mesh(1, size)

    def engine(lr):
        return federated.sampled(
            _algorithm(lab, start, lr), mesh, sampler, steps=start.local,
            **_options(lab, start), **_robust(lab, start, size),
        )  # fmt: skip

    return Layout(federated.population(start.split.train), mesh, federated.replicate, engine, same)


def _hierarchical(lab: Lab, start: Start) -> tuple[Layout, Bill]:
    """Edge servers aggregate often, the cloud seldom."""
    k2, options = int(start.cell.method.settings["k2"]), _options(lab, start)
    rows = federated.rows_of(start.topology, start.split.train)
    mesh = tiers.tier_mesh(*rows.counts.shape)

    def engine(lr):
        return federated.hierfavg(
            _algorithm(lab, start, lr), mesh, k1=start.local, k2=k2, edge_codec=start.codec,
            **options,
        )  # fmt: skip

    algorithm = _algorithm(lab, start, lab.config.learning_rate)
    price = bills.hierarchical(start, algorithm, k2, lab.config.rounds)
    return Layout(rows, mesh, federated.place, engine), price


def _central(lab: Lab, start: Start) -> tuple[Layout, Bill]:
    """All samples at a single client, which is the cloud."""
    table, counts = start.split.train
    together = np.concatenate([row[:count] for row, count in zip(table, counts)])
    one = pack_wide([together], len(lab.samples.arrays["y"]))
    rows = federated.population(one)
    mesh = tiers.tier_mesh(1, 1)

    def engine(lr):
        return federated.flat(
            _algorithm(lab, start, lr), mesh, steps=start.local, **_options(lab, start)
        )

    price = bills.in_one_place(start, lab.samples.nbytes, lab.config.rounds)
    return Layout(rows, mesh, federated.place, engine), price


def _in_rounds(lab: Lab, start: Start, layout: Layout, bill: Bill) -> Trainer:
    method, clients = start.cell.method, len(start.split.train.counts)
    rows = layout.place(layout.mesh, layout.rows)
    arrays = federated.replicate(layout.mesh, lab.samples.arrays)

    def train(lr, state, rows, arrays, key, rounds):
        return layout.engine(lr).run(state, rows, arrays, key, rounds)

    who = attackers_of(lab.config, start.cell.seed).tobytes()
    run = once(
        lab, (method.text, "train", layout.same, start.faults, who),
        lambda: jax.jit(train, static_argnums=5, donate_argnums=1),
    )  # fmt: skip

    def first():
        state = layout.engine(lab.config.learning_rate).init(start.params, rows)
        # An algorithm may keep the first model twice, but a buffer can be given up only once.
        return jax.tree.map(jnp.array, state)

    def advance(lr, state, rounds):
        state, metrics = run(lr, state, rows, arrays, start.key, rounds)
        return state, float(metrics["loss"][-1])

    order = np.argsort(np.asarray(layout.rows.ids).reshape(-1), stable=True)[-clients:]

    def accuracy(lr, state):
        own = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[order], state.clients.state)
        made = lab.made(method, lr)
        sent = (made.deploy or made.algorithm.broadcast)(state.server)
        return judge(lab, start, lr, sent, own)

    return Trainer(first, advance, accuracy, bill)


def _as_they_come(lab: Lab, start: Start) -> Trainer:
    """Every update is taken when it comes; as many as there are clients make a round."""
    method, config, settings = start.cell.method, lab.config, start.cell.method.settings
    clients = config.data.clients
    _check_server(lab, start)
    arrivals = tiers.arrivals(
        start.turn,
        events=config.rounds * clients,
        concurrency=int(settings["concurrency"]) or clients,
        seed=start.cell.seed,
        faults=start.faults,
    )
    if method.engine == "fedasync":
        server = federated.fedasync(settings["alpha"], federated.polynomial(settings["a"]))
    else:
        server = federated.fedbuff(int(settings["size"]), optax.sgd(settings["server_lr"]))

    def engine(lr):
        return federated.asynchronous(
            lab.made(method, lr).algorithm, server, start.split.train, arrivals,
            steps=start.local, batch=config.batch, codec=start.codec,
        )  # fmt: skip

    engines: dict[float, Any] = {}

    def advance(lr, state, rounds):
        if lr not in engines:
            engines[lr] = engine(lr)
        arrays = jax.tree.map(jnp.asarray, lab.samples.arrays)
        state, metrics = engines[lr].run(state, arrays, start.key, rounds * clients)
        taken = np.asarray(metrics["taken"])
        return state, float(np.asarray(metrics["loss"])[taken].mean()) if taken.any() else np.nan

    def accuracy(lr, state):
        return judge(lab, start, lr, server.broadcast(state.server), state.clients)

    return Trainer(
        lambda: engine(config.learning_rate).init(start.params), advance, accuracy,
        bills.as_they_come(start, arrivals, clients),
    )  # fmt: skip


def _check_server(lab: Lab, start: Start) -> None:
    """Refuses algorithms whose server does more than to add what an asynchronous one adds."""
    method = start.cell.method
    algorithm = _algorithm(lab, start, lab.config.learning_rate)
    model = jax.tree.structure(start.params)
    sent = jax.eval_shape(lambda p: algorithm.broadcast(algorithm.init(p)), start.params)
    upload, state = (jax.eval_shape(f, start.params) for f in (algorithm.upload, algorithm.init))
    plain = all(jax.tree.structure(tree) == model for tree in (sent, upload))
    if not plain or len(jax.tree.leaves(state)) > model.num_leaves or method.algorithm == "fedsgd":
        raise ValueError(
            f"methods: {method.text!r}: {method.engine} has a server of its own, so the algorithm "
            "must be one that sends models and averages changes, such as fedavg or fedprox"
        )


def _algorithm(lab: Lab, start: Start, lr: Any):
    return lab.made(start.cell.method, lr).algorithm


def _options(lab: Lab, start: Start) -> dict[str, Any]:
    return {"batch": lab.config.batch, "codec": start.codec, "clients": lab.config.clients}


def _robust(lab: Lab, start: Start, uploads: int) -> dict[str, Any]:
    """What the server does with uploads that it sees one by one, and what attackers do to them."""
    method = start.cell.method
    aggregator = (
        aggregator_of(lab.config, method, uploads) if method.engine in AGGREGATORS else None
    )
    return {"aggregator": aggregator, "attack": attack_of(lab.config, start.cell.seed)}
