"""What the program of a hybrid sends, in closed form; equal to what the compiler makes of it."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from eejax.cotrain.hybrid.hybrid import DATA, STAGE, TENSOR, TIERS, Hybrid, tier_of
from eejax.cotrain.hybrid.model import Layered
from eejax.cotrain.hybrid.step import copies
from eejax.cotrain.pipeline.plan import make_plan
from eejax.cotrain.tensor import theory

PyTree = Any

F32 = 4


class Pass(NamedTuple):
    """Bytes that a device sends within its tensor group for one micro-batch.

    Attributes:
      forward: in a forward tick.
      backward: in a backward tick, with what it computes and gathers again.
    """

    forward: float
    backward: float


class Traffic(NamedTuple):
    """The parts of what a device sends in a step, bytes.

    Attributes:
      layers: the layers of one chunk.
      start: embedding, on the first stage.
      finish: norm, head and loss, on the last stage.
      message: activation that crosses a cut for one micro-batch, on one device.
      once: sums of gradients and of the loss, once a step, by the axes over which they run.
    """

    layers: Pass
    start: Pass
    finish: Pass
    message: float
    once: dict[tuple[str, ...], float]


class Ticks(NamedTuple):
    """How often the program of a pipeline does what, summed over its loops.

    Attributes:
      forward: ticks with forwards on any device.
      backward: ticks with backwards on any device.
      messages: messages of all devices.
    """

    forward: int
    backward: int
    messages: int


def traffic(hybrid: Hybrid, model: Layered, tokens: int) -> Traffic:
    """Counts the parts of what a device sends, in float32 and ring collectives.

    Args:
      hybrid: the layout.
      model: the model.
      tokens: tokens of the whole batch.

    Returns:
      The parts; `nbytes` adds them up.

    References:
      Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
      Megatron-LM, 2021.
    """
    layout, sizes, costs = hybrid.layout, hybrid.sizes, model.costs
    t, per = tokens_of(hybrid, tokens), layers_of(hybrid, model)
    summed, local = copies(hybrid, model), local_sizes(hybrid, model)
    # Theory sums the gradients of copies at once; here they wait until the last tick.
    waiting = jax.tree.map(lambda n, axes: _all_reduce(axes[1:], sizes) * n, local, summed)

    def part(sent: theory.Traffic, times: int, *names: str) -> Pass:
        later = sum(jax.tree.leaves([waiting[name] for name in names])) / hybrid.chunks
        return Pass(F32 * times * sent.forward, F32 * (times * sent.total - later))

    # Counts of labels, and the loss itself.
    once = [(layout.inner_tokens, hybrid.microbatches), ((DATA,), 2), ((STAGE,), 1)]
    once += zip(jax.tree.structure(local).flatten_up_to(summed), jax.tree.leaves(local))
    by_axes: dict[tuple[str, ...], float] = {}
    for axes, numbers in once:
        by_axes[axes] = by_axes.get(axes, 0.0) + F32 * numbers * _all_reduce(axes, sizes)
    return Traffic(
        layers=part(costs.layer(layout, sizes, t, "gathers" if per > 1 else "none"), per, "layers"),
        start=part(costs.start(layout, sizes, t), 1, "embed"),
        finish=part(costs.finish(layout, sizes, t), 1, "norm", "head"),
        message=F32 * theory.layer_input(layout, sizes, t, model.hidden),
        once=by_axes,
    )


def nbytes(
    hybrid: Hybrid,
    model: Layered,
    tokens: int,
    tiers: Mapping[str, Sequence[str]] = TIERS,
) -> dict[str, float]:
    """Counts what a device sends in a step, by tier, as `tiers.collectives` counts the program.

    That count takes every branch of a conditional as taken, so no device counts as idle in the
    bubble, and each has the embedding and the head: it bounds what any device sends.

    Args:
      hybrid: the layout.
      model: the model.
      tokens: tokens of the whole batch.
      tiers: as for `tier_of`.

    Returns:
      Bytes by tier, slowest first.

    Example:
      >>> from eejax.cotrain import tensor
      >>> from eejax.cotrain.hybrid import text_model
      >>> model = text_model(32, tensor.Shape(16, 32, 4, 4, seq=8, layers=2, causal=True))
      >>> nbytes(Hybrid(stages=2, microbatches=4), model, 64)  # 12 of 1 KiB over 2; the loss.
      {'cloud': 6148.0, 'edge': 0.0, 'end': 0.0}
    """
    sent, count = traffic(hybrid, model, tokens), ticks(hybrid)
    tier, total = tier_of(hybrid, tiers), dict.fromkeys(tiers, 0.0)
    grid = next(name for name, group in tiers.items() if TENSOR in group)
    total[grid] += count.forward * (sent.layers.forward + sent.start.forward)
    total[grid] += count.backward * sum(p.backward for p in (sent.layers, sent.start, sent.finish))
    total[tier[STAGE]] += count.messages / hybrid.stages * sent.message
    for name, number in once_by_tier(sent, hybrid, tier).items():
        total[name] += number
    return total


def once_by_tier(sent: Traffic, hybrid: Hybrid, tier: Mapping[str, str]) -> dict[str, float]:
    """Adds up what is sent once a step, by the tier of the outermost axis that it crosses."""
    total: dict[str, float] = {}
    for axes, number in sent.once.items():
        crossed = [axis for axis in tier if axis in axes and hybrid.sizes[axis] > 1]
        if crossed:
            total[tier[crossed[0]]] = total.get(tier[crossed[0]], 0.0) + number
    return total


def ticks(hybrid: Hybrid) -> Ticks:
    """Counts what the program of a schedule does.

    Example:
      >>> ticks(Hybrid(stages=2, microbatches=4))  # M + 2 S - 2 ticks.
      Ticks(forward=6, backward=6, messages=12)
    """
    total = [0, 0, 0]
    for phase in make_plan(hybrid.table, recompute=True).phases:
        times = (phase.stop - phase.start) // len(phase.steps)
        for step in phase.steps:
            pairs = step.activations + step.gradients
            for i, n in enumerate((step.forward, step.backward, sum(a != b for a, b in pairs))):
                total[i] += times * n
    return Ticks(*total)


def local_sizes(hybrid: Hybrid, model: Layered) -> PyTree:
    """Counts the elements of each packed parameter on a device."""

    def of(path, x, spec):
        names = [(e,) if isinstance(e, str) else e or () for e in spec]
        size = x.size // math.prod(hybrid.sizes[a] for axes in names for a in axes)
        # Each chunk has room for both ends of the model.
        return size // hybrid.stages if path[0].key == "layers" else size * hybrid.chunks

    return jax.tree_util.tree_map_with_path(of, _abstract(model.init), model.specs(hybrid.layout))


def tokens_of(hybrid: Hybrid, tokens: int) -> int:
    """Counts the tokens of a micro-batch in one copy of the pipeline."""
    return tokens // (hybrid.data * hybrid.microbatches)


def layers_of(hybrid: Hybrid, model: Layered) -> int:
    """Counts the layers of a chunk."""
    return model.layers // (hybrid.stages * hybrid.chunks)


@functools.lru_cache(8)
def _abstract(init: Callable) -> PyTree:
    return jax.eval_shape(init, jax.random.key(0))


def _all_reduce(axes: Sequence[str], sizes: Mapping[str, int]) -> float:
    n = math.prod(sizes[a] for a in axes)
    return 2 * (n - 1) / n
