"""DRFA: the global model is to serve the worst mixture of the clients, not their average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.clients import ClientStack, check, train_clients
from eejax.cotrain.federated.cohort import fill_up, rows_of_cohort
from eejax.cotrain.federated.flat import Engine, FederatedState
from eejax.cotrain.federated.local import GradFn, take_steps
from eejax.cotrain.federated.rows import replicate
from eejax.cotrain.federated.samplers import Cohort, uniform
from eejax.cotrain.federated.sums import mean_upload, metrics_of, sum_up
from eejax.data import client_batches
from eejax.tiers import EDGE, END, cast_varying
from eejax.wire import identity

PyTree = Any

_ROUND = np.iinfo(np.int32).max  # Folded into the key of the run; no client has this number.


class DrfaState(NamedTuple):
    """What the server keeps.

    Attributes:
      params: the global model w.
      mixture: lambda, weights of the clients on the simplex, ``[clients]``.
    """

    params: PyTree
    mixture: jax.Array


class DrfaUpload(NamedTuple):
    """What a client sends: twice the bytes of FedAvg.

    Attributes:
      params: change of the model after all steps.
      snapshot: change of the model after the ``t'``-th step.
    """

    params: PyTree
    snapshot: PyTree


def drfa(
    grad_fn: GradFn,
    client_opt: optax.GradientTransformation,
    mesh: Mesh,
    *,
    size: int,
    steps: int,
    batch: int,
    lr: float,
    clients: str = "auto",
) -> Engine:
    """Makes the engine of distributionally robust federated averaging.

    It solves ``min_w max_lambda sum_i lambda_i f_i(w)``. In a round the server draws ``size``
    clients by lambda, with replacement, which take ``steps`` local steps from w; w becomes the mean
    of their models. They also send their models after step t', which is random and the same for
    all. Another ``size`` clients, drawn uniformly, say the losses ``f_i`` of the mean of these
    snapshots on a batch, and the server takes a step of ascent,
    ``lambda <- projection(lambda + steps lr v)`` with ``v_i = clients / size f_i``, 0 for others.

    Lambda begins uniform over the clients that have samples, and stays 0 for those that have none.

    Args:
      grad_fn: gradient of the loss on one batch; its metrics must hold the loss as ``"loss"``.
      client_opt: optimiser of the clients.
      mesh: a mesh over ``("edge", "end")``.
      size: clients of a cohort, m.
      steps: local steps of a round, the paper's tau.
      batch: samples of a step.
      lr: learning rate of lambda, the paper's gamma.
      clients: order of the clients on one device, see `clients.chunk_size`.

    Returns:
      The engine; its rows are those of `population`, its metrics those of ``grad_fn`` over the
      cohort.

    Raises:
      ValueError: the order of the clients is unknown, or size or steps are below 1.

    References:
      Deng, Kamani and Mahdavi, Distributionally Robust Federated Averaging, 2020; algorithm 1.
    """
    algorithm = _local_training(grad_fn, client_opt)
    check(algorithm, steps, clients)
    choose_evenly = uniform(size)
    tiers, everywhere = PartitionSpec(EDGE, END), PartitionSpec()

    def init(params, rows):
        some = jnp.asarray(rows.counts[0]) > 0
        server = DrfaState(jax.tree.map(jnp.array, params), some / some.sum())
        return FederatedState(
            *replicate(mesh, (server, ClientStack((), ()), (), jnp.zeros((), jnp.int32)))
        )

    def train(sent, start, rows, data, key):
        broadcast = jax.tree.map(lambda x: x[None], sent)
        sums, _ = train_clients(
            algorithm, identity(), cast_varying(broadcast, (EDGE, END)), ClientStack((), ()), rows,
            data, start, key, steps=steps, batch=batch, order=clients, gaps=True,
        )  # fmt: skip
        return sum_up(sums)[0]

    def losses(params, start, rows, data, key):
        params = cast_varying(params, (EDGE, END))

        def loss(row):
            order_key, grad_key = jax.random.split(jax.random.fold_in(key, row.ids))
            picked = client_batches(order_key, row.table, row.counts, start, 1, batch)[0]
            # The gradient is not used, so it is not computed.
            _, metrics = grad_fn(params, jax.tree.map(lambda a: a[picked], data), grad_key)
            said = (row.counts > 0) & jnp.isfinite(metrics["loss"])
            return jnp.where(said, metrics["loss"], 0)

        return jax.lax.map(loss, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows))

    def mapped(fn, out_specs):
        specs = (everywhere, everywhere, tiers, everywhere, everywhere)
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=out_specs)

    train, losses = mapped(train, everywhere), mapped(losses, PartitionSpec((EDGE, END)))

    def round_(state, rows, data, key):
        (w, mixture), start = state.server, state.steps
        n = len(mixture)
        round_key = jax.random.fold_in(jax.random.fold_in(key, _ROUND), start)
        by_mixture, when, evenly, batch_key = jax.random.split(round_key, 4)

        drawn = jax.random.choice(by_mixture, n, (size,), p=mixture).astype(jnp.int32)
        cohort = fill_up(Cohort(drawn, jnp.ones(size, bool)), mesh, n)
        snapshot_at = jax.random.randint(when, (), 1, steps + 1)
        sums = train((w, snapshot_at), start, rows_of_cohort(rows, cohort, mesh), data, key)
        mean = mean_upload(algorithm, sums, sums.clients)

        others = fill_up(choose_evenly(evenly, start, rows.counts[0]), mesh, n)
        f = losses(
            trees.add(w, mean.snapshot), start, rows_of_cohort(rows, others, mesh), data, batch_key
        )
        v = jnp.zeros(n).at[others.clients].set(n / size * f, mode="drop")
        ascended = jnp.where(rows.counts[0] > 0, mixture + steps * lr * v, -jnp.inf)
        server = DrfaState(trees.add(w, mean.params), project_simplex(ascended))
        new = FederatedState(server, ClientStack((), ()), (), start + steps)
        return new, metrics_of(sums)

    def run(state, rows, data, key, rounds=1):
        return jax.lax.scan(lambda s, _: round_(s, rows, data, key), state, length=rounds)

    compiled = jax.jit(
        run,
        static_argnames="rounds",
        donate_argnums=0,
        out_shardings=NamedSharding(mesh, everywhere),
    )
    return Engine(init, compiled)


def project_simplex(x: jax.Array) -> jax.Array:
    """Finds the nearest point whose entries are >= 0 and sum to 1.

    Args:
      x: ``[n]``; where it is minus infinity the result is 0.

    Returns:
      ``[n]``.

    References:
      Duchi et al., Efficient Projections onto the l1-Ball for Learning in High Dimensions, 2008.

    Example:
      >>> project_simplex(jnp.array([0.75, 1.25, -3.0])).tolist()
      [0.25, 0.75, 0.0]
    """
    falling = -jnp.sort(-x)
    finite = jnp.where(jnp.isfinite(falling), falling, 0)
    thresholds = (jnp.cumsum(finite) - 1) / jnp.arange(1, x.size + 1)
    last = (falling > thresholds).sum() - 1
    return jnp.maximum(x - thresholds[last], 0)


def _local_training(
    grad_fn: GradFn, client_opt: optax.GradientTransformation
) -> FederatedAlgorithm:
    """Makes what the clients do; the server's side is the engine's."""

    def local_update(broadcast, client_state, batches, key, tau=None):
        start, snapshot_at = broadcast

        def step(carry, batch, step_key):
            w, opt_state, snapshot, t = carry
            grads, metrics = grad_fn(w, batch, step_key)
            updates, opt_state = client_opt.update(grads, opt_state, w)
            w = optax.apply_updates(w, updates)
            t = t + 1
            snapshot = jax.tree.map(lambda s, w: jnp.where(t == snapshot_at, w, s), snapshot, w)
            return (w, opt_state, snapshot, t), metrics

        carry = (start, client_opt.init(start), start, jnp.zeros((), jnp.int32))
        (w, _, snapshot, _), metrics = take_steps(step, carry, batches, key, tau)
        return DrfaUpload(trees.sub(w, start), trees.sub(snapshot, start)), client_state, metrics

    return FederatedAlgorithm(
        init=lambda params: params,
        client_init=lambda params: (),
        local_update=local_update,
        server_update=lambda state, mean: state,
        broadcast=lambda state: state,
        weighting="uniform",
        by_steps=True,
    )
