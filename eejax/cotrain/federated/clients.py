"""Trains the clients of one device: the inner loop that all federated engines share."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from eejax.core import WEIGHTINGS, Codec, FederatedAlgorithm
from eejax.cotrain.federated.epochs import Epochs, check_steps, most_steps, own_steps
from eejax.cotrain.federated.local import Picked
from eejax.cotrain.federated.rows import Rows
from eejax.cotrain.federated.sums import Sums, finite, sum_up
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


class Sent(NamedTuple):
    """What clients sent, one by one.

    Attributes:
      upload: ``[edges, ends, ...]``.
      weight: f32 ``[edges, ends]``, 0 where nothing was sent: numbers of samples, or 1 for
        algorithms that do not weigh by samples.
    """

    upload: PyTree
    weight: jax.Array


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


def weighs_by_samples(algorithm: FederatedAlgorithm) -> bool:
    """Tells whether all that clients send is weighted by their numbers of samples."""
    return all(how == "samples" for how in jax.tree.leaves(algorithm.weighting))


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
    reject: bool = True,
    one_by_one: bool = False,
) -> tuple[Sums, ClientStack] | tuple[Sums, ClientStack, Sent]:
    """Trains every client row of this device and sums up what they send; inside `jax.shard_map`.

    Uploads pass the codec one client at a time and are added up at once, so memory holds as many
    models as are trained at the same time, not as there are clients.

    A client that diverged is not heard: what it sends is in no sum, and it keeps the state that it
    had before the round.

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
      reject: whether clients that send NaN or infinity are left out.
      one_by_one: whether to give what was sent as it is, also by clients that are left out of the
        sums, and not to add it up.

    Returns:
      The sums over the clients of each edge here, and the new states. Rows without samples add
      nothing and keep their state. With ``one_by_one`` also what each client sent.
    """
    edges, ends = rows.counts.shape
    k = chunk_size(order, edges * ends)

    most = most_steps(steps, rows.table.shape[-1], batch)
    by_samples = weighs_by_samples(algorithm)

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
            Picked(data, picked) if algorithm.by_steps else jax.tree.map(lambda a: a[picked], data),
            jax.random.fold_in(local_key, start),
            **tau,
        )
        sent, payload = codec.encode(own.codec, upload, jax.random.fold_in(codec_key, start))
        upload = codec.decode(payload)
        heard = some & finite(upload) if reject else some
        new = jax.tree.map(lambda n, o: jnp.where(heard, n, o), ClientStack(state, sent), own)
        count, one = jnp.where(heard, row.counts, 0).astype(jnp.float32), heard.astype(jnp.float32)

        def weigh(how, tree):
            weight = count if how == "samples" else one
            # Cut out, not multiplied by 0: an empty row may hold NaN.
            return jax.tree.map(lambda x: jnp.where(heard, weight.astype(x.dtype) * x, 0), tree)

        sums = Sums((), count, one, weigh("samples", metrics), (some & ~heard).astype(jnp.float32))
        if one_by_one:
            return sums, (new, Sent(upload, jnp.where(some, row.counts if by_samples else 1, 0.0)))
        return sums._replace(upload=jax.tree.map(weigh, algorithm.weighting, upload)), (new, ())

    def add_chunk(sums, xs):
        if k == 1:  # No vmap over one client: it would cost speed and change nothing.
            new, kept = jax.tree.map(lambda x: x[None], train(*jax.tree.map(lambda x: x[0], xs)))
        else:
            new, kept = jax.vmap(train)(*xs)
        of_edges, added = sums._replace(metrics=()), new._replace(metrics=())
        of_edges = jax.tree.map(
            lambda s, u: s + u if edges == k == 1 else s.at[xs[0]].add(u), of_edges, added
        )
        metrics = jax.tree.map(lambda s, m: s + m.sum(0), sums.metrics, new.metrics)
        return of_edges._replace(metrics=metrics), kept

    def chunked(tree):
        return jax.tree.map(lambda x: x.reshape(-1, k, *x.shape[2:]), tree)

    edge = jnp.broadcast_to(jnp.arange(edges)[:, None], (edges, ends))
    xs = chunked((edge, stack, rows))
    one, _ = jax.eval_shape(lambda x: train(*jax.tree.map(lambda a: a[0, 0], x)), xs)
    none = jax.tree.map(lambda x: jnp.zeros((edges, *x.shape), x.dtype), one)
    none = none._replace(metrics=jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), one.metrics))
    sums, kept = jax.lax.scan(add_chunk, cast_varying(none, (EDGE, END)), xs)
    stack, sent = jax.tree.map(lambda x: x.reshape(edges, ends, *x.shape[2:]), kept)
    return (sums, stack, sent) if one_by_one else (sums, stack)


def train_over(
    mesh: Mesh, algorithm: FederatedAlgorithm, codec: Codec, *, one_by_one: bool, **settings: Any
) -> Callable:
    """Makes the training of clients that lie over a mesh, for the global model of one server.

    Args:
      mesh: a mesh over ``("edge", "end")``.
      algorithm: a federated algorithm.
      codec: codec of the uploads.
      one_by_one: see `train_clients`.
      **settings: of `train_clients`.

    Returns:
      ``(server, start, stack, rows, data, key) -> (sums of one server, stack)``, and what each
      client sent with ``one_by_one``.
    """
    tiers, everywhere = PartitionSpec(EDGE, END), PartitionSpec()

    def train(server, start, stack, rows, data, key):
        broadcast = jax.tree.map(
            lambda x: jnp.broadcast_to(x, rows.counts.shape[:1] + x.shape),
            cast_varying(algorithm.broadcast(server), (EDGE, END)),
        )
        sums, *rest = train_clients(
            algorithm, codec, broadcast, stack, rows, data, start, key, one_by_one=one_by_one,
            **settings,
        )  # fmt: skip
        return *sum_up(sums), *rest

    return jax.shard_map(
        train,
        mesh=mesh,
        in_specs=(everywhere, everywhere, tiers, tiers, everywhere, everywhere),
        out_specs=(everywhere, tiers, tiers) if one_by_one else (everywhere, tiers),
    )
