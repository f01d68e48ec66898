"""The layer of transformer encoders, in its two orders of normalisation."""

import flax.linen as nn
import jax


class EncoderLayer(nn.Module):
    """Self-attention of all positions, and two dense layers of each.

    Attributes:
      heads: of the attention.
      hidden: width between the dense layers.
      norm_first: whether attention and dense layers read normalised values, as in ViT, or their
        sums with the input are normalised, as in BERT.
      epsilon: added to the variance.

    References:
      Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, Attention Is All
      You Need, 2017.

    Example:
      >>> x = jax.ShapeDtypeStruct((1, 5, 8), "float32")
      >>> variables = jax.eval_shape(EncoderLayer(2, 32, True).init, jax.random.key(0), x)
      >>> sorted(variables["params"])
      ['attention', 'mlp1', 'mlp2', 'norm1', 'norm2']
    """

    heads: int
    hidden: int
    norm_first: bool
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[batch, positions, width]`` to the same shape."""
        norm1 = nn.LayerNorm(self.epsilon, name="norm1")
        norm2 = nn.LayerNorm(self.epsilon, name="norm2")
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")

        def mlp(x: jax.Array) -> jax.Array:
            y = nn.gelu(nn.Dense(self.hidden, name="mlp1")(x), approximate=False)
            return nn.Dense(x.shape[-1], name="mlp2")(y)

        if self.norm_first:
            x = x + attention(norm1(x))
            return x + mlp(norm2(x))
        x = norm1(x + attention(x))
        return norm2(x + mlp(x))
