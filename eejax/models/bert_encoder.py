"""BERT, from token numbers to the vector that a classifier reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eejax.models.encoder_layer import EncoderLayer


class Embeddings(nn.Module):
    """The sum of the embeddings of a token, its position and its segment, normalised.

    Attributes:
      width: of every token.
      vocabulary: number of tokens.
      positions: most tokens of a text.
      segments: kinds of segments.
    """

    width: int
    vocabulary: int = 30522
    positions: int = 512
    segments: int = 2

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Maps ``[batch, length]`` to ``[batch, length, width]``; all is of the first segment."""
        x = nn.Embed(self.vocabulary, self.width, name="token")(ids)
        x = x + nn.Embed(self.positions, self.width, name="position")(
            jnp.arange(ids.shape[1])[None]
        )
        x = x + nn.Embed(self.segments, self.width, name="segment")(jnp.zeros((1, 1), jnp.int32))
        return nn.LayerNorm(1e-12, name="norm")(x)


class BERT(nn.Module):
    """Embeddings, encoder and pooler, by default of BERT-base without case.

    The embeddings have 23.8 million parameters and the pooler 0.6; the encoder alone has 85.05.
    There is no attention mask: a text fills its length.

    Attributes:
      width: of every token.
      heads: of the attention.
      depth: encoder layers.

    References:
      Devlin, Chang, Lee and Toutanova, BERT: Pre-Training of Deep Bidirectional Transformers for
      Language Understanding, 2019.
    """

    width: int = 768
    heads: int = 12
    depth: int = 12

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Maps token numbers ``[batch, length]`` to ``[batch, width]``."""
        x = Embeddings(self.width, name="embeddings")(ids)
        for i in range(1, self.depth + 1):
            x = EncoderLayer(self.heads, 4 * self.width, False, 1e-12, name=f"encoder{i}")(x)
        return nn.tanh(nn.Dense(self.width, name="pooler")(x[:, 0]))
