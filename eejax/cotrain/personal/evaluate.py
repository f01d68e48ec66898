"""Evaluation over all clients: the global, the personal and the local-only models side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from eejax.cotrain.federated.clients import chunk_size
from eejax.cotrain.federated.epochs import Epochs, most_steps, own_steps
from eejax.cotrain.federated.evaluate import Score
from eejax.cotrain.federated.flat import FederatedState
from eejax.cotrain.federated.rows import Rows
from eejax.cotrain.personal.personal import Personal
from eejax.data import client_batches
from eejax.tiers import EDGE, END, cast_varying

PyTree = Any


def evaluator(
    personal: Personal,
    metric_fn: Callable[[PyTree, PyTree], dict],
    mesh: Mesh,
    *,
    steps: int | Epochs,
    batch: int,
    clients: str = "auto",
    at_once: int = 256,
) -> Callable[..., dict[str, dict[str, Score]]]:
    """Makes the evaluation of a personalised method: one compiled program over all clients.

    Args:
      personal: the method.
      metric_fn: ``(params, samples) -> {name: [samples]}``, such as whether each is recognised.
      mesh: a mesh over ``("edge", "end")``; any, clients are shared out anew.
      steps: batches that each client may use to personalise, or `Epochs`; 0 is allowed.
      batch: samples of such a batch.
      clients: order of the clients on one device, see `clients.chunk_size`.
      at_once: held-out samples that are judged at the same time.

    Returns:
      ``evaluate(state, rows, held_out, data, key, local=None)`` for a `FederatedState`, the rows of
      the training and of the held-out samples of the same clients, both positions in ``data``, and
      a key; ``local`` are the local-only models, ``state.clients.state`` of a run of `local_only`.
      It changes nothing and gives ``{"global": {name: Score}, "personal": ..., "local": ...}``;
      without ``"global"`` where there is no such model, and without ``"local"`` if none are given.

    Raises:
      ValueError: steps are below 0, or the order of the clients is unknown.
    """
    least = steps.epochs if isinstance(steps, Epochs) else steps
    if least < 0:
        raise ValueError(f"steps must be at least 0, got {steps!r}")
    chunk_size(clients, 1)
    everywhere, shared_out = PartitionSpec(), PartitionSpec((EDGE, END))

    def score(params, row, data):
        positions = jnp.pad(row.table, (0, -row.table.size % at_once)).reshape(-1, at_once)
        real = (jnp.arange(positions.size) < row.counts).reshape(positions.shape)

        def judge(xs):
            position, is_real = xs
            values = metric_fn(params, jax.tree.map(lambda a: a[position], data))
            return jax.tree.map(lambda v: jnp.where(is_real, v, 0).sum(dtype=jnp.float32), values)

        totals = jax.tree.map(lambda v: v.sum(0), jax.lax.map(judge, (positions, real)))
        return {name: Score(v, row.counts.astype(jnp.float32)) for name, v in totals.items()}

    def models(sent, own, local, row, data, key):
        client_key = jax.random.fold_in(key, row.ids)
        order_key, local_key, work_key = jax.random.split(client_key, 3)
        tau = jnp.where(row.counts > 0, least, 0)
        if isinstance(steps, Epochs):
            _, tau = own_steps(steps, row.counts, jnp.zeros_like(row.counts), batch, work_key)
        most = max(1, most_steps(steps, row.table.shape[-1], batch))
        picked = client_batches(order_key, row.table, row.counts, 0, most, batch)
        batches = jax.tree.map(lambda a: a[picked], data)
        found = {} if personal.model is None else {"global": personal.model(sent)}
        found["personal"] = personal.personalise(sent, own, batches, local_key, tau=tau)
        return found if local is None else found | {"local": local}

    def block(sent, own, local, rows, held_out, data, key):
        sent, data = cast_varying((sent, data), (EDGE, END))

        def one(xs):
            own, local, row, held = xs
            found = models(sent, own, local, row, data, key)
            return {name: score(params, held, data) for name, params in found.items()}

        k = chunk_size(clients, rows.counts.size)
        return jax.lax.map(one, (own, local, rows, held_out), batch_size=k if k > 1 else None)

    def evaluate(
        state: FederatedState,
        rows: Rows,
        held_out: Rows,
        data: PyTree,
        key: jax.Array,
        local: PyTree = None,
    ):
        n = rows.counts.size
        own = state.clients.state
        # In one line, filled up with empty rows until every device has as many.
        own, local, here, held = jax.tree.map(
            lambda x: jnp.pad(
                x.reshape(n, *x.shape[2:]), [(0, -n % mesh.size)] + [(0, 0)] * (x.ndim - 2)
            ),
            (own, local, rows, held_out),
        )
        sent = (personal.deploy or personal.algorithm.broadcast)(state.server)
        scores = jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(everywhere, *[shared_out] * 4, everywhere, everywhere),
            out_specs=shared_out,
        )(sent, own, local, here, held, data, key)
        ids = rows.ids.reshape(n)
        place = jnp.where(ids >= 0, ids, n)
        return jax.tree.map(lambda x: jnp.zeros(n).at[place].set(x[:n], mode="drop"), scores)

    return jax.jit(evaluate)


def mean_score(score: Score) -> float:
    """Returns the mean over all held-out samples.

    Args:
      score: of all clients.

    Returns:
      NaN if there are no samples.

    Example:
      >>> mean_score(Score(np.array([1.0, 6.0]), np.array([4.0, 6.0])))
      0.7
    """
    total, weight = (float(np.asarray(x, np.float64).sum()) for x in score)
    return total / weight if weight else float("nan")


def by_client(score: Score) -> np.ndarray:
    """Returns the mean over the samples of each client.

    Args:
      score: of all clients.

    Returns:
      ``[clients]``; NaN for clients without samples.

    Example:
      >>> by_client(Score(np.array([1.0, 6.0, 0.0]), np.array([4.0, 6.0, 0.0]))).tolist()
      [0.25, 1.0, nan]
    """
    total, weight = (np.asarray(x, np.float64) for x in score)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)


def worst_clients(score: Score, share: float = 0.1) -> float:
    """Returns the mean over the clients with the lowest means, each counting alike.

    Args:
      score: of all clients; higher is better.
      share: how many of the clients with samples, at least one.

    Returns:
      NaN if no client has samples.

    Raises:
      ValueError: ``share`` is not in (0, 1].

    Example:
      >>> score = Score(np.array([1.0, 6.0, 0.0, 1.0]), np.array([4.0, 6.0, 0.0, 2.0]))
      >>> worst_clients(score), worst_clients(score, 0.5)
      (0.25, 0.375)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")
    means = by_client(score)
    means = np.sort(means[~np.isnan(means)])
    return float(means[: int(np.ceil(share * len(means)))].mean()) if len(means) else float("nan")


def hold_out(
    indices: Sequence[np.ndarray], share: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Holds out a share of the samples of each client.

    Args:
      indices: positions of the samples of each client, as partitioners give them.
      share: of each client's samples, rounded down.
      seed: of `numpy.random.default_rng`.

    Returns:
      Positions to train on and positions held out, of each client.

    Raises:
      ValueError: ``share`` is not in [0, 1).

    Example:
      >>> train, held = hold_out([np.arange(8), np.array([8])], share=0.25, seed=0)
      >>> [len(i) for i in train], [len(i) for i in held]
      ([6, 1], [2, 0])
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share!r}")
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.asarray(i)) for i in indices]
    cuts = [len(i) - int(len(i) * share) for i in shuffled]
    return [i[:c] for i, c in zip(shuffled, cuts)], [i[c:] for i, c in zip(shuffled, cuts)]
