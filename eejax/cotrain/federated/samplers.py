"""Who takes part in a round: a cohort drawn from all clients, inside the compiled program."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Cohort(NamedTuple):
    """The clients of a round, each at most once.

    Attributes:
      clients: int32 ``[size]``, rows of clients; the number of all clients where nobody is.
      present: bool ``[size]``.
    """

    clients: jax.Array
    present: jax.Array


Sampler = Callable[[jax.Array, jax.Array, jax.Array], Cohort]
"""``(key, round, counts [clients]) -> Cohort``: a new key every round, rounds count from 0."""


def uniform(size: int) -> Sampler:
    """Draws cohorts of equal size, every subset of the clients with the same probability.

    By Floyd's method, which touches only the cohort: a round costs the same for any number of
    clients.

    Args:
      size: clients in a cohort.

    Returns:
      The sampler. It raises ValueError when there are fewer clients.

    References:
      Bentley and Floyd, Programming Pearls: A Sample of Brilliance, 1987.

    Example:
      >>> clients, present = uniform(3)(jax.random.key(0), jnp.array(0), jnp.ones(100))
      >>> len(set(clients.tolist())), bool(present.all())
      (3, True)
    """
    _check_size(size)

    def sample(key, round_, counts):
        del round_
        (n,) = counts.shape
        _check_fits(size, n)
        last = n - size + jnp.arange(size)
        draws = jax.random.randint(key, (size,), 0, last + 1)

        def pick(i, chosen):
            taken = (chosen == draws[i]).any()
            return chosen.at[i].set(jnp.where(taken, last[i], draws[i]))

        chosen = jax.lax.fori_loop(0, size, pick, jnp.full(size, -1, jnp.int32))
        return Cohort(chosen, jnp.ones(size, bool))

    return sample


def weighted(size: int, weights: Any = None) -> Sampler:
    """Draws cohorts of equal size, one client after the other with probability by weight.

    Without replacement, by the largest of ``log(weight) + Gumbel noise``; a round touches the
    weights of all clients. With weights by samples, let the algorithm count clients alike
    (``algorithm._replace(weighting="uniform")``), or large ones count twice.

    Args:
      size: clients in a cohort.
      weights: ``[clients]``, >= 0; the numbers of samples if None. Clients of weight 0 never come.

    Returns:
      The sampler.

    References:
      Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, 2006.

    Example:
      >>> sample = weighted(2, weights=[0.0, 1.0, 3.0])
      >>> sorted(sample(jax.random.key(0), jnp.array(0), jnp.ones(3)).clients.tolist())
      [1, 2]
    """
    _check_size(size)

    def sample(key, round_, counts):
        del round_
        w = jnp.asarray(counts if weights is None else weights, jnp.float32)
        return _largest(size, jnp.log(w) + jax.random.gumbel(key, w.shape))

    return sample


def available(size: int, trace: Any) -> Sampler:
    """Draws from the clients that are there, uniformly; all of them when they are too few.

    Args:
      size: clients in a cohort at most.
      trace: bool ``[rounds, clients]``, who is there; begins again at its end.

    Returns:
      The sampler; a round touches one row of the trace.

    Raises:
      ValueError: the trace is not two-dimensional.

    Example:
      >>> sample = available(2, trace=[[True, False, False], [False, True, True]])
      >>> cohort = sample(jax.random.key(0), jnp.array(2), jnp.ones(3))  # The first row again.
      >>> cohort.clients.tolist(), cohort.present.tolist()
      ([0, 3], [True, False])
    """
    _check_size(size)
    trace = np.asarray(trace, bool)
    if trace.ndim != 2:
        raise ValueError(f"trace must be [rounds, clients], got shape {trace.shape}")

    def sample(key, round_, counts):
        here = jnp.asarray(trace)[round_ % len(trace)]
        return _largest(size, jnp.where(here, jax.random.uniform(key, counts.shape), -jnp.inf))

    return sample


def poisson(rate: float) -> Sampler:
    """Draws every client on its own with the same probability, as accounts of privacy assume.

    The size of a cohort varies. There is room for so many that they suffice with all but a
    probability of 1e-18 (by Bernstein's inequality); empty places take no steps. Gaps between the
    clients are geometric, so a round touches only the cohort.

    Args:
      rate: probability of a client to take part, in (0, 1].

    Returns:
      The sampler.

    Raises:
      ValueError: the rate is no such probability.

    Example:
      >>> cohort = poisson(0.01)(jax.random.key(0), jnp.array(0), jnp.ones(1000))
      >>> cohort.present.shape, int(cohort.present.sum())
      ((56,), 11)
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate!r}")

    def sample(key, round_, counts):
        del round_
        (n,) = counts.shape
        mean, log = rate * n, math.log(1e18)
        most = min(n, math.ceil(mean + log / 3 + math.sqrt(log**2 / 9 + 2 * log * mean)))
        if rate == 1:
            return Cohort(jnp.arange(n, dtype=jnp.int32), jnp.ones(n, bool))
        noise = jax.random.uniform(key, (most,), minval=jnp.finfo(jnp.float32).tiny)
        gaps = jnp.floor(jnp.log(noise) / math.log1p(-rate))
        # The sum of all must not overflow; a gap beyond the last client ends the cohort anyway.
        steps = jnp.minimum(gaps, n).astype(jnp.int32) + 1
        chosen = jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, n + 1), steps) - 1
        return Cohort(chosen, chosen < n)

    return sample


def _largest(size: int, score: jax.Array) -> Cohort:
    (n,) = score.shape
    _check_fits(size, n)
    best, chosen = jax.lax.top_k(score, size)
    present = best > -jnp.inf
    return Cohort(jnp.where(present, chosen, n), present)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size!r}")


def _check_fits(size: int, clients: int) -> None:
    if size > clients:
        raise ValueError(f"a cohort of {size} cannot be drawn from {clients} clients")
