"""What a model forgets and gains over a sequence of tasks, and what an update wins back.

All but `recovered` read an accuracy matrix ``R [tasks, tasks]``: ``R[t, i]`` is the test accuracy
on task ``i`` after training on task ``t``.
"""

from typing import Any

import numpy as np


def average_accuracy(R: Any) -> float:
    """Averages the accuracy on all tasks after the last one.

    Args:
      R: accuracies ``[tasks, tasks]``; only the last row is read.

    Returns:
      The mean of ``R[-1]``.

    Raises:
      ValueError: ``R`` is not square.

    References:
      Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, 2017.

    Example:
      >>> average_accuracy([[0.9, 0.1], [0.6, 0.8]])
      0.7
    """
    return float(_square(R)[-1].mean())


def forgetting(R: Any) -> float:
    """Averages, over all tasks but the last, the best accuracy there ever was minus the final one.

    ``mean_i (max_{t < T} R[t, i] - R[T, i])`` for tasks ``i < T``. Negative when later tasks
    helped. One task alone cannot be forgotten: 0.

    Args:
      R: accuracies ``[tasks, tasks]``; the last column is not read.

    Returns:
      Forgetting in [-1, 1]; lower is better.

    Raises:
      ValueError: ``R`` is not square.

    References:
      Chaudhry, Dokania, Ajanthan and Torr, Riemannian Walk for Incremental Learning, 2018.

    Example:
      >>> forgetting([[0.75, 0.0], [0.5, 1.0]])
      0.25
    """
    R = _square(R)
    return _mean(R[:-1, :-1].max(axis=0, initial=-np.inf) - R[-1, :-1])


def backward_transfer(R: Any) -> float:
    """Averages, over all tasks but the last, the final accuracy minus the one just after training.

    ``mean_i (R[T, i] - R[i, i])``; negative when training on later tasks hurt. One task: 0.

    Args:
      R: accuracies ``[tasks, tasks]``; the diagonal and the last row are read.

    Returns:
      Backward transfer in [-1, 1]; higher is better.

    Raises:
      ValueError: ``R`` is not square.

    References:
      Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, 2017.

    Example:
      >>> backward_transfer([[0.75, 0.0], [0.5, 1.0]])
      -0.25
    """
    R = _square(R)
    return _mean((R[-1] - R.diagonal())[:-1])


def forward_transfer(R: Any, b: Any) -> float:
    """Averages, over all tasks but the first, what earlier tasks gave before training on it.

    ``mean_i (R[i - 1, i] - b[i])``; positive when earlier tasks help. One task: 0.

    Args:
      R: accuracies ``[tasks, tasks]``; the diagonal above the main one is read.
      b: accuracies ``[tasks]`` of the untrained model.

    Returns:
      Forward transfer in [-1, 1]; higher is better.

    Raises:
      ValueError: ``R`` is not square, or ``b`` is not as long.

    References:
      Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, 2017.

    Example:
      >>> forward_transfer([[0.75, 0.25], [0.5, 1.0]], b=[0.0, 0.125])
      0.125
    """
    R, b = _square(R), np.asarray(b, float)
    if b.shape != R.shape[:1]:
        raise ValueError(f"b must be [{len(R)}], one accuracy a task; got shape {b.shape}")
    return _mean(R.diagonal(1) - b[1:])


def recovered(before: Any, drifted: Any, after: Any) -> Any:
    """Tells which share of the cost of a drift an update wins back.

    ``(after - drifted) / (before - drifted)``. All of it is 1, and none is 0. It is not clipped:
    above 1 the updated model is better than before the drift, below 0 the update did harm. NaN
    where the drift cost nothing (``drifted >= before``), as there is nothing to win back. Small
    costs make it noisy; state the three accuracies beside it.

    Args:
      before: accuracy before the drift.
      drifted: accuracy of the same model on the drifted data.
      after: accuracy of the updated model on the drifted data. All three may be arrays.

    Returns:
      The share, in the broadcast shape.

    Example:
      >>> float(recovered(before=0.75, drifted=0.25, after=0.5))
      0.5
    """
    before, drifted, after = (np.asarray(x, float) for x in (before, drifted, after))
    cost = np.where(before > drifted, before - drifted, np.nan)
    return (after - drifted) / cost


def _square(R: Any) -> np.ndarray:
    R = np.asarray(R, float)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or R.size == 0:
        raise ValueError(f"R must be [tasks, tasks], got shape {R.shape}")
    return R


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
