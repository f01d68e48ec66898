"""Shamir's secret sharing over the prime field of 2^255 - 19."""

import secrets
from collections.abc import Callable, Mapping, Sequence

PRIME = 2**255 - 19
"""Secrets, shares and keys are integers below it, 32 bytes each."""


def share(
    secret: int,
    holders: int,
    threshold: int,
    randbelow: Callable[[int], int] = secrets.randbelow,
) -> list[int]:
    """Splits a secret so that any ``threshold`` shares give it back and fewer say nothing.

    The shares are the values at 1, 2, ... of a random polynomial of degree ``threshold - 1`` whose
    value at 0 is the secret.

    Args:
      secret: an integer in [0, PRIME).
      holders: number of shares.
      threshold: shares that are needed.
      randbelow: gives random integers below its argument.

    Returns:
      The shares of holders 1, 2, ...

    Raises:
      ValueError: the threshold or the secret is out of range.

    References:
      Shamir, How to Share a Secret, 1979.

    Example:
      >>> shares = share(42, holders=3, threshold=2, randbelow=lambda most: 10)
      >>> shares
      [52, 62, 72]
      >>> combine({1: 52, 3: 72}, threshold=2)
      42
    """
    if not 1 <= threshold <= holders:
        raise ValueError(f"threshold must be in [1, holders = {holders}], got {threshold!r}")
    if not 0 <= secret < PRIME:
        raise ValueError("secret must be in [0, 2**255 - 19)")
    coefficients = [secret, *(randbelow(PRIME) for _ in range(threshold - 1))]

    def value(x: int) -> int:
        total = 0
        for c in reversed(coefficients):
            total = (total * x + c) % PRIME
        return total

    return [value(x) for x in range(1, holders + 1)]


def combine(shares: Mapping[int, int], threshold: int) -> int:
    """Recovers a secret.

    Args:
      shares: by holder, counted from 1; of more than ``threshold`` the first count.
      threshold: shares that are needed.

    Returns:
      The secret.

    Raises:
      ValueError: there are too few shares.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares are fewer than the threshold of {threshold}")
    holders = list(shares)[:threshold]
    return sum(w * shares[i] for i, w in zip(holders, weights_at_zero(holders))) % PRIME


def weights_at_zero(holders: Sequence[int]) -> list[int]:
    """Gives Lagrange's weights of the shares of these holders for the value at 0.

    Args:
      holders: counted from 1, each once.

    Returns:
      As many weights.

    Example:
      >>> [w if w < 100 else w - PRIME for w in weights_at_zero([1, 2, 3])]
      [3, -3, 1]
    """
    weights = []
    for i in holders:
        above, below = 1, 1
        for j in holders:
            if j != i:
                above, below = above * j % PRIME, below * (j - i) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights
