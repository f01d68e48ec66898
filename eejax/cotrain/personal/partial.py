"""Partially local models: which weights are shared and which stay at a client."""

from collections.abc import Sequence
from typing import Any

import jax

from eejax import trees
from eejax.cotrain.federated.local import GradFn

PyTree = Any


def split_params(params: PyTree, local: Sequence[str]) -> tuple[PyTree, PyTree]:
    """Splits a model into what is shared and what is a client's own.

    Args:
      params: the model.
      local: regexes; a weight is local if one is found in its slash-joined path.

    Returns:
      The shared and the local part, each of the structure of ``params`` with None in the gaps; a
      None has no leaf, so nothing is sent or kept for it.

    Raises:
      ValueError: a regex matches no weight.

    Example:
      >>> split_params({"body": 1.0, "head": 2.0}, ["head"])
      ({'body': 1.0, 'head': None}, {'body': None, 'head': 2.0})
    """
    own = trees.match_rules([(regex, True) for regex in local], params, default=False)
    return (
        jax.tree.map(lambda is_own, x: None if is_own else x, own, params),
        jax.tree.map(lambda is_own, x: x if is_own else None, own, params),
    )


def join_params(shared: PyTree, own: PyTree) -> PyTree:
    """Joins what `split_params` has split.

    Args:
      shared: with None in the gaps.
      own: with None in the other gaps.

    Returns:
      The model.

    Example:
      >>> join_params({"body": 1.0, "head": None}, {"body": None, "head": 3.0})
      {'body': 1.0, 'head': 3.0}
    """
    return jax.tree.map(
        lambda a, b: b if a is None else a, shared, own, is_leaf=lambda x: x is None
    )


def head_gradient(grad_fn: GradFn, body: PyTree, local: Sequence[str]) -> GradFn:
    """Makes the gradient of the local weights alone.

    Args:
      grad_fn: gradient of all weights.
      body: the shared weights, fixed.
      local: regexes that choose the local weights.

    Returns:
      ``(head, batch, key) -> (grads, metrics)``.
    """

    def gradient(head, batch, key):
        grads, metrics = grad_fn(join_params(body, head), batch, key)
        return split_params(grads, local)[1], metrics

    return gradient


def body_gradient(grad_fn: GradFn, head: PyTree, local: Sequence[str]) -> GradFn:
    """Makes the gradient of the shared weights alone.

    Args:
      grad_fn: gradient of all weights.
      head: the local weights, fixed.
      local: regexes that choose the local weights.

    Returns:
      ``(body, batch, key) -> (grads, metrics)``.
    """

    def gradient(body, batch, key):
        grads, metrics = grad_fn(join_params(body, head), batch, key)
        return split_params(grads, local)[0], metrics

    return gradient
