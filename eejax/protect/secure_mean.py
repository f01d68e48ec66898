"""Secure mean: rounds in which the server sees masked uploads and learns their sum alone."""

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eejax.protect.aggregator import Aggregator, present
from eejax.protect.fixed_point import fixed_point

PyTree = Any
Empty = Literal["dropped", "nobody"]


def secure_mean(
    clients: int, limit: float = 1.0, least: int = 1, *, empty: Empty = "dropped"
) -> Aggregator:
    """Makes the mean of uploads as secure aggregation computes it, inside the compiled round.

    Client u multiplies its upload by its weight over the largest, rounds the elements and the
    weight to integers (`fixed_point`), and sends ``y_u = x_u + PRG(b_u) + sum_{v>u} PRG(s_uv) -
    sum_{v<u} PRG(s_uv)`` modulo 2^32, masked for all others of the round, since nobody knows yet
    who will drop out. The server adds what came, takes off the ``b_u`` of those who sent and the
    ``s_uv`` of those who did not, and divides the sum by the sum of the weights.

    Masks are those of a generator that is keyed for each pair and round. How clients agree on keys,
    share them, and how shares restore them is `secure_sum`, which finds the same sum: here the
    masks are known, as if enough shares had come. A round takes a mask as long as the upload for
    each pair of clients, so it is for cohorts of tens of clients.

    Elements beyond the limit are cut: a client that wants to be counted whole keeps its elements
    within it. The server cannot tell who sends NaN, so a client with any does not send.

    Args:
      clients: uploads of a round.
      limit: largest magnitude of an element.
      least: clients that must send, or the round is lost, as when too few shares are left to take
        off the masks: the upload is zero. See `secure_sum` on thresholds.
      empty: what clients of weight 0 are: ``"dropped"`` out after masks were agreed, or
        ``"nobody"``, as the empty places of a cohort whose size varies.

    Returns:
      An aggregator that is a mean; its state is the key of the masks of the round.

    Raises:
      ValueError: a number is out of range.

    References:
      Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, 2017.

    Example:
      >>> server, uploads = secure_mean(clients=3), jnp.array([[0.5], [0.25], [-1.0]])
      >>> state = server.prepare(server.init(uploads[0]), None, jax.random.key(0))
      >>> _, upload = server.aggregate(state, uploads, jnp.array([1.0, 3.0, 0.0]))
      >>> [round(float(x), 4) for x in upload]  # (1 * 0.5 + 3 * 0.25) / 4
      [0.3125]
    """
    if clients < 1 or not 1 <= least <= clients:
        raise ValueError(f"least must be in [1, clients = {clients}], got {least!r}")
    if empty not in get_args(Empty):
        raise ValueError(f"empty must be one of {', '.join(get_args(Empty))}, got {empty!r}")
    levels = (2**31 - 1) // clients
    codec, of_weight = fixed_point(limit, clients, levels), fixed_point(1.0, clients, levels)

    def init(upload):
        del upload
        return jax.random.key_data(jax.random.key(0))

    def prepare(state, broadcast, key):
        del state, broadcast
        return jax.random.key_data(key)

    def aggregate(state, uploads, weights):
        if weights.shape != (clients,):
            raise ValueError(
                f"secure_mean is made for {clients} clients, got weights {weights.shape}"
            )
        uploads, sent, n, _ = present(uploads, weights)
        share = jnp.where(sent, weights, 0) / jnp.maximum(weights.max(), 1e-30)

        def code(upload, share):
            scaled = jax.tree.map(lambda x: (share * x).astype(x.dtype), upload)
            _, payload = codec.encode((), scaled, None)
            _, own = of_weight.encode((), share, None)
            return jnp.append(ravel_pytree(payload.codes)[0], own.codes)

        codes = jax.vmap(code)(uploads, share)
        began = jnp.ones(clients, bool) if empty == "dropped" else sent
        total = masked_sum(codes, began, sent, jax.random.wrap_key_data(state))
        step, weight = np.float32(limit / levels), total[-1] / np.float32(levels)
        one = jax.tree.map(lambda x: x[0], uploads)
        _, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float32), one))
        mean = unravel(total[:-1] * step / jnp.where(weight > 0, weight, 1))
        enough = n >= least
        return state, jax.tree.map(lambda m, x: jnp.where(enough, m, 0).astype(x.dtype), mean, one)

    return Aggregator(init, aggregate, prepare, linear=True)


def masked_sum(codes: jax.Array, began: jax.Array, sent: jax.Array, key: jax.Array) -> jax.Array:
    """Adds masked vectors of those who sent, and takes the masks off the sum.

    Args:
      codes: int32 ``[clients, elements]``.
      began: bool ``[clients]``, who agreed on masks with each other.
      sent: bool ``[clients]``, who of them also sends; the others drop out.
      key: of the masks.

    Returns:
      int32 ``[elements]``, the sum modulo 2^32 of the codes of those who sent.

    Example:
      >>> codes, began = jnp.array([[1, -2], [10, 20], [100, 200]], jnp.int32), jnp.ones(3, bool)
      >>> masked_sum(codes, began, jnp.array([True, False, True]), jax.random.key(0)).tolist()
      [101, 198]
    """
    began = jnp.asarray(began)
    sent = jnp.asarray(sent) & began
    y = masked(codes, began, key)
    total = jnp.where(sent[:, None], y, 0).sum(0, dtype=jnp.uint32)
    elements = y.shape[1]

    def own(total, u):
        return jax.lax.cond(
            sent[u], lambda t: t - _bits(key, u, u, elements), lambda t: t, total
        ), None

    def pair(total, uv):
        # What the one who sent had added or subtracted for the one who dropped out.
        u, v = uv
        bits = functools.partial(_bits, key, u, v, elements)
        return jax.lax.cond(
            began[u] & began[v] & (sent[u] != sent[v]),
            lambda t: jnp.where(sent[u], t - bits(), t + bits()), lambda t: t, total,
        ), None  # fmt: skip

    total, _ = jax.lax.scan(own, total, jnp.arange(len(y)))
    total, _ = jax.lax.scan(pair, total, _pairs(len(y)))
    return jax.lax.bitcast_convert_type(total, jnp.int32)


def masked(codes: jax.Array, began: jax.Array, key: jax.Array) -> jax.Array:
    """Makes what each client sends: its codes, a mask of its own, and one for each other client.

    Args:
      codes: int32 ``[clients, elements]``.
      began: bool ``[clients]``, who agreed on masks with each other.
      key: of the masks.

    Returns:
      uint32 ``[clients, elements]``; the codes of who did not begin.
    """
    y = jax.lax.bitcast_convert_type(jnp.asarray(codes), jnp.uint32)
    began, elements = jnp.asarray(began), y.shape[1]

    def own(y, u):
        return jax.lax.cond(
            began[u], lambda y: y.at[u].add(_bits(key, u, u, elements)), lambda y: y, y
        ), None

    def pair(y, uv):
        u, v = uv

        def mask(y):
            bits = _bits(key, u, v, elements)
            return y.at[u].add(bits).at[v].add(-bits)

        return jax.lax.cond(began[u] & began[v], mask, lambda y: y, y), None

    y, _ = jax.lax.scan(own, y, jnp.arange(len(y)))
    return jax.lax.scan(pair, y, _pairs(len(y)))[0]


def _pairs(clients: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(x.astype(np.int32) for x in np.triu_indices(clients, 1))


def _bits(key: jax.Array, u: jax.Array, v: jax.Array, elements: int) -> jax.Array:
    return jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, u), v), (elements,))
