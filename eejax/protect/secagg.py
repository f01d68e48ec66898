"""Secure aggregation: the server learns the sum of the uploads and no single one.

The protocol of Bonawitz et al. with its real arithmetic, run on the host for all parties at once:
keys agreed in pairs, masks that cancel modulo 2^32, secrets shared after Shamir, and clients that
drop out after others have masked for them. It is a simulation, not cryptography: the group of
the keys is too small to be safe, masks come from Philox, a counter-based generator that is no
cipher, shares are not encrypted, and nobody signs. It shows what the sum, the dropouts and the
bytes are.
"""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax.protect.shamir import PRIME, combine, share

PyTree = Any

KEY_BYTES = 32
SHARE_BYTES = 32
ELEMENT_BYTES = 4

_GENERATOR = 2


class Traffic(NamedTuple):
    """Bytes of one round.

    Attributes:
      up: sent by each client, int64 ``[clients]``.
      down: received by each client, int64 ``[clients]``.
    """

    up: np.ndarray
    down: np.ndarray


class Secrets(NamedTuple):
    """What one client keeps for a round.

    Attributes:
      private: s^SK, the key that makes the masks of pairs.
      public: s^PK, what it tells everybody.
      seed: b, of the mask that is its own.
    """

    private: int
    public: int
    seed: int


def secure_sum(
    codes: PyTree,
    threshold: int,
    seed: int,
    *,
    sent: Any = None,
    answered: Any = None,
) -> tuple[PyTree, Traffic]:
    """Sums integers of many clients so that each of them stays hidden.

    1. Every client u tells a public key, and shares its private key and its own seed b_u.
    2. It sends ``y_u = x_u + PRG(b_u) + sum_{v>u} PRG(s_uv) - sum_{v<u} PRG(s_uv)`` mod 2^32.
    3. For whoever sent, the others reveal shares of the seed; for whoever dropped out, shares of
       the private key, never both. The server removes the masks and has the sum of those who sent.

    Args:
      codes: int32 ``[clients, ...]``, such as the codes of `fixed_point`.
      threshold: shares that restore a secret, more than half of the clients.
      seed: of the randomness of this round; a new one every round.
      sent: ``[clients]`` bool, who sends the masked codes; all if None.
      answered: ``[clients]`` bool, who also reveals shares; those who sent if None.

    Returns:
      The sum over the clients that sent, int32 ``[...]`` modulo 2^32, and the bytes.

    Raises:
      ValueError: too few clients answer, the threshold is out of range, or a leaf is not int32.

    References:
      Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, 2017.

    Example:
      >>> codes = np.array([[1, -2], [10, 20], [100, 200]], np.int32)
      >>> total, traffic = secure_sum(codes, threshold=2, seed=0, sent=[True, False, True])
      >>> total.tolist(), traffic.up.tolist()
      ([101, 198], [296, 192, 296])
    """
    vectors, unravel = _ravel(codes)
    n = len(vectors)
    check_threshold(threshold, n)
    sent = np.ones(n, bool) if sent is None else np.asarray(sent, bool)
    answered = sent if answered is None else np.asarray(answered, bool) & sent
    if answered.sum() < threshold:
        raise ValueError(
            f"{answered.sum()} of {n} clients answered, fewer than the threshold of {threshold}: "
            "the masks cannot be removed and the round is lost"
        )
    rng = np.random.Generator(np.random.Philox(seed))

    def randbelow(most: int) -> int:
        return int.from_bytes(rng.bytes(40), "big") % most

    keys = [_keys(randbelow) for _ in range(n)]
    public = [k.public for k in keys]
    of_private = [share(k.private, n, threshold, randbelow) for k in keys]
    of_seed = [share(k.seed, n, threshold, randbelow) for k in keys]

    total = np.zeros(vectors.shape[1], np.uint32)
    for u in np.flatnonzero(sent):
        total += mask(vectors[u], u, keys[u], public)

    helpers = [int(i) for i in np.flatnonzero(answered)]
    for u in range(n):
        shares = of_seed[u] if sent[u] else of_private[u]
        secret = combine({i + 1: shares[i] for i in helpers}, threshold)
        if sent[u]:
            total -= prg(secret, total.size)
        else:
            others = [int(v) for v in np.flatnonzero(sent)]
            # What the others masked with u, seen from u, is what cancels it.
            total += _pair_masks(u, secret, others, public, total.size)
    return unravel(total.view(np.int32)), _traffic(total.size, sent, answered)


