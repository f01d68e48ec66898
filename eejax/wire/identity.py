"""Identity codec: the tree goes over the link as it is."""

from eejax import trees
from eejax.core import Codec


def identity() -> Codec:
    """Ships a tree unchanged, every leaf at its own dtype.

    Returns:
      A stateless codec whose payload is the tree itself.

    Example:
      >>> import numpy as np
      >>> codec = identity()
      >>> state, payload = codec.encode(codec.init({}), {"x": np.ones((2, 3), np.float32)}, None)
      >>> codec.nbytes(payload)
      24
    """

    def init(tree):
        del tree
        return ()

    def encode(state, tree, key):
        del key
        return state, tree

    return Codec(init, encode, decode=lambda payload: payload, nbytes=trees.nbytes)
