"""Which hybrid suits a model, a batch and a topology: bytes, memory and time of all of them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eejax.cotrain import tensor
from eejax.cotrain.hybrid.hybrid import DATA, STAGE, TENSOR, Hybrid, tier_of
from eejax.cotrain.hybrid.memory import memory
from eejax.cotrain.hybrid.model import Layered, check_hybrid
from eejax.cotrain.hybrid.traffic import layers_of, nbytes, once_by_tier, tokens_of, traffic

# The scheme "dp" would be the data axis again.
_SCHEMES = tuple(name for name in tensor.SCHEMES if name != "dp")
_SCHEDULES = ("gpipe", "one_f_one_b", "fused", "interleaved")


class Level(NamedTuple):
    """One tier of a topology of equal devices.

    Attributes:
      devices: how many nodes of this tier, or devices in the lowest tier, each node above has.
      bytes_per_s: what a device sends over the links of this tier.
    """

    devices: int
    bytes_per_s: float


class Candidate(NamedTuple):
    """A hybrid with what is predicted for it.

    Attributes:
      hybrid: the layout.
      tiers: which mesh axes cross the links of which tier, for `make_mesh_of`.
      nbytes: bytes that a device sends in a step, by tier; equal to those of the compiled program.
      memory_bytes: modelled memory of a device.
      seconds: modelled time of a step by cause: ``"compute"``, ``"bubble"``, and ``"link:TIER"``
        for each tier.
      bound: the cause that takes most, or why there is no such step: ``"memory"`` or ``"shape"``.
      reason: why it cannot be used; empty if it can.
    """

    hybrid: Hybrid
    tiers: dict[str, tuple[str, ...]]
    nbytes: dict[str, float]
    memory_bytes: float
    seconds: dict[str, float]
    bound: str
    reason: str = ""

    @property
    def total_seconds(self) -> float:
        """Modelled time of a step; infinite if it cannot be taken."""
        return sum(self.seconds.values()) if not self.reason else math.inf


def plan(
    model: Layered,
    tokens: int,
    levels: Mapping[str, Level],
    *,
    flops_per_s: float,
    memory_bytes: float,
    optimiser_words: int = 2,
    schemes: Sequence[str] = _SCHEMES,
    schedules: Sequence[str] = _SCHEDULES,
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
) -> list[Candidate]:
    """Enumerates hybrids that use all devices, and models a training step of each.

    The search is exhaustive, so nothing but the model decides. Grids lie innermost, and stages
    outside of copies or copies outside of stages. Modelled, in float32: one bandwidth a tier, no
    latency, no overlap of computing and sending, all devices equal (the slowest and the smallest
    count) and in lock-step from tick to tick.

    Args:
      model: the model.
      tokens: tokens of the whole batch.
      levels: the tiers, slowest first; their devices multiplied are all devices.
      flops_per_s: of the slowest device.
      memory_bytes: of the smallest device.
      optimiser_words: as for `memory`.
      schemes: tensor layouts to try.
      schedules: pipeline schedules to try.
      microbatches: numbers of micro-batches to try; the powers of two that divide the sequences of
        a copy if None.
      chunks: numbers of chunks to try when interleaved.

    Returns:
      Candidates, the fastest first; then those that do not fit into memory, the smallest first;
      then those whose sizes cannot be split, each with its reason.

    Raises:
      ValueError: a name or a number is wrong.

    References:
      Zheng et al., Alpa: Automating Inter- and Intra-Operator Parallelism for Distributed Deep
      Learning, 2022 (searches both kinds). Narayanan et al., Efficient Large-Scale Language Model
      Training on GPU Clusters Using Megatron-LM, 2021 (costs of the three kinds together).

    Example:
      >>> from eejax.cotrain.hybrid import text_model
      >>> model = text_model(1024, tensor.Shape(512, 2048, 8, 8, 128, layers=8, causal=True))
      >>> levels = {"cloud": Level(2, 1e8), "end": Level(4, 1e10)}
      >>> best = plan(model, 8192, levels, flops_per_s=1e12, memory_bytes=1e9)[0]
      >>> best.hybrid.stages, best.tiers["cloud"]  # Activations are less than gradients here.
      (2, ('stage',))
    """
    _check(levels, flops_per_s=flops_per_s, memory_bytes=memory_bytes)
    found = []
    sequences = max(tokens // model.seq, 1)
    devices = math.prod(level.devices for level in levels.values())
    for hybrid in _hybrids(devices, sequences, schemes, schedules, microbatches, chunks):
        try:
            check_hybrid(hybrid, model, tokens)
        except ValueError as error:
            found.append(Candidate(hybrid, {}, {}, math.nan, {}, "shape", str(error)))
            continue
        need = memory(hybrid, model, tokens, optimiser_words).total
        both = hybrid.data > 1 and hybrid.stages > 1
        for order in ((STAGE, DATA), (DATA, STAGE))[: 1 + both]:
            tiers = _tiers(hybrid, levels, (*order, TENSOR))
            sent = nbytes(hybrid, model, tokens, tiers)
            seconds = _seconds(hybrid, model, tokens, levels, tiers, flops_per_s)
            bound, reason = max(seconds, key=seconds.get), ""
            if need > memory_bytes:
                bound = "memory"
                reason = f"needs {need:.3g} bytes of memory, a device has {memory_bytes:.3g}"
            found.append(Candidate(hybrid, tiers, sent, need, seconds, bound, reason))
    order = {"memory": 1, "shape": 2}
    return sorted(
        found,
        key=lambda c: (
            order.get(c.bound, 0),
            0.0 if c.bound == "shape" else c.memory_bytes if c.reason else c.total_seconds,
        ),
    )


def _hybrids(
    devices: int,
    sequences: int,
    schemes: Sequence[str],
    schedules: Sequence[str],
    microbatches: Sequence[int] | None,
    chunks: Sequence[int],
) -> Iterator[Hybrid]:
    for data, stages, size in _factors(devices, 3):
        share = sequences // data
        powers = [2**i for i in range(share.bit_length()) if share % 2**i == 0]
        for scheme in schemes:
            axes = len(tensor.layout(scheme).axes)
            # An axis of one device would make a smaller scheme of it.
            grids = [grid for grid in _factors(size, axes) if min(grid, default=2) > 1]
            for grid, m in itertools.product(grids, microbatches or powers):
                # Without stages all schedules are the same.
                for schedule in schedules if stages > 1 else ("fused",):
                    interleaved = schedule == "interleaved"
                    if interleaved and m % stages:
                        continue
                    for v in chunks if interleaved else (1,):
                        yield Hybrid(data, stages, scheme, grid, schedule, v, m)


def _factors(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 0:
        yield from [()] if n == 1 else []
        return
    for first in range(1, n + 1):
        if n % first == 0:
            yield from ((first, *rest) for rest in _factors(n // first, parts - 1))


def _tiers(
    hybrid: Hybrid, levels: Mapping[str, Level], axes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Finds the slowest links that each axis crosses, the axes given outermost first."""
    sizes = {DATA: hybrid.data, STAGE: hybrid.stages, TENSOR: math.prod(hybrid.grid)}
    tiers: dict[str, tuple[str, ...]] = dict.fromkeys(levels, ())
    below = [level.devices for level in levels.values()][1:]
    blocks = [math.prod(below[i:]) for i in range(len(levels))]  # Devices under a node.
    extent = math.prod(sizes.values())  # Devices among which a group of the axis lies.
    for axis in axes:
        crossed = next((n for n, b in zip(levels, blocks) if extent > b), list(levels)[-1])
        tiers[crossed] += (axis,)
        extent //= sizes[axis]
    return tiers


