"""Multilayer perceptrons cut into stages, with an exit after each."""

import flax.linen as nn
import jax

from eejax.core import Exit, StagedModel
from eejax.models.blocks import Dense
from eejax.models.flax_stage import linen_stage, to_float
from eejax.models.staged import staged


class DenseStage(nn.Module):
    """A dense layer with ReLU.

    Attributes:
      features: its width.
      dropout: share of its outputs to drop in training.
    """

    features: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps ``[batch, ...]`` to ``[batch, features]``."""
        x = nn.relu(Dense(self.features, gain=2.0, name="dense")(to_float(x)))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class Linear(nn.Module):
    """A linear exit.

    Attributes:
      classes: number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps ``[batch, features]`` to logits ``[batch, classes]``."""
        del train
        return Dense(self.classes, name="dense")(x)


def staged_mlp(
    classes: int = 10, widths: tuple[int, ...] = (64, 64, 64), *, dropout: float = 0.0
) -> StagedModel:
    """Makes a multilayer perceptron of one dense layer a stage, each with a linear exit.

    Args:
      classes: number of classes.
      widths: width of every stage.
      dropout: share of every stage's output to drop in training, which then needs a key.

    Returns:
      Stages ``"stage1"``, ``"stage2"``, ... and heads ``"exit1"``, ``"exit2"``, ... for inputs
      ``[batch, ...]``, which are flattened: uint8, or floats near [-1, 1].

    Raises:
      ValueError: there are no widths, or one is below 1.

    Example:
      >>> from eejax import trees
      >>> from eejax.models import init
      >>> model = staged_mlp(widths=(4, 5))
      >>> params = init(model, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8), "float32"))
      >>> {name: trees.size(subtree) for name, subtree in sorted(params.items())}
      {'exit1': 50, 'exit2': 60, 'stage1': 260, 'stage2': 25}
    """
    if not widths or any(width < 1 for width in widths):
        raise ValueError(f"widths must be positive, got {widths!r}")
    names = [f"stage{i}" for i in range(1, len(widths) + 1)]
    return staged(
        tuple(linen_stage(name, DenseStage(w, dropout)) for name, w in zip(names, widths)),
        tuple(
            Exit(name, linen_stage(f"exit{i}", Linear(classes))) for i, name in enumerate(names, 1)
        ),
    )
