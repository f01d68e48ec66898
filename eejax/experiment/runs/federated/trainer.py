"""Trainers: one method on one split of the data, with its engine, its bill and its judge."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eejax import tiers
from eejax.cotrain import federated
from eejax.experiment.runs.federated import bill as bills
from eejax.experiment.runs.federated.adversaries import attackers_of
from eejax.experiment.runs.federated.bill import Bill
from eejax.experiment.runs.federated.judge import judge, judge_each
from eejax.experiment.runs.federated.lab import Cell, Lab, Start, once, start_of
from eejax.experiment.runs.federated.layouts import Layout, layout_of
from eejax.experiment.runs.federated.methods import ASYNCHRONOUS, Shared
from eejax.experiment.runs.federated.protection import made_of

PyTree = Any


def _nothing(state: PyTree) -> dict[str, float]:
    del state
    return {}


class Trainer(NamedTuple):
    """A training that can be cut into pieces; ``lr`` is the learning rate of the clients.

    Attributes:
      first: ``() -> state``.
      advance: ``(lr, state, rounds) -> (state, loss)``: the last loss; gives up ``state``.
      accuracy: ``(lr, state) -> float``: of the model, or of personal models.
      bill: what rounds cost.
      spent: ``(state) -> {"epsilon": float}``: the privacy spent; nothing where there is no noise.
    """

    first: Callable[[], PyTree]
    advance: Callable[..., tuple[PyTree, float]]
    accuracy: Callable[..., float]
    bill: Bill
    spent: Callable[[PyTree], dict[str, float]] = _nothing


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
    if method.engine in ("central", "gossip") and not isinstance(lab.made(method, 0.1), Shared):
        raise ValueError(
            f"methods: {method.text!r}: {method.engine} trains one model for all, not personal ones"
        )
    if method.engine in ASYNCHRONOUS:
        return _as_they_come(lab, start)
    return _in_rounds(lab, start, layout_of(lab, start))


def _in_rounds(lab: Lab, start: Start, layout: Layout) -> Trainer:
    method, clients = start.cell.method, len(start.split.train.counts)
    rows = layout.place(layout.mesh, layout.rows)
    arrays = federated.replicate(layout.mesh, start.arrays)

    def train(lr, state, rows, arrays, key, rounds):
        return layout.engine(lr, key).run(state, rows, arrays, key, rounds)

    who = attackers_of(lab.config, start.cell.seed).tobytes()
    run = once(
        lab, (method.text, "train", layout.same, start.faults, start.private, who),
        lambda: jax.jit(train, static_argnums=5, donate_argnums=1),
    )  # fmt: skip

    def first():
        state = layout.engine(lab.config.learning_rate, start.key).init(start.params, rows)
        # An algorithm may keep the first model twice, but a buffer can be given up only once.
        return jax.tree.map(jnp.array, state)

    def advance(lr, state, rounds):
        state, metrics = run(lr, state, rows, arrays, start.key, rounds)
        return state, float(metrics["loss"][-1])

    order = np.argsort(np.asarray(layout.rows.ids).reshape(-1), stable=True)[-clients:]

    def by_client(tree):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[order], tree)

    def accuracy(lr, state):
        made = made_of(lab, start, lr, start.key)
        send = made.deploy or made.algorithm.broadcast
        if layout.alone:
            return judge_each(lab, start, lr, jax.vmap(send)(by_client(state.server)))
        return judge(lab, start, lr, send(state.server), by_client(state.clients.state))

    def spent(state):
        if start.private is None or not start.private.noise:
            return {}
        rounds = int(state.server.spent.rounds)
        name = (start.private, "epsilon", rounds)
        return {"epsilon": once(lab, name, lambda: start.private.epsilon(rounds))}

    return Trainer(first, advance, accuracy, layout.bill, spent)


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
        arrays = jax.tree.map(jnp.asarray, start.arrays)
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
    algorithm = lab.made(method, lab.config.learning_rate).algorithm
    model = jax.tree.structure(start.params)
    sent = jax.eval_shape(lambda p: algorithm.broadcast(algorithm.init(p)), start.params)
    upload, state = (jax.eval_shape(f, start.params) for f in (algorithm.upload, algorithm.init))
    plain = all(jax.tree.structure(tree) == model for tree in (sent, upload))
    if not plain or len(jax.tree.leaves(state)) > model.num_leaves or method.algorithm == "fedsgd":
        raise ValueError(
            f"methods: {method.text!r}: {method.engine} has a server of its own, so the algorithm "
            "must be one that sends models and averages changes, such as fedavg or fedprox"
        )
