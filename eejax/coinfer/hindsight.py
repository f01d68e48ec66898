"""What exits would have done, told afterwards from the answers of all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def leave_at(scores: Any, thresholds: Sequence[float]) -> np.ndarray:
    """Finds the first exit at which a sample is sure enough, else the last.

    Args:
      scores: ``[exits, n]``; a sample leaves where its score is at most the threshold.
      thresholds: one for each exit but the last.

    Returns:
      Exit index ``[n]``.

    Raises:
      ValueError: there is not one threshold for each exit but the last.

    Example:
      >>> leave_at([[0.1, 0.9, 0.9], [0.1, 0.2, 0.9], [0.0, 0.0, 0.0]], [0.5, 0.5]).tolist()
      [0, 1, 2]
    """
    scores = np.asarray(scores)
    if len(thresholds) != len(scores) - 1:
        raise ValueError(
            f"thresholds must have {len(scores) - 1} entries, one for each exit but the last; "
            f"got {len(thresholds)}"
        )
    leave = np.ones(scores.shape, bool)
    leave[:-1] = scores[:-1] <= np.asarray(thresholds)[:, None]
    return leave.argmax(0)


def at_exit(values: Any, exit_index: Any) -> np.ndarray:
    """Takes for every sample what belongs to its exit.

    Args:
      values: ``[exits, n, ...]``, such as logits, or whether the answers are correct.
      exit_index: ``[n]``.

    Returns:
      ``[n, ...]``.

    Example:
      >>> at_exit([[1, 2, 3], [10, 20, 30]], [0, 1, 0]).tolist()
      [1, 20, 3]
    """
    values = np.asarray(values)
    return values[np.asarray(exit_index), np.arange(values.shape[1])]
