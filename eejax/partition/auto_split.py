"""Auto-Split: the cut of a graph and the bit-widths below it, within memory and error."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax.partition.costs import tabulate
from eejax.partition.graph import LayerGraph, Tensor, check
from eejax.partition.objective import Objective
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import rates_of
from eejax.partition.two_tiers import tier_pair
from eejax.tiers.topology import Topology

PyTree = Any


class SplitPlan(NamedTuple):
    """A cut with bit-widths.

    Attributes:
      plan: priced on ``graph``.
      graph: the model with quantised layers below the cut.
      cut: number of layers below, in the order in which they run; 0 is the float model above.
      weight_bits: of the parameters of each layer below, ``[cut]``.
      activation_bits: of its outputs, ``[cut]``.
      error: sum of the errors of both.
    """

    plan: Plan
    graph: LayerGraph
    cut: int
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    error: float


def auto_split(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    bits: Sequence[int],
    weight_error: Any,
    activation_error: Any,
    max_error: float,
    float_bits: int = 32,
    memory_bytes: float | None = None,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> list[SplitPlan]:
    """Lists the trade-offs between cost and error of a model that is quantised below its cut.

    Layers are cut in the order in which they run, where all that crosses is no more than the input
    and what is below fits, both in the smallest bit-width. Memory is divided between parameters and
    activations in all ways that matter: activations take the width of least error that fits,
    parameters those of `allocate`, and the division with the least error stays. As the features
    that cross decide the time of the link, they are tried up to every width, which is ours; the
    rest follows the paper, whose accuracy threshold is here the bound on the errors.

    A quantised layer moves fewer bytes between memory and processor but computes no faster, as
    there; with ``layer_seconds`` it takes as long as given. Layers above the cut stay float.

    Args:
      graph: the model in floats of ``float_bits``; a tensor's bytes are those of its floats.
      topology: the system.
      objective: one of `costs.LINEAR`, or weights of several; the paper minimises latency.
      bits: bit-widths that the lower tier supports, ascending.
      weight_error: error of the parameters of each layer in each bit-width, ``[layers, bits]``, as
        from `quantisation_error`.
      activation_error: that of its outputs, ``[layers, bits]``.
      max_error: most that the errors of all layers below may add up to.
      float_bits: bits of a float of the graph.
      memory_bytes: memory of the lower tier for parameters and the largest output; that of its
        smallest node if None.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way`` and ``codecs``.

    Returns:
      Feasible plans within the budgets, the best first, each with less error than those before it;
      and in any case the float model on the higher tier, whose error is 0.

    Raises:
      ValueError: an argument is wrong.

    References:
      Banitalebi-Dehkordi et al., Auto-Split: A General Framework of Collaborative Edge-Cloud AI,
      2021. Shoham and Gersho, Efficient Bit Allocation for an Arbitrary Set of Quantizers, 1988.

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e11, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 150_000), Tensor("features", 0, (1,), 400_000))
      >>> errors = [[0.04, 0.001], [0.04, 0.001]]
      >>> plans = auto_split(LayerGraph(layers, tensors, "layer"), three_tier(), bits=(4, 8),
      ...                    weight_error=errors, activation_error=errors, max_error=0.1)
      >>> [(plan.cut, plan.activation_bits, round(plan.error, 4)) for plan in plans]
      [(1, (4,), 0.041), (1, (8,), 0.002), (0, (), 0.0)]
    """
    for name in ("two_way", "codecs"):
        if keywords.get(name):
            raise ValueError(f"auto_split sends quantised features up: leave {name} out")
    check(graph)
    bits = list(bits)
    if not bits or bits != sorted(set(bits)) or not 1 <= bits[0] <= bits[-1] <= float_bits:
        raise ValueError(f"bits must ascend within [1, {float_bits}], got {bits}")
    shape = (len(graph.layers), len(bits))
    tables = {"weight_error": weight_error, "activation_error": activation_error}
    for name, table in tables.items():
        tables[name] = np.asarray(table, float)
        if tables[name].shape != shape:
            raise ValueError(f"{name} must be [layers, bits] = {shape}, got {np.shape(table)}")
        if not ((tables[name] >= 0) & (tables[name] < np.inf)).all():
            raise ValueError(f"{name} must be finite and >= 0 everywhere")
    weight_error, activation_error = tables.values()
    if not max_error >= 0:
        raise ValueError(f"max_error must be >= 0, got {max_error}")
    low, high = tier_pair(topology, tiers)
    if memory_bytes is None:
        memory_bytes = topology.tiers[low].devices.memory_bytes[topology.ancestor(low)].min()

    def priced(cut: int, weight: np.ndarray, activation: np.ndarray) -> SplitPlan:
        wide = [tuple(bits[c] for c in columns) for columns in (weight, activation)]
        thin = quantised(graph, *wide, float_bits)
        rates = rates_of(thin, topology, **keywords)
        run = pricer(rates, tabulate(rates, objective).choice)
        plan = run([low] * cut + [high] * (len(graph.layers) - cut))
        error = _picked(weight_error, weight) + _picked(activation_error, activation)
        return SplitPlan(plan, thin, cut, *wide, error)

    part = np.divide(bits, float_bits)
    sizes = [size[:, None] * part for size in _sizes(graph)]

    def assigned(cut: int, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Finds the widths of least error; what crosses has index ``most`` at most."""
        weights, outputs = (size[:cut] for size in sizes)
        limit = np.full(cut, len(bits) - 1)
        limit[[t.producer for t in _crossing(graph, cut) if t.producer >= 0]] = most
        best, least, unavoidable = None, np.inf, weight_error[:cut].min(1).sum()
        for room in np.unique(outputs)[::-1]:
            fits = (outputs <= room) & (np.arange(len(bits)) <= limit[:, None])
            if not fits.any(1).all():
                break
            activation = np.where(fits, activation_error[:cut], np.inf).argmin(1)
            error = _picked(activation_error, activation)
            # Less room for activations never makes their error smaller.
            if error + unavoidable >= least:
                break
            weight = allocate(weights, weight_error[:cut], memory_bytes - room)
            if weight is not None and error + _picked(weight_error, weight) < least:
                best, least = (weight, activation), error + _picked(weight_error, weight)
        return best

    cloud_only = priced(0, *np.zeros((2, 0), int))
    found = [cloud_only]
    for cut in _candidates(graph, part[0], memory_bytes):
        ways = [assigned(cut, most) for most in range(len(bits))] if cut else []
        found += [priced(cut, *way) for way in ways if way is not None]
    found = [p for p in found if p is cloud_only or (p.plan.feasible and p.error <= max_error)]
    front: list[SplitPlan] = []
    for split in sorted(found, key=lambda p: (judge(p.plan, objective), p.error)):
        if split is cloud_only or all(split.error < other.error for other in front):
            front.append(split)
    return front


