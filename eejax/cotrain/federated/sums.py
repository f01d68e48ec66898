"""Sums of what clients send, and what a server makes of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated.rows import Rows
from eejax.tiers import EDGE, END

PyTree = Any


class Sums(NamedTuple):
    """Weighted sums over the clients of each edge server, on one device.

    Attributes:
      upload: sum of the uploads, weighted as the algorithm says, ``[edges, ...]``; ``()`` when they
        are kept one by one.
      weight: sum of sample counts, ``[edges]``.
      clients: how many clients took part, f32 ``[edges]``.
      metrics: sum of sample count times metric, scalars.
      rejected: how many clients sent NaN or infinity and are in none of the sums, f32 ``[edges]``.
    """

    upload: PyTree
    weight: jax.Array
    clients: jax.Array
    metrics: dict[str, jax.Array]
    rejected: jax.Array


def finite(tree: PyTree) -> jax.Array:
    """Tells whether all floating-point numbers of a tree are finite.

    Args:
      tree: a pytree of arrays.

    Returns:
      A bool.

    Example:
      >>> [bool(finite({"w": jnp.array([1.0, x]), "n": jnp.array(7)})) for x in (2.0, jnp.nan)]
      [True, False]
    """

    def all_finite(x):
        x, rows = x.reshape(-1), x.size // 64
        # XLA on CPU vectorises a reduction over rows, and not that of a vector: 4 times faster.
        body, rest = x[: 64 * rows].reshape(rows, 64), x[64 * rows :]
        return jnp.isfinite(body).all(0).all() & jnp.isfinite(rest).all()

    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return functools.reduce(jnp.logical_and, map(all_finite, floats), True)


def sum_up(sums: Sums, *more: jax.Array) -> tuple[Any, ...]:
    """Adds up the sums of all edges on this device, and then of all devices; in `jax.shard_map`.

    Over ``end`` first and then over ``edge``, so the wide-area link carries one sum for each edge.

    Args:
      sums: ``[edges, ...]``.
      *more: other ``[edges, ...]``.

    Returns:
      All of them for one server.
    """
    here, *more = jax.tree.map(lambda x: x.sum(0), (sums._replace(metrics=()), *more))
    here = here._replace(metrics=sums.metrics)
    return jax.lax.psum(jax.lax.psum((here, *more), END), EDGE)


def metrics_of(sums: Sums) -> dict[str, jax.Array]:
    """Makes the metrics of a round.

    Args:
      sums: of one server.

    Returns:
      Means over samples, and how many clients were ``rejected``.
    """
    return mean_of(sums.metrics, sums.weight) | {"rejected": sums.rejected}


def serve(algorithm: FederatedAlgorithm, server: PyTree, mean: PyTree, sums: Sums) -> PyTree:
    """Lets the server act on a round.

    A round without any sample changes nothing, not even the optimiser of the server, unless the
    algorithm says otherwise.

    Args:
      algorithm: a federated algorithm.
      server: its state.
      mean: of the uploads.
      sums: of one server.

    Returns:
      The new state.
    """
    new = algorithm.server_update(server, mean)
    if algorithm.every_round:
        return new
    return jax.tree.map(lambda n, o: jnp.where(sums.weight > 0, n, o), new, server)


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
