"""What an exit rule is to be compared with: chance below it, and an oracle above it."""

from typing import Any

import jax
import numpy as np


def random_exit(exit_index: Any, key: jax.Array) -> np.ndarray:
    """Deals the exits of a rule out to the samples at random, the same number for each exit.

    What a rule gains over this comes from its choice of samples, not from how many leave.

    Args:
      exit_index: ``[n]``, where the rule let each sample leave.
      key: of the permutation.

    Returns:
      ``[n]``, a permutation of ``exit_index``.

    Example:
      >>> sorted(random_exit([0, 0, 1, 2], jax.random.key(0)).tolist())
      [0, 0, 1, 2]
    """
    exit_index = np.asarray(exit_index)
    return exit_index[np.asarray(jax.random.permutation(key, len(exit_index)))]


def random_exit_accuracy(correct: Any, exit_index: Any) -> float:
    """Averages the accuracy over all ways to deal out the exits, free of sampling noise.

    Args:
      correct: ``[exits, n]``, whether each exit answers each sample correctly.
      exit_index: ``[n]``, where the rule let each sample leave.

    Returns:
      The mean of the accuracy of `random_exit`: the accuracies of the exits, weighted by the
      fractions of samples that leave there.

    Example:
      >>> random_exit_accuracy([[1, 0, 0, 0], [1, 1, 1, 1]], [0, 0, 1, 1])  # 0.5 / 4 + 0.5.
      0.625
    """
    correct = np.asarray(correct, float)
    fractions = np.bincount(exit_index, minlength=len(correct)) / len(exit_index)
    return float(fractions @ correct.mean(1))


def oracle(correct: Any) -> np.ndarray:
    """Lets every sample leave at the first exit that is right, which takes the labels to know.

    An upper bound and not a policy: no rule over these exits is more accurate, and none as accurate
    lets more samples leave early. A sample that every exit gets wrong leaves at the first.

    Args:
      correct: ``[exits, n]``, whether each exit answers each sample correctly.

    Returns:
      Exit index ``[n]``.

    Example:
      >>> oracle([[1, 0, 0], [1, 1, 0]]).tolist()
      [0, 1, 0]
    """
    return np.asarray(correct, bool).argmax(0)
