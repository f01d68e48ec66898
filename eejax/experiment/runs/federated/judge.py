"""The judge of a training: accuracy of the model, or of the personal models of the clients."""

from typing import Any

import jax
import jax.numpy as jnp

from eejax import data
from eejax.experiment.runs.federated.lab import Lab, Start, once
from eejax.experiment.runs.federated.methods import Shared

PyTree = Any


def judge(lab: Lab, start: Start, lr: float, sent: PyTree, own: PyTree) -> float:
    """Tests the model, or those of the clients, as the config says.

    Args:
      lab: what all trainings share.
      start: what the training started from.
      lr: learning rate of the clients.
      sent: what the algorithm sends when training is over.
      own: states of the clients, leaves ``[clients, ...]``.

    Returns:
      Accuracy over the test samples of all clients.
    """
    method, config, split = start.cell.method, lab.config, start.split
    shared = isinstance(lab.made(method, lr), Shared)
    epochs = config.adapt_epochs
    most = max(epochs, 1) * -(-split.train.table.shape[1] // config.batch)

    def of_one(lr, sent, own, arrays, train, test, key):
        del own, train, key
        return _correct(lab, lab.made(method, lr).model(sent), arrays, test)

    def of_each(lr, sent, own, arrays, train, test, key):
        made = lab.made(method, lr)

        def one(client):
            own, (table, count), row, number = client
            order, adapting = jax.random.split(jax.random.fold_in(key, number))
            batches = data.client_batches(order, table, count, 0, most, config.batch)
            params = made.personalise(
                sent, own, jax.tree.map(lambda a: a[batches], arrays), adapting,
                tau=epochs * -(-count // config.batch),
            )  # fmt: skip
            return _correct_of(lab, params, arrays, *row)

        clients = len(train.counts)
        test = jax.tree.map(lambda x: jnp.broadcast_to(x, (clients, *x.shape[1:])), test)
        return jax.lax.map(one, (own, tuple(train), tuple(test), jnp.arange(clients))).sum()

    program = once(lab, (method.text, "judge"), lambda: jax.jit(of_one if shared else of_each))
    test = data.ClientIndex(*split.test)
    total = test.counts.sum() * (1 if shared or len(test.counts) > 1 else config.data.clients)
    key = jax.random.fold_in(start.key, 1)
    return float(program(lr, sent, own, _seen(lab, start), split.train, test, key)) / float(total)


def judge_each(lab: Lab, start: Start, lr: float, sent: PyTree) -> float:
    """Tests the models of clients that have no server, each on all test samples.

    Args:
      lab: what all trainings share.
      start: what the training started from.
      lr: learning rate of the clients.
      sent: what each client would send, leaves ``[clients, ...]``.

    Returns:
      Accuracy, the mean over the clients.
    """
    method, test = start.cell.method, start.split.test

    def of_all(lr, sent, arrays, test):
        model = lab.made(method, lr).model
        return jax.lax.map(lambda one: _correct(lab, model(one), arrays, test), sent).sum()

    program = once(lab, (method.text, "judge"), lambda: jax.jit(of_all))
    total = test.counts.sum() * lab.config.data.clients
    return float(program(lr, sent, _seen(lab, start), data.ClientIndex(*test))) / float(total)


def _seen(lab: Lab, start: Start) -> dict[str, Any]:
    """Gives the samples as clients see them, with their true labels."""
    return start.arrays | {"y": lab.samples.arrays["y"]}


def _correct(lab: Lab, params: PyTree, arrays: PyTree, test: data.ClientIndex) -> jax.Array:
    """Counts right answers to the test samples of all rows."""
    return jax.lax.map(lambda row: _correct_of(lab, params, arrays, *row), tuple(test)).sum()


def _correct_of(lab: Lab, params: PyTree, arrays: PyTree, table, count) -> jax.Array:
    answers = lab.model.logits(params, arrays["x"][table]).argmax(-1)
    return ((answers == arrays["y"][table]) & (jnp.arange(len(table)) < count)).sum()
