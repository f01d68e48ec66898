"""Evaluation of the global model on a test set; for single clients see `cotrain.personal`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from eejax.tiers import EDGE, END, cast_varying

PyTree = Any


class Score(NamedTuple):
    """A metric as a sum and a weight, which add up exactly over any parts of a test set.

    Attributes:
      total: sum over the samples, f32, a scalar or ``[clients]`` in the order of their numbers.
      weight: number of samples, f32, of the same shape; 0 for clients without any, and for those
        that only fill up the rows.
    """

    total: jax.Array
    weight: jax.Array


def evaluator(
    metric_fn: Callable[[PyTree, PyTree], dict], mesh: Mesh, *, at_once: int = 256
) -> Callable[[PyTree, PyTree], dict[str, Score]]:
    """Makes the evaluation of a model: one compiled program, the samples shared out to the devices.

    Args:
      metric_fn: ``(params, samples) -> {name: [samples]}``, such as whether each is recognised.
      mesh: a mesh over ``("edge", "end")``.
      at_once: samples that a device judges at the same time.

    Returns:
      ``evaluate(params, data) -> {name: Score}`` for samples ``[n, ...]``; what fills up the last
      batch counts nowhere, be it NaN.

    Raises:
      ValueError: ``at_once`` is below 1.

    Example:
      >>> from eejax.tiers import tier_mesh
      >>> evaluate = evaluator(lambda w, x: {"above": x > w}, tier_mesh(1, 1), at_once=2)
      >>> total, weight = evaluate(jnp.array(1.5), jnp.array([1.0, 2.0, 3.0]))["above"]
      >>> float(total), float(weight)
      (2.0, 3.0)
    """
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once!r}")
    everywhere, shared_out = PartitionSpec(), PartitionSpec((EDGE, END))

    def block(params, data, positions, real):
        params, data = cast_varying((params, data), (EDGE, END))

        def judge(xs):
            position, is_real = xs
            values = metric_fn(params, jax.tree.map(lambda a: a[position], data))
            return jax.tree.map(lambda v: jnp.where(is_real, v, 0).sum(dtype=jnp.float32), values)

        totals = jax.lax.map(judge, (positions, real))
        return jax.lax.psum(jax.tree.map(lambda v: v.sum(0), totals), (EDGE, END))

    def evaluate(params, data):
        n = len(jax.tree.leaves(data)[0])
        places = n + -n % (at_once * mesh.size)
        positions = jnp.arange(places, dtype=jnp.int32).reshape(-1, at_once)
        totals = jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(everywhere, everywhere, shared_out, shared_out),
            out_specs=everywhere,
        )(params, data, jnp.minimum(positions, n - 1), positions < n)
        return {name: Score(total, jnp.float32(n)) for name, total in totals.items()}

    return jax.jit(evaluate)
