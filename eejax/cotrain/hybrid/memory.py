"""What the program of a hybrid keeps in memory, modelled; tests compare it with the compiler."""

import math
from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from eejax.cotrain.hybrid.hybrid import Hybrid
from eejax.cotrain.hybrid.model import Layered
from eejax.cotrain.hybrid.traffic import F32, layers_of, local_sizes, tokens_of
from eejax.cotrain.pipeline.plan import make_plan
from eejax.cotrain.tensor.layout import Plan, split

# Of the backward of a layer beside its residuals, as a share of them, and of the loss beside the
# residuals, in arrays like the logits: fitted to programs of XLA on CPU.
_LAYER, _LOSS = 0.78, 2.4


class Memory(NamedTuple):
    """Modelled bytes of a device.

    Attributes:
      state: parameters and optimiser state.
      gradients: gradients, those carried through the ticks and those of one micro-batch.
      stash: activations and their gradients that wait for their turn.
      residuals: what the forward of one chunk leaves for its backward.
      working: the rest, at the moment when it is largest.
      batch: inputs and labels.
    """

    state: float
    gradients: float
    stash: float
    residuals: float
    working: float
    batch: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def memory(
    hybrid: Hybrid,
    model: Layered,
    tokens: int,
    optimiser_words: int = 2,
) -> Memory:
    """Models the memory of the step of `hybrid_step` in float32.

    The backward of a chunk starts from its input, so that residuals of one micro-batch are there at
    a time, and micro-batches cost only their place in the stash.

    Args:
      hybrid: the layout.
      model: the model.
      tokens: tokens of the whole batch.
      optimiser_words: numbers that the optimiser keeps for each parameter: 0 for plain SGD, 1 with
        momentum, 2 for Adam.

    Returns:
      Modelled bytes by what they are for.

    References:
      Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022.

    Example:
      >>> from eejax.cotrain import tensor
      >>> from eejax.cotrain.hybrid import text_model
      >>> model = text_model(32, tensor.Shape(16, 32, 4, 4, seq=8, layers=2, causal=True))
      >>> one = memory(Hybrid(stages=2, microbatches=8), model, 256)
      >>> memory(Hybrid(stages=2, microbatches=8), model, 512).residuals / one.residuals
      2.0
    """
    layout, t, per = hybrid.layout, tokens_of(hybrid, tokens), layers_of(hybrid, model)

    def ways(*groups: tuple[str, ...]) -> int:
        return math.prod(hybrid.sizes[a] for axes in groups for a in axes)

    # Blocks of one number a token and feature.
    between, inside = (t / ways(*split(spec)) for spec in (layout.act, layout.inner))
    parts = zip((between, inside, t / ways(layout.tokens)), model.costs.kept)
    layer = sum(block * numbers for block, numbers in parts)
    gathered = [_gathered(*product, t, ways) for product in model.costs.products(layout)]
    sizes = local_sizes(hybrid, model)
    params, layers = (sum(jax.tree.leaves(tree)) for tree in (sizes, sizes["layers"]))
    plan = make_plan(hybrid.table, recompute=True)

    # Two moments may be the fullest: in the loss, and in the backward of a layer.
    scattered = ways(*(move.axes for move in layout.up.reduce))
    logits = inside * model.classes * (_LOSS + scattered * (scattered > 1))
    loss = (params - layers) / hybrid.chunks + logits
    backward = params + (per > 1) * (_LAYER * layer + 2 * max(gathered))
    inputs = math.prod(model.token.shape) * t / ways(split(P(layout.down.ids[0], None))[0])
    labels = t / model.label_tokens / ways(layout.inner_tokens)
    return Memory(
        state=F32 * params * (1 + optimiser_words),
        # A chunk is copied out of the parameters of several.
        gradients=F32 * params * (2 if hybrid.chunks == 1 else 3),
        stash=F32 * between * model.hidden * (plan.input_slots + plan.gradient_slots),
        residuals=F32 * (per * layer + (per == 1) * sum(gathered)),
        working=F32 * (max(loss, backward) - params),
        batch=F32 * hybrid.microbatches * (inputs + labels),
    )


def _gathered(plan: Plan, n_in: int, n_out: int, t: int, ways) -> float:
    """Counts the elements of the operands of a product that come from several devices."""
    total = 0.0
    for size, spec, moves in (
        (t * n_in, plan.x, plan.gather_x),
        (n_in * n_out, plan.w, plan.gather_w),
    ):
        if moves:
            total += size / ways(*split(spec)) * ways(*(move.axes for move in moves))
    return total
