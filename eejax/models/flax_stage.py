"""Stages from Flax modules, and the door where integer images become floats."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.core import Stage

PyTree = Any


def linen_stage(name: str, module: nn.Module) -> Stage:
    """Makes a stage of a Flax module.

    Args:
      name: of the stage, unique in its model.
      module: its ``__call__(x, train)`` uses no variables but parameters, and no random numbers
        but those of the stream ``"dropout"``.

    Returns:
      The stage. Its ``init`` computes nothing but the initial values, so ``x`` may be abstract.

    Raises:
      ValueError: at ``init``, the module has variables that are not parameters.

    Example:
      >>> class Linear(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, train=False):
      ...         return nn.Dense(3)(x)
      >>> stage = linen_stage("linear", Linear())
      >>> params = stage.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 2), jnp.float32))
      >>> stage.apply(params, jnp.ones((5, 2))).shape
      (5, 3)
    """

    def init(key: jax.Array, x: Any) -> PyTree:
        variables = module.lazy_init(key, jax.eval_shape(lambda x: x, x), train=False)
        others = sorted(set(variables) - {"params"})
        if others:
            raise ValueError(f"stage {name!r} must keep parameters only, its module has {others}")
        return variables.get("params", {})

    def apply(
        params: PyTree, x: jax.Array, *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, x, train=train, rngs=rngs)

    return Stage(name, init, apply)


@jax.named_scope("to_float")
def to_float(images: jax.Array) -> jax.Array:
    """Scales integer images from 0..255 to [-1, 1]; floats stay as they are.

    First stages call it, so that raw images travel as one byte a pixel.

    Args:
      images: any shape.

    Returns:
      Floats: ``(images / 255 - 0.5) / 0.5``.

    Example:
      >>> to_float(jnp.array([0, 255], jnp.uint8))
      Array([-1.,  1.], dtype=float32)
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5
