"""What adversaries among the clients do, to test what stands against them.

An attack is a function ``(uploads [clients, ...], weights [clients], attackers [clients] bool, key)
-> uploads``. Attackers know the uploads of all others of the round, and work together.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp

from eejax.protect.aggregator import along

PyTree = Any

Attack = Callable[[PyTree, jax.Array, jax.Array, jax.Array], PyTree]


def label_flip(labels: jax.Array, attackers: jax.Array, classes: int) -> jax.Array:
    """Poisons data: attackers train class c as class ``classes - 1 - c``.

    Args:
      labels: ``[clients, ...]`` int.
      attackers: ``[clients]`` bool.
      classes: number of classes.

    Returns:
      Labels of the same shape.

    References:
      Biggio, Nelson and Laskov, Support Vector Machines under Adversarial Label Noise, 2011.
      Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, 2020.

    Example:
      >>> label_flip(jnp.array([[0, 9], [0, 9]]), jnp.array([True, False]), 10).tolist()
      [[9, 0], [0, 9]]
    """
    return jnp.where(along(attackers, labels), classes - 1 - labels, labels)


def sign_flip(scale: float = 1.0) -> Attack:
    """Attackers send ``-scale`` times their honest upload.

    Args:
      scale: length of the upload.

    Returns:
      The attack.

    Example:
      >>> attack = sign_flip(2.0)
      >>> attack(jnp.array([3.0, 1.0]), jnp.ones(2), jnp.array([True, False]), None).tolist()
      [-6.0, 1.0]
    """

    def attack(uploads, weights, attackers, key):
        del weights, key
        return jax.tree.map(lambda x: jnp.where(along(attackers, x), -scale * x, x), uploads)

    return attack


def gaussian(std: float) -> Attack:
    """Attackers send noise, each its own.

    Args:
      std: standard deviation of every element.

    Returns:
      The attack.

    References:
      Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
      2017.
    """

    def attack(uploads, weights, attackers, key):
        del weights
        leaves, structure = jax.tree.flatten(uploads)
        keys = jax.random.split(key, max(1, len(leaves)))
        return structure.unflatten(
            [
                jnp.where(along(attackers, x), std * jax.random.normal(k, x.shape, x.dtype), x)
                for x, k in zip(leaves, keys)
            ]
        )

    return attack


def a_little_is_enough(clients: int, f: int, z: float | None = None) -> Attack:
    """Colluding attackers all send ``mean - z std`` of the honest uploads, in every coordinate.

    So little that enough honest clients lie further out and hide them. ``z`` is then the largest
    for which the attackers and ``s = floor(n / 2 + 1) - f`` honest clients make a majority: the
    standard normal quantile of ``(n - f - s) / (n - f)``.

    Args:
      clients: uploads of a round, n.
      f: number of attackers.
      z: standard deviations to go; the largest that hides if None.

    Returns:
      The attack.

    Raises:
      ValueError: attackers are none or a majority, so that there is no such z.

    References:
      Baruch, Baruch and Goldberg, A Little Is Enough: Circumventing Defenses For Distributed
      Learning, 2019.

    Example:
      >>> attack, honest = a_little_is_enough(5, f=1, z=1.0), jnp.array([1.0, 3.0, 1.0, 3.0, 7.0])
      >>> attack(honest, jnp.ones(5), jnp.arange(5) == 4, None).tolist()
      [1.0, 3.0, 1.0, 3.0, 1.0]
    """
    if not 1 <= f < clients / 2:
        raise ValueError(f"f must be in [1, clients / 2), got f={f!r} of clients={clients!r}")
    s = clients // 2 + 1 - f
    z = NormalDist().inv_cdf((clients - f - s) / (clients - f)) if z is None else z

    def attack(uploads, weights, attackers, key):
        del key

        def collude(x):
            mean, std = _moments(x, weights, attackers)
            return jnp.where(along(attackers, x), (mean - z * std)[None], x)

        return jax.tree.map(collude, uploads)

    return attack


def inner_product(epsilon: float) -> Attack:
    """Attackers all send ``-epsilon`` times the mean of the honest uploads.

    With ``epsilon < 1`` they are shorter than the honest and pass any bound of the norm; rules that
    prefer what lies close together, such as Krum, prefer them.

    Args:
      epsilon: length, in means of the honest.

    Returns:
      The attack.

    References:
      Xie, Koyejo and Gupta, Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
      Manipulation, 2020.

    Example:
      >>> attack = inner_product(0.5)
      >>> attack(jnp.array([1.0, 3.0, 2.0]), jnp.ones(3), jnp.arange(3) == 2, None).tolist()
      [1.0, 3.0, -1.0]
    """

    def attack(uploads, weights, attackers, key):
        del key

        def collude(x):
            mean, _ = _moments(x, weights, attackers)
            return jnp.where(along(attackers, x), -epsilon * mean[None], x)

        return jax.tree.map(collude, uploads)

    return attack


def _moments(x: jax.Array, weights: jax.Array, attackers: jax.Array) -> tuple[Any, Any]:
    honest = along((weights > 0) & ~attackers, x)
    n = jnp.maximum(honest.sum(), 1)
    mean = jnp.where(honest, x, 0).sum(0) / n
    variance = jnp.where(honest, (x - mean[None]) ** 2, 0).sum(0) / n
    return mean, jnp.sqrt(variance)
