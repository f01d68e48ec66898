"""Trains the clients of one device: the inner loop that all federated engines share."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.core import WEIGHTINGS, Codec, FederatedAlgorithm
from eejax.cotrain.federated.epochs import Epochs, check_steps, most_steps, own_steps
from eejax.cotrain.federated.rows import Rows
from eejax.data import client_batches
from eejax.tiers import EDGE, END, cast_varying

PyTree = Any


class ClientStack(NamedTuple):
    """What clients keep between rounds, stacked.

    Attributes:
      state: states of the algorithm, ``[edges, ends, ...]``.
      codec: states of the codec of each client's uploads, ``[edges, ends, ...]``.
    """

    state: PyTree
    codec: PyTree


class Sums(NamedTuple):
    """Weighted sums over the clients of each edge server, on one device.

    Attributes:
      upload: sum of the uploads, weighted as the algorithm says, ``[edges, ...]``.
      weight: sum of sample counts, ``[edges]``.
      clients: how many clients took part, f32 ``[edges]``.
      metrics: sum of sample count times metric, scalars.
    """

    upload: PyTree
    weight: jax.Array
    clients: jax.Array
    metrics: dict[str, jax.Array]


def stack_clients(
    algorithm: FederatedAlgorithm, params: PyTree, rows: Rows, codec: Codec
) -> ClientStack:
    """Makes the initial state of all clients.

    Args:
      algorithm: a federated algorithm.
      params: the global model.
      rows: the clients.
      codec: codec of the uploads.

    Returns:
      States of ``[edges, ends, ...]``; without leaves when nothing is kept.
    """
    lead = rows.counts.shape
    own = ClientStack(algorithm.client_init(params), codec.init(algorithm.upload(params)))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, lead + x.shape), own)


def chunk_size(order: str, clients: int) -> int:
    """Tells how many clients are trained at the same time on one device.

    Args:
      order: ``"scan"`` for one after the other, ``"vmap"`` for all, ``"chunk:K"`` for at most K
        (the largest divisor of ``clients`` up to K), or ``"auto"``: scan on CPU, where it is
        faster, vmap elsewhere.
      clients: number of clients on the device.

    Returns:
      A divisor of ``clients``.

    Raises:
      ValueError: the order is none of these.

    Example:
      >>> [chunk_size(order, 12) for order in ("scan", "vmap", "chunk:5")]
      [1, 12, 4]
    """
    found = re.fullmatch(r"(auto|scan|vmap)|chunk:([1-9]\d*)", order)
    if not found:
        raise ValueError(f"clients {order!r} is none of auto, scan, vmap, chunk:K with K >= 1")
    if order == "auto":
        order = "scan" if jax.default_backend() == "cpu" else "vmap"
    most = {"scan": 1, "vmap": clients}.get(order) or int(found[2])
    return max(k for k in range(1, min(most, clients) + 1) if clients % k == 0)


def check(algorithm: FederatedAlgorithm, steps: int | Epochs, order: str) -> None:
    """Refuses wrong settings of an engine when it is made, not amid a run.

    Args:
      algorithm: a federated algorithm.
      steps: local steps of a round, or `Epochs`.
      order: order of the clients.

    Raises:
      ValueError: one of them is wrong.
    """
    chunk_size(order, 1)
    check_steps(steps)
    for how in jax.tree.leaves(algorithm.weighting):
        if how not in WEIGHTINGS:
            raise ValueError(f"weighting {how!r} is none of {', '.join(WEIGHTINGS)}")


def train_clients(
    algorithm: FederatedAlgorithm,
    codec: Codec,
    broadcast: PyTree,
    stack: ClientStack,
    rows: Rows,
    data: PyTree,
    start: jax.Array,
    key: jax.Array,
    *,
    steps: int | Epochs,
    batch: int,
    order: str,
    gaps: bool = False,
) -> tuple[Sums, ClientStack]:
    """Trains every client row of this device and sums up what they send; inside `jax.shard_map`.

    Uploads pass the codec one client at a time and are added up at once, so memory holds as many
    models as are trained at the same time, not as there are clients.

    Args:
      algorithm: a federated algorithm.
      codec: codec of the uploads; it must run under tracing.
      broadcast: what the clients of each edge receive, ``[edges, ...]``.
      stack: states of the clients here, ``[edges, ends, ...]``.
      rows: the clients here.
      data: arrays ``[n, ...]``, all samples.
      start: local steps that each client has taken before, or epochs if ``steps`` are `Epochs`.
      key: key of the run; clients, batches and rounds fold their numbers in.
      steps: local steps, k1, or `Epochs`.
      batch: samples of a step.
      order: see `chunk_size`.
      gaps: whether some rows are empty, which then take no steps.

    Returns:
      The sums over the clients of each edge here, and the new states. Rows without samples add
      nothing and keep their state.
    """
    edges, ends = rows.counts.shape
    k = chunk_size(order, edges * ends)

    most = most_steps(steps, rows.table.shape[-1], batch)

    def train(edge, own, row):
        client_key = jax.random.fold_in(key, row.ids)
        order_key, local_key, codec_key, work_key = jax.random.split(client_key, 4)
        begin, some, tau = start, row.counts > 0, {}
        if isinstance(steps, Epochs):
            round_key = jax.random.fold_in(work_key, start)
            begin, taken = own_steps(steps, row.counts, start, batch, round_key)
            some, tau = taken > 0, {"tau": taken}
        elif gaps:
            tau = {"tau": jnp.where(some, steps, 0)}
        picked = client_batches(order_key, row.table, row.counts, begin, most, batch)
        upload, state, metrics = algorithm.local_update(
            jax.tree.map(lambda b: b[edge], broadcast),
            own.state,
            jax.tree.map(lambda a: a[picked], data),
            jax.random.fold_in(local_key, start),
            **tau,
        )
        sent, payload = codec.encode(own.codec, upload, jax.random.fold_in(codec_key, start))
        new = jax.tree.map(lambda n, o: jnp.where(some, n, o), ClientStack(state, sent), own)
        count, one = jnp.where(some, row.counts, 0).astype(jnp.float32), some.astype(jnp.float32)

        def weigh(how, tree):
            weight = count if how == "samples" else one
            # Cut out, not multiplied by 0: an empty row may hold NaN.
            return jax.tree.map(lambda x: jnp.where(some, weight.astype(x.dtype) * x, 0), tree)

        uploads = jax.tree.map(weigh, algorithm.weighting, codec.decode(payload))
        return Sums(uploads, count, one, weigh("samples", metrics)), new

    def add_chunk(sums, xs):
        edge, own, row = xs
        if k == 1:  # No vmap over one client: it would cost speed and change nothing.
            new, own = jax.tree.map(lambda x: x[None], train(*jax.tree.map(lambda x: x[0], xs)))
        else:
            new, own = jax.vmap(train)(edge, own, row)
        of_edges, added = sums._replace(metrics=()), new._replace(metrics=())
        of_edges = jax.tree.map(lambda s, u: s.at[edge].add(u), of_edges, added)
        metrics = jax.tree.map(lambda s, m: s + m.sum(0), sums.metrics, new.metrics)
        return of_edges._replace(metrics=metrics), own

    def chunked(tree):
        return jax.tree.map(lambda x: x.reshape(-1, k, *x.shape[2:]), tree)

    edge = jnp.broadcast_to(jnp.arange(edges)[:, None], (edges, ends))
    xs = chunked((edge, stack, rows))
    one, _ = jax.eval_shape(lambda x: train(*jax.tree.map(lambda a: a[0, 0], x)), xs)
    none = jax.tree.map(lambda x: jnp.zeros((edges, *x.shape), x.dtype), one)
    none = none._replace(metrics=jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), one.metrics))
    sums, stack = jax.lax.scan(add_chunk, cast_varying(none, (EDGE, END)), xs)
    return sums, jax.tree.map(lambda x: x.reshape(edges, ends, *x.shape[2:]), stack)


def count_clients(rows: Rows) -> jax.Array:
    """Counts the clients that have samples, whether they take part in a round or not.

    Args:
      rows: the clients.

    Returns:
      f32 ``[edges]``.
    """
    return (rows.counts > 0).sum(1).astype(jnp.float32)


def mean_upload(algorithm: FederatedAlgorithm, sums: Sums, population: jax.Array) -> PyTree:
    """Divides the sums of uploads by what the algorithm says.

    Args:
      algorithm: a federated algorithm.
      sums: over the clients that took part, of one server or of ``[edges]``.
      population: number of all clients that have samples, f32, shaped as ``sums.weight``.

    Returns:
      The mean upload; zeros where nobody took part.
    """
    by = {"samples": sums.weight, "uniform": sums.clients, "population": population}
    return jax.tree.map(
        lambda how, total: mean_of(total, by[how]), algorithm.weighting, sums.upload
    )


def mean_of(total: PyTree, weight: jax.Array) -> PyTree:
    """Divides weighted sums by the sum of the weights.

    Args:
      total: sums, shaped ``[...]`` or, with weights of several edges, ``[edges, ...]``.
      weight: sum of sample counts, a scalar or ``[edges]``.

    Returns:
      Means of the same shapes; zeros where nobody had a sample.
    """

    def mean(t):
        w = jnp.maximum(weight, 1).astype(t.dtype)  # Counts are whole: 1 is below no other weight.
        return t / w.reshape(w.shape + (1,) * (t.ndim - w.ndim))

    return jax.tree.map(mean, total)
