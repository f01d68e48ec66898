"""Robust aggregation and attacks: rounds whose uploads the server sees one by one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eejax.core import FederatedAlgorithm
from eejax.protect import Aggregator, attacks, mean

PyTree = Any

_SERVER = np.iinfo(np.int32).max - 1  # Folded into the key of the run; no client has this number.


class Adversaries(NamedTuple):
    """Clients that attack.

    Attributes:
      attack: one of `protect.attacks`.
      clients: bool ``[clients]``, who takes part in it, by number of the client.
    """

    attack: attacks.Attack
    clients: Any


class Robust(NamedTuple):
    """The server's side of robust aggregation.

    Attributes:
      init: ``(params) -> state`` of the aggregator.
      mean: ``(state, sent, ids, sums, population, key, places=None) -> (upload, state of the
        aggregator)`` for a `FederatedState`, what was sent, ``ids`` shaped as its weights, and what
        `mean_upload` takes. Only the first ``places`` uploads count.
    """

    init: Callable[[PyTree], PyTree]
    mean: Callable[..., tuple[PyTree, PyTree]]


def make_robust(
    algorithm: FederatedAlgorithm,
    aggregator: Aggregator | None,
    attack: Adversaries | None,
    mesh: Mesh,
) -> Robust | None:
    """Makes the server's side of robust aggregation.

    An aggregator tells what the clients that took part want. Parts of an upload that the algorithm
    divides by the population are scaled down to that, so the mean as an aggregator is the mean of
    the engines.

    Args:
      algorithm: a federated algorithm.
      aggregator: the mean if None.
      attack: none if None.
      mesh: a mesh over ``("edge", "end")``.

    Returns:
      It, or None without aggregator and attack.

    Raises:
      ValueError: the algorithm weighs parts of its uploads by samples and others not, or adds
        noise that is made for a mean.
    """
    if aggregator is None and attack is None:
        return None
    ways = set(jax.tree.leaves(algorithm.weighting))
    if "samples" in ways and len(ways) > 1:
        raise ValueError(
            "an aggregator has one weight for each client, but the weighting of the algorithm has "
            f"{', '.join(sorted(ways))}"
        )
    aggregator = mean() if aggregator is None else aggregator
    if algorithm.every_round and not aggregator.linear:
        raise ValueError(
            "an algorithm that acts in every round, such as user-level privacy, adds noise that is "
            "made for a mean, which no client moves further than its upload; leave out aggregator"
        )

    def init(params):
        return jax.tree.map(jnp.array, aggregator.init(algorithm.upload(params)))

    def robust_mean(state, sent, ids, sums, population, key, places=None):
        everywhere = NamedSharding(mesh, PartitionSpec())
        # Every device needs all uploads; stated, or each aggregator would gather what it wants.
        uploads, weights, ids = jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(
                x.reshape(-1, *x.shape[2:])[:places], everywhere
            ),
            (*sent, ids),
        )
        round_key = jax.random.fold_in(jax.random.fold_in(key, _SERVER), state.steps)
        attack_key, prepare_key = jax.random.split(round_key)
        if attack is not None:
            who = jnp.asarray(attack.clients, bool).at[ids].get(mode="fill", fill_value=False)
            attackers = who & (ids >= 0)
            uploads = attack.attack(uploads, weights, attackers, attack_key)
        kept = aggregator.prepare(state.aggregator, algorithm.broadcast(state.server), prepare_key)
        kept, upload = aggregator.aggregate(kept, uploads, weights)
        share = sums.clients / jnp.maximum(population, 1)

        def scale(how, part):
            if how != "population":
                return part
            return jax.tree.map(lambda x: share.astype(x.dtype) * x, part)

        upload = jax.tree.map(scale, algorithm.weighting, upload)
        some = sums.weight > 0
        kept = jax.tree.map(lambda n, o: jnp.where(some, n, o), kept, state.aggregator)
        return upload, kept

    return Robust(init, robust_mean)