def mask(vector: np.ndarray, u: int, keys: Secrets, public: list[int]) -> np.ndarray:
    """Hides what client u sends.

    Args:
      vector: int32 ``[elements]``.
      u: number of the client.
      keys: its secrets.
      public: public keys of all clients.

    Returns:
      uint32 ``[elements]``, which look random to who does not know the secrets.
    """
    others = [v for v in range(len(public)) if v != u]
    pairs = _pair_masks(u, keys.private, others, public, vector.size)
    return vector.view(np.uint32) + prg(keys.seed, vector.size) + pairs


def prg(seed: int, elements: int) -> np.ndarray:
    """Stretches a seed to uint32 ``[elements]``; Philox, so not for secrets that matter."""
    digest = hashlib.sha256(seed.to_bytes(32, "big")).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
    return np.random.Generator(bits).integers(0, 2**32, elements, np.uint32)


def secagg_nbytes(clients: int, elements: int) -> tuple[int, int]:
    """Counts the bytes of a client that stays until the end.

    With keys and shares of 32 bytes: up two public keys, two shares for each other client, the
    masked vector and one share of everybody; down two keys and two shares of each other client.

    Args:
      clients: clients of a round.
      elements: of an upload.

    Returns:
      Bytes up and bytes down.

    Example:
      >>> secagg_nbytes(clients=100, elements=10_000)
      (49600, 12672)
    """
    up, down = _traffic(elements, np.ones(clients, bool), np.ones(clients, bool))
    return int(up[0]), int(down[0])


def check_threshold(threshold: int, clients: int) -> None:
    """Refuses a threshold with which a server could ask two halves for both kinds of shares.

    Raises:
      ValueError: it is not above half of the clients, or it is above all.
    """
    if not clients / 2 < threshold <= clients:
        raise ValueError(
            f"threshold must be in [{clients // 2 + 1}, {clients}], more than half of the clients "
            f"and at most all, got {threshold!r}"
        )


def _keys(randbelow) -> Secrets:
    private = 1 + randbelow(PRIME - 1)
    return Secrets(private, pow(_GENERATOR, private, PRIME), randbelow(PRIME))


def _pair_masks(
    u: int, private: int, others: list[int], public: list[int], elements: int
) -> np.ndarray:
    total = np.zeros(elements, np.uint32)
    for v in others:
        pair = prg(pow(public[v], private, PRIME), elements)
        if v > u:
            total += pair
        else:
            total -= pair
    return total


def _traffic(elements: int, sent: np.ndarray, answered: np.ndarray) -> Traffic:
    n = len(sent)
    others = (n - 1) * 2
    up = 2 * KEY_BYTES + others * SHARE_BYTES
    up = up + elements * ELEMENT_BYTES * sent + n * SHARE_BYTES * answered
    down = np.full(n, others * (KEY_BYTES + SHARE_BYTES))
    return Traffic(up.astype(np.int64), down.astype(np.int64))


def _ravel(codes: PyTree):
    leaves, structure = jax.tree.flatten(codes)
    leaves = [np.asarray(x) for x in leaves]
    for x in leaves:
        if x.dtype != np.int32:
            raise ValueError(f"codes must be int32, got {x.dtype}; see eejax.protect.fixed_point")
    shapes = [x.shape[1:] for x in leaves]
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    vectors = np.concatenate([x.reshape(len(x), -1) for x in leaves], 1)

    def unravel(total):
        parts = np.split(total, ends[:-1])
        return structure.unflatten([p.reshape(s) for p, s in zip(parts, shapes)])

    return vectors, unravel
