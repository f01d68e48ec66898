"""Noise codec: a client blurs its upload before anybody sees it."""

import jax
import jax.numpy as jnp

from eejax import trees
from eejax.core import Codec


def gaussian_noise(std: float) -> Codec:
    """Adds independent normal noise to every element of the floating leaves.

    After `clip` this is the Gaussian mechanism on the client. With ``std`` as the noise of the
    server divided by ``sqrt(clients of a round)``, the sum of all has the noise of the server,
    which then needs not be trusted if it sees only the sum (see `secagg`).

    It simulates: numbers of floating point, and a generator that is not cryptographic, give no
    privacy against who knows them to the bit.

    Args:
      std: standard deviation, in units of the upload.

    Returns:
      A stateless codec, whose ``encode`` needs a key.

    Raises:
      ValueError: ``std`` is negative; in ``encode``, the key is missing.

    References:
      Dwork and Roth, The Algorithmic Foundations of Differential Privacy, 2014. Floating point:
      Mironov, On Significance of the Least Significant Bits for Differential Privacy, 2012.

    Example:
      >>> from eejax.protect.clip import clip
      >>> from eejax.wire import affine, chain
      >>> codec = chain(clip(1.0), gaussian_noise(0.1), affine(8))
      >>> update = jnp.ones(100)
      >>> _, payload = codec.encode(codec.init(update), update, jax.random.key(0))
      >>> codec.nbytes(payload)
      105
    """
    if not 0 <= std < float("inf"):
        raise ValueError(f"std must be at least 0 and finite, got {std!r}")

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        if key is None:
            raise ValueError("gaussian_noise needs a key")
        return state, add_noise(tree, std, key)

    def decode(payload):
        return payload

    return Codec(init, encode, decode, trees.nbytes)


def add_noise(tree, std, key):
    """Adds normal noise of deviation ``std`` to the floating leaves, drawn for all at once."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    # One draw is one loop for the compiler, whatever the number of leaves.
    noise = std * jax.random.normal(key, (sum(x.size for x, f in zip(leaves, floating) if f),))
    start = 0
    for i, x in enumerate(leaves):
        if floating[i]:
            here = noise[start : start + x.size].reshape(x.shape)
            leaves[i], start = (x + here).astype(x.dtype), start + x.size
    return structure.unflatten(leaves)
