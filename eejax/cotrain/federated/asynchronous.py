"""Asynchronous federated training in virtual time: one compiled scan over the arrivals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eejax.core import Codec, FederatedAlgorithm
from eejax.data import ClientIndex, client_batches
from eejax.tiers import Arrivals
from eejax.wire import identity

PyTree = Any


class AsyncServer(NamedTuple):
    """What a server does with updates as they come.

    Attributes:
      init: ``(params) -> state``.
      receive: ``(state, pulled, upload, samples, staleness) -> state``: takes the change
        ``upload`` of a client that began from the model ``pulled``; ``staleness`` counts the models
        that the server has published since then.
      broadcast: ``(state) -> params``: the published model.
      version: ``(state) ->`` how many models it has published, int32.
    """

    init: Callable[[PyTree], PyTree]
    receive: Callable[..., PyTree]
    broadcast: Callable[[PyTree], PyTree]
    version: Callable[[PyTree], jax.Array]


class AsyncState(NamedTuple):
    """All that an asynchronous run must keep to go on.

    Attributes:
      server: state of the server.
      pulled: models that clients under way began from, ``[concurrency, ...]``.
      versions: their numbers, int32 ``[concurrency]``.
      waiting: which slots get the model that is published next, bool ``[concurrency]``.
      clients: states of the algorithm, ``[clients, ...]``.
      codec: states of the codec, ``[clients, ...]``.
      turns: turns that each client has finished, int32 ``[clients]``.
      event: int32, events so far.
    """

    server: PyTree
    pulled: PyTree
    versions: jax.Array
    waiting: jax.Array
    clients: PyTree
    codec: PyTree
    turns: jax.Array
    event: jax.Array


class AsyncEngine(NamedTuple):
    """A way to run an asynchronous server.

    Attributes:
      init: ``(params) -> AsyncState``.
      run: ``(state, data, key, events) -> (state, metrics)``: follows the next ``events`` arrivals
        in one compiled program, and gives up the buffers of ``state``. ``key`` is that of the whole
        run, so it may be cut anywhere. Metrics are ``[events]``: those of the client's training,
        ``staleness``, and ``taken``, whether the server took the update.
    """

    init: Callable[..., AsyncState]
    run: Callable[..., tuple[AsyncState, dict]]


def asynchronous(
    algorithm: FederatedAlgorithm,
    server: AsyncServer,
    index: ClientIndex,
    arrivals: Arrivals,
    *,
    steps: int,
    batch: int,
    codec: Codec | None = None,
) -> AsyncEngine:
    """Makes the engine of asynchronous training.

    A client trains from the model that was published when its turn began, and is heard when its
    turn ends; updates that come at the same instant are all taken before any next turn begins.
    Lost updates and duplicates change nothing but the client's own position in its data. Memory
    holds one model for each turn under way.

    Args:
      algorithm: trains the clients; of it only ``client_init``, ``local_update`` and ``upload`` are
        used, so algorithms whose broadcast is the model, such as `fedavg` and `fedprox`.
      server: what the server does with an update.
      index: samples of each client.
      arrivals: what happens when, from `tiers.arrivals`.
      steps: local steps of a turn.
      batch: samples of a step.
      codec: what uploads pass on their way up; identity if None.

    Returns:
      The engine.

    Raises:
      ValueError: a number is below 1, or an arrival is of a client that does not exist.

    References:
      Xie, Koyejo and Gupta, Asynchronous Federated Optimization, 2019. Nguyen et al., Federated
      Learning with Buffered Asynchronous Aggregation, 2022.
    """
    for field, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{field} must be at least 1, got {value!r}")
    clients, concurrency = len(index.counts), int(arrivals.slot.max()) + 1
    if arrivals.client.max() >= clients:
        raise ValueError(
            f"arrivals are of client {arrivals.client.max()}, but there are only {clients}"
        )
    codec = identity() if codec is None else codec
    table, counts = jnp.asarray(index.table, jnp.int32), jnp.asarray(index.counts, jnp.int32)
    # Turns begin only after the last event of an instant.
    last = np.append(np.diff(arrivals.time_s) > 0, True)
    alone = last & np.append(True, last[:-1])
    events = (
        jnp.asarray(arrivals.client),
        jnp.asarray(arrivals.slot),
        jnp.asarray(~(arrivals.lost | arrivals.duplicate)),
        jnp.asarray(~arrivals.duplicate),
        jnp.asarray(np.where(alone, 1, np.where(last, 2, 0)), jnp.int32),
    )

    def init(params):
        state = server.init(params)

        def stack(own, n):
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), own)

        # Copies: the buffers are given up, and not only once.
        return jax.tree.map(
            jnp.array,
            AsyncState(
                state,
                stack(server.broadcast(state), concurrency),
                jnp.full(concurrency, server.version(state), jnp.int32),
                jnp.zeros(concurrency, bool),
                stack(algorithm.client_init(params), clients),
                stack(codec.init(algorithm.upload(params)), clients),
                jnp.zeros(clients, jnp.int32),
                jnp.zeros((), jnp.int32),
            ),
        )

    def follow(state, event, data, key):
        client, slot, heard, trained, begin = event
        # The same streams as in `clients.train_clients`: equal clients are then those of `flat`.
        order_key, local_key, codec_key, _ = jax.random.split(jax.random.fold_in(key, client), 4)
        turn = state.turns[client]

        def train(state):
            pulled = jax.tree.map(lambda x: x[slot], state.pulled)
            own, sent = jax.tree.map(lambda x: x[client], (state.clients, state.codec))
            rows = client_batches(
                order_key, table[client], counts[client], turn * steps, steps, batch
            )
            upload, own, metrics = algorithm.local_update(
                pulled,
                own,
                jax.tree.map(lambda a: a[rows], data),
                jax.random.fold_in(local_key, turn * steps),
            )
            sent, payload = codec.encode(sent, upload, jax.random.fold_in(codec_key, turn * steps))
            staleness = server.version(state.server) - state.versions[slot]
            new = server.receive(
                state.server, pulled, codec.decode(payload), counts[client], staleness
            )
            taken = heard & (counts[client] > 0) & _finite(payload)
            new = jax.tree.map(lambda n, o: jnp.where(taken, n, o), new, state.server)
            clients, sent = jax.tree.map(
                lambda a, x: a.at[client].set(x), (state.clients, state.codec), (own, sent)
            )
            state = state._replace(
                server=new,
                waiting=state.waiting.at[slot].set(True),
                clients=clients,
                codec=sent,
                turns=state.turns.at[client].add(1),
            )
            return state, metrics | {"staleness": staleness, "taken": taken}

        like = jax.eval_shape(train, state)[1]
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), like)
        state, metrics = jax.lax.cond(trained, train, lambda s: (s, nothing), state)

        def one(state):
            model = server.broadcast(state.server)
            return jax.tree.map(lambda a, m: a.at[slot].set(m), state.pulled, model)

        def all_(state):
            model = server.broadcast(state.server)

            def put(a, m):
                return jnp.where(state.waiting.reshape(-1, *[1] * m.ndim), m, a)

            return jax.tree.map(put, state.pulled, model)

        # A single slot, as nearly always, is one copy of the model and not as many as there are.
        begin = jnp.where(state.waiting.any(), begin, 0)
        pulled = jax.lax.switch(begin, [lambda s: s.pulled, one, all_], state)
        fresh = state.waiting & (begin > 0)
        state = state._replace(
            pulled=pulled,
            versions=jnp.where(fresh, server.version(state.server), state.versions),
            waiting=state.waiting & (begin == 0),
            event=state.event + 1,
        )
        return state, metrics

    def run(state, data, key, count):
        def step(state, _):
            return follow(state, jax.tree.map(lambda e: e[state.event], events), data, key)

        return jax.lax.scan(step, state, length=count)

    compiled = jax.jit(run, static_argnums=3, donate_argnums=0)

    def checked(state, data, key, events=1):
        left = len(arrivals.time_s) - int(state.event)
        if not 1 <= events <= left:
            raise ValueError(f"events must be in [1, {left}], what is left, got {events}")
        return compiled(state, data, key, events)

    return AsyncEngine(init, checked)


def _finite(tree: PyTree) -> jax.Array:
    """Tells whether all floating-point numbers are finite; a client that diverged is not heard."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))