def allocate(sizes: Any, errors: Any, budget: float) -> np.ndarray | None:
    """Allocates bit-widths to layers by Lagrange multipliers.

    For a multiplier ``v``, each layer takes the width of least ``error + v * size``. As ``v``
    falls, layers move one after the other along the lower convex hulls of their points, those first
    whose error falls most for a byte. Every allocation on this way is the best of its own size.
    What is left of the budget goes to the moves that follow and fit, so the error is above the
    least one by no more than the first move that did not fit would have saved.

    Args:
      sizes: bytes of each layer in each width, ascending, ``[layers, widths]``.
      errors: error of each, ``[layers, widths]``.
      budget: most bytes in all.

    Returns:
      Index of the width of each layer, ``[layers]``; None if the smallest ones do not fit.

    Example:
      >>> allocate([[1, 2], [10, 20]], [[4, 0], [5, 0]], budget=12).tolist()
      [1, 0]
    """
    sizes, errors = np.asarray(sizes, float), np.asarray(errors, float)
    moves = []
    for row, (size, error) in enumerate(zip(sizes, errors)):
        column, order = 0, -np.inf
        while (error[column + 1 :] < error[column]).any():
            saved, paid = error[column] - error[column + 1 :], size[column + 1 :] - size[column]
            slope = np.divide(saved, paid, where=paid > 0, out=np.full(len(paid), np.inf))
            step = np.where(saved > 0, slope, 0).argmax()
            # On a straight piece of a hull, rounding must not swap two moves.
            order = max(order, -slope[step])
            moves.append((order, row, column + 1 + int(step), paid[step]))
            column += 1 + int(step)
    chosen, stuck = np.zeros(len(sizes), int), set()
    left = budget - (sizes[:, 0].sum() if len(sizes) else 0)
    if left < 0:
        return None
    for _, row, column, paid in sorted(moves, key=lambda move: move[:3]):
        if row in stuck or paid > left:
            stuck.add(row)
        else:
            chosen[row], left = column, left - paid
    return chosen