def _seconds(
    hybrid: Hybrid,
    model: Layered,
    tokens: int,
    levels: Mapping[str, Level],
    tiers: Mapping[str, Sequence[str]],
    flops_per_s: float,
) -> dict[str, float]:
    """Models a step by cause; what the device that does most waits for others is the bubble."""
    sent, tier, table = (
        traffic(hybrid, model, tokens),
        tier_of(hybrid, tiers),
        hybrid.table,
    )
    grid = next(name for name, group in tiers.items() if TENSOR in group)
    start, layers, finish = _flops(hybrid, model, tokens)
    first, last = np.zeros((2, hybrid.stages))
    first[0] = last[-1] = 1
    last_chunk = hybrid.chunks - 1
    # Work of every device in every tick, [ticks, stages]: (FLOP, bytes).
    forward, backward = table.forward >= 0, table.backward >= 0
    at_start = [c == 0 for c in (table.forward_chunk, table.backward_chunk)]
    at_end = [c == last_chunk for c in (table.forward_chunk, table.backward_chunk)]
    # The last stage runs its forward with its backward.
    forward = forward & ~(at_end[0] & (last > 0))
    flops = forward * (layers + start * first * at_start[0])
    # Inputs have no gradient.
    flops = flops + backward * (
        3 * layers + 2 * start * first * at_start[1] + 3 * finish * last * at_end[1]
    )
    size = forward * (sent.layers.forward + sent.start.forward * first * at_start[0])
    size = size + backward * (
        sent.layers.backward
        + sent.start.backward * first * at_start[1]
        + sent.finish.backward * last * at_end[1]
    )
    compute, inside = flops / flops_per_s, size / levels[grid].bytes_per_s
    work = compute + inside
    busiest = work.sum(0).argmax()
    seconds = dict.fromkeys(("compute", "bubble", *(f"link:{name}" for name in levels)), 0.0)
    seconds["compute"] = float(compute[:, busiest].sum())
    seconds["bubble"] = float(work.max(1).sum() - work[:, busiest].sum())
    seconds[f"link:{grid}"] += float(inside[:, busiest].sum())
    if hybrid.stages > 1:
        messages = (forward.any(1).astype(int) + backward.any(1)).sum()
        seconds[f"link:{tier[STAGE]}"] += (
            float(messages) * sent.message / levels[tier[STAGE]].bytes_per_s
        )
    for name, number in once_by_tier(sent, hybrid, tier).items():
        seconds[f"link:{name}"] += number / levels[name].bytes_per_s
    return seconds


def _flops(hybrid: Hybrid, model: Layered, tokens: int) -> tuple[float, float, float]:
    """Counts the FLOP of a device for the forward of a micro-batch: start, chunk and finish."""
    share = tokens_of(hybrid, tokens) / math.prod(hybrid.grid)
    start, layer, finish = (share * flops for flops in model.costs.flops)
    return start, layers_of(hybrid, model) * layer, finish


def _check(levels: Mapping[str, Level], **numbers: float) -> None:
    if not levels:
        raise ValueError("levels must hold at least one tier")
    for name, level in levels.items():
        if not isinstance(level.devices, int) or level.devices < 1:
            raise ValueError(f"levels[{name!r}].devices must be >= 1, got {level.devices!r}")
        numbers[f"levels[{name!r}].bytes_per_s"] = level.bytes_per_s
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0, got {number!r}")
