"""JALAD: the cut of a chain and the bit-width of the features that cross it, within a loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eejax.core import Codec, StagedModel
from eejax.models.staged import run_stage
from eejax.partition.graph import LayerGraph, check
from eejax.partition.objective import Objective
from eejax.partition.objective import objective as judge
from eejax.partition.plan import Plan, pricer
from eejax.partition.rates import LinkCodec, rates_of
from eejax.partition.two_tiers import check_chain, tier_pair
from eejax.tiers.topology import Topology

PyTree = Any


class JaladPlan(NamedTuple):
    """A cut and how its features travel.

    Attributes:
      plan: priced with the bytes of these features.
      bits: bit-width of the features; None where no features cross.
      loss: of accuracy, as given; 0 where no features cross.
    """

    plan: Plan
    bits: int | None
    loss: float


class Measured(NamedTuple):
    """What compressing the features of each stage but the last does.

    Attributes:
      loss: accuracy lost, ``[stages - 1, codecs]``; below 0 where it rose.
      nbytes: mean bytes of one sample, ``[stages - 1, codecs]``.
    """

    loss: np.ndarray
    nbytes: np.ndarray


def jalad(
    graph: LayerGraph,
    topology: Topology,
    objective: Objective = "latency",
    *,
    bits: Sequence[int],
    loss: Any,
    nbytes: Any,
    max_loss: float,
    codec_s: Any = 0.0,
    tiers: Sequence[str | int] | None = None,
    **keywords: Any,
) -> JaladPlan:
    """Takes the best pair of a cut and a bit-width whose loss of accuracy is within a bound.

    The integer program of the paper has one binary for each pair, exactly one of which is 1, so
    its feasible points are the pairs: all of them are priced, which is exact. Features are
    quantised over their range and entropy-coded, so their bytes depend on data and are given, as by
    `measure`. Without features on the link, that is with all layers on one of the two tiers,
    nothing is lost; the raw input travels as the graph says.

    Args:
      graph: a chain.
      topology: the system.
      objective: one of `OBJECTIVES`, or weights of several; the paper minimises latency.
      bits: bit-widths to choose from.
      loss: accuracy lost when the features of each layer but the last cross in each bit-width,
        ``[layers - 1, bits]``; infinite where a cut is not to be.
      nbytes: bytes of one sample of these features, ``[layers - 1, bits]``.
      max_loss: most accuracy that may be lost.
      codec_s: seconds to encode and decode them, that broadcasts to ``[layers - 1, bits]``.
      tiers: lower and higher tier; the lowest and the highest if None.
      **keywords: as for `rates_of`, without ``two_way`` and ``codecs``.

    Returns:
      The best feasible pair; of equal ones that of less loss, then the one that keeps more layers
      below.

    Raises:
      ValueError: the graph is no chain (names the first tensor that branches), an argument is
        wrong, or nothing feasible is within the bound.

    References:
      Li et al., JALAD: Joint Accuracy- and Latency-Aware Deep Structure Decoupling for Edge-Cloud
      Execution, 2018 (from its abstract and accounts of others).

    Example:
      >>> from eejax.partition import Layer, Tensor
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400), Layer("dense", 1e11, 1e6, 5000))
      >>> tensors = (Tensor("image", -1, (0,), 150_000), Tensor("features", 0, (1,), 400_000))
      >>> graph = LayerGraph(layers, tensors, "layer")
      >>> table = {"bits": (4, 8), "loss": [[0.02, 0.001]], "nbytes": [[2e4, 1e5]]}
      >>> for max_loss in (0.05, 0.005, 0.0):
      ...     best = jalad(graph, three_tier(), max_loss=max_loss, **table)
      ...     print(best.plan.name, best.bits)
      end:conv | cloud:dense 4
      end:conv | cloud:dense 8
      all-cloud None
    """
    if keywords.get("two_way"):
        raise ValueError("jalad sends data up only: leave two_way out, or use min_cut")
    if keywords.pop("codecs", ()):
        raise ValueError("jalad writes features in its own bit-widths: leave codecs out")
    low, high = tier_pair(topology, tiers)
    check_chain(check(graph), "jalad")
    features = [
        k for k, tensor in enumerate(graph.tensors) if tensor.consumers and tensor.producer >= 0
    ]
    layers, links = len(graph.layers), len(topology.tiers) - 1
    if len(features) != layers - 1:
        raise ValueError("jalad compresses one tensor at a cut: join those between the same layers")
    # In the order of their producers.
    features.sort(key=lambda k: graph.tensors[k].producer)
    shape = (layers - 1, len(bits))
    loss, nbytes, codec_s = (
        _table(name, value, shape)
        for name, value in (("loss", loss), ("nbytes", nbytes), ("codec_s", codec_s))
    )
    if not (nbytes >= 0).all() or not (codec_s >= 0).all():
        raise ValueError("nbytes and codec_s must be >= 0 everywhere")
    if np.isnan(max_loss):
        raise ValueError("max_loss must be a number, got nan")

    codecs = []
    for c, width in enumerate(bits):
        size, seconds = np.full(len(graph.tensors), np.inf), np.zeros((len(graph.tensors), links))
        size[features] = nbytes[:, c]
        # What passes tiers in between is not written again.
        seconds[features, low] = codec_s[:, c]
        codecs.append(LinkCodec(f"{width} bits", size, seconds))
    rates = rates_of(graph, topology, codecs=codecs, **keywords)

    def priced(cut: int, c: int | None) -> JaladPlan:
        choice = np.zeros((len(graph.tensors), links), int)
        if c is not None:
            choice[features[cut - 1], low:high] = c + 1
        plan = pricer(rates, choice)([low] * cut + [high] * (layers - cut))
        return JaladPlan(plan, *((None, 0.0) if c is None else (bits[c], loss[cut - 1, c])))

    usable = (loss <= max_loss) & np.isfinite(nbytes)
    pairs = [(int(i) + 1, int(c)) for i, c in np.argwhere(usable)]
    if max_loss >= 0:
        pairs += [(0, None), (layers, None)]
    rows = [(cut, priced(cut, c)) for cut, c in pairs]
    rows = [row for row in rows if row[1].plan.feasible]
    if not rows:
        raise ValueError(f"no feasible cut loses at most max_loss={max_loss:g}")
    _, best = min(rows, key=lambda row: (judge(row[1].plan, objective), row[1].loss, -row[0]))
    return best


def measure(
    model: StagedModel,
    params: dict[str, PyTree],
    x: Any,
    labels: Any,
    codecs: Sequence[Codec],
) -> Measured:
    """Measures the tables of `jalad` on data that were not trained on.

    Each sample is encoded alone, as it would travel, and the last exit answers.

    Args:
      model: a staged model of two stages or more.
      params: its parameters.
      x: inputs ``[batch, ...]``.
      labels: classes, ``[batch]``.
      codecs: one for each bit-width, such as ``chain(affine(8), deflate())``.

    Returns:
      The tables; rows are the stages, as the layers of `from_staged`.

    Example:
      >>> from eejax.models import staged_mlp
      >>> from eejax.models.staged import init
      >>> from eejax.wire import affine, identity
      >>> model, x = staged_mlp(classes=3, widths=(4, 4)), jnp.ones((2, 5))
      >>> params = init(model, jax.random.key(0), x)
      >>> measured = measure(model, params, x, jnp.zeros(2, int), [identity(), affine(8)])
      >>> measured.nbytes.tolist(), float(measured.loss[0, 0])
      ([[16.0, 9.0]], 0.0)
    """
    stages = len(model.stages)

    def accuracy(features: jax.Array, start: int) -> float:
        for i in range(start, stages):
            features, logits = run_stage(model, i, params, features)
        return float(jnp.mean(logits.argmax(-1) == labels))

    features, whole = jnp.asarray(x), accuracy(jnp.asarray(x), 0)
    loss, nbytes = np.zeros((2, stages - 1, len(codecs)))
    for i in range(stages - 1):
        features, _ = run_stage(model, i, params, features)
        for c, codec in enumerate(codecs):
            like = jax.ShapeDtypeStruct(features.shape[1:], features.dtype)
            payloads = [codec.encode(codec.init(like), sample, None)[1] for sample in features]
            nbytes[i, c] = np.mean([codec.nbytes(payload) for payload in payloads])
            received = jnp.stack([jnp.asarray(codec.decode(payload)) for payload in payloads])
            loss[i, c] = whole - accuracy(received, i + 1)
    return Measured(loss, nbytes)


def _table(name: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
    table = np.asarray(value, float)
    if name == "codec_s" and table.ndim < 2:
        table = np.broadcast_to(table, shape)
    if table.shape != shape:
        raise ValueError(f"{name} must be [layers - 1, bits] = {shape}, got shape {table.shape}")
    if np.isnan(table).any():
        raise ValueError(f"{name} must hold no nan")
    return table
