"""Vision transformers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.encoder_layer import EncoderLayer
from eejax.models.flax_stage import to_float


class ViT(nn.Module):
    """Patches of an image and a class token, read by a transformer encoder.

    Attributes:
      width: of every token; 768 is ViT-B, 192 ViT-Ti.
      heads: of the attention, 12 and 3.
      depth: encoder layers.
      patch: height and width of a patch.
      classes: number of logits.

    References:
      Dosovitskiy et al., An Image Is Worth 16x16 Words: Transformers for Image Recognition at
      Scale, 2021. Touvron, Cord, Douze, Massa, Sablayrolles and Jegou, Training Data-Efficient
      Image Transformers and Distillation through Attention, 2021.
    """

    width: int
    heads: int
    depth: int = 12
    patch: int = 16
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[batch, 224, 224, 3]`` to logits ``[batch, classes]``."""
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, "VALID", name="patches")(to_float(x))
        with jax.named_scope("tokens"):
            x = x.reshape(x.shape[0], -1, self.width)
            first = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, self.width)), x], axis=1)
            shape = (1, *x.shape[1:])
            x = x + self.param("positions", nn.initializers.normal(0.02), shape)
        for i in range(1, self.depth + 1):
            x = EncoderLayer(self.heads, 4 * self.width, True, name=f"encoder{i}")(x)
        x = nn.LayerNorm(1e-6, name="norm")(x)
        return nn.Dense(self.classes, name="head")(x[:, 0])