def quantised(
    graph: LayerGraph,
    weight_bits: Sequence[int],
    activation_bits: Sequence[int],
    float_bits: int = 32,
) -> LayerGraph:
    """Shrinks the first layers of a graph to their bit-widths.

    Args:
      graph: the model in floats.
      weight_bits: of the parameters of the first layers, ``[cut]``.
      activation_bits: of their outputs, ``[cut]``.
      float_bits: bits of a float of the graph.

    Returns:
      The graph with fewer bytes of these parameters and outputs, in memory, between memory and
      processor, and on links; bytes of parameters are rounded up.
    """
    cut = len(weight_bits)
    parts = np.divide([*activation_bits, *[float_bits] * (len(graph.layers) + 1 - cut)], float_bits)
    # The last one is that of the input, whose producer is -1.
    thin = [t._replace(nbytes=t.nbytes * float(parts[t.producer])) for t in graph.tensors]
    layers = list(graph.layers)
    for i, layer in enumerate(layers[:cut]):
        held = int(np.ceil(layer.parameter_bytes * weight_bits[i] / float_bits))
        saved = layer.parameter_bytes - held
        for old, new in zip(graph.tensors, thin):
            saved += (old.nbytes - new.nbytes) * ((old.producer == i) + (i in old.consumers))
        moved = max(layer.bytes_moved - saved, 0.0)
        layers[i] = layer._replace(bytes_moved=moved, parameter_bytes=held)
    return graph._replace(layers=tuple(layers), tensors=tuple(thin))


def quantisation_error(values: Sequence[PyTree], bits: Sequence[int]) -> np.ndarray:
    """Measures what uniform quantisation over the range of each array does.

    Args:
      values: for each layer its parameters, or its outputs for some samples.
      bits: bit-widths.

    Returns:
      Mean squared error of all values of a layer, ``[layers, bits]``; 0 for a layer without any.

    Example:
      >>> quantisation_error([{"w": np.array([0.0, 1.0, 3.0])}, {}], bits=(1, 2)).round(3).tolist()
      [[0.333, 0.0], [0.0, 0.0]]
    """
    table = np.zeros((len(values), len(bits)))
    for i, tree in enumerate(values):
        arrays = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]
        for c, width in enumerate(bits):
            for x in arrays:
                step = (x.max(initial=-np.inf) - x.min(initial=np.inf)) / (2**width - 1)
                if step > 0:
                    shifted = (x - x.min()) / step
                    table[i, c] += ((np.rint(shifted) - shifted) ** 2).sum() * step**2
        table[i] /= max(sum(x.size for x in arrays), 1)
    return table


def _candidates(graph: LayerGraph, least: float, memory_bytes: float) -> list[int]:
    """Finds the cuts that fit and send no more than the input, in the smallest width, and 0."""
    weights, outputs = _sizes(graph)
    cuts = range(len(graph.layers) + 1)
    sent = [
        sum(t.nbytes * (least if t.producer >= 0 else 1) for t in _crossing(graph, cut))
        for cut in cuts
    ]
    held = [least * (weights[:cut].sum() + outputs[:cut].max(initial=0)) for cut in cuts]
    kept = [k for k in cuts if k == 0 or (sent[k] <= sent[0] and held[k] <= memory_bytes)]
    return sorted(kept, key=lambda cut: sent[cut])


def _picked(errors: np.ndarray, columns: np.ndarray) -> float:
    return float(errors[np.arange(len(columns)), columns].sum())


def _crossing(graph: LayerGraph, cut: int) -> list[Tensor]:
    return [t for t in graph.tensors if t.producer < cut <= max(t.consumers, default=-1)]


def _sizes(graph: LayerGraph) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of the parameters and of the outputs of each layer, both ``[layers]``."""
    outputs = np.zeros(len(graph.layers))
    for tensor in graph.tensors:
        if tensor.producer >= 0:
            outputs[tensor.producer] += tensor.nbytes
    return np.array([layer.parameter_bytes for layer in graph.layers], float), outputs
