import itertools
import random

import pytest

from eejax.protect.shamir import PRIME, combine, share


def test_any_threshold_shares_restore_the_secret_and_fewer_fit_any():
    randbelow = random.Random(0).randrange
    secret = randbelow(PRIME)
    shares = share(secret, holders=5, threshold=3, randbelow=randbelow)
    for chosen in itertools.combinations(range(1, 6), 3):
        assert combine({i: shares[i - 1] for i in chosen}, 3) == secret
    # Two shares leave every secret possible: a third can be made up for each.
    for other in (0, 1, secret):
        two = {1: shares[0], 2: shares[1]}
        # The parabola through other at 0 and both shares, evaluated at 3: f(3) = f0 - 3 f1 + 3 f2.
        two[3] = (other - 3 * shares[0] + 3 * shares[1]) % PRIME
        assert combine(two, 3) == other


def test_default_randomness_hides_and_restores():
    first, second = (share(7, holders=3, threshold=2) for _ in range(2))
    assert first != second
    assert combine({1: first[0], 3: first[2]}, 2) == 7


def test_errors():
    with pytest.raises(ValueError, match="1 shares are fewer than the threshold of 2"):
        combine({1: 5}, 2)
    with pytest.raises(ValueError, match="threshold must be in"):
        share(1, holders=2, threshold=3)
    with pytest.raises(ValueError, match="secret must be in"):
        share(PRIME, holders=2, threshold=2)
