"""Measures the layers of a model on this machine, each as a program of its own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eejax import partition
from eejax.experiment.runs.partition.config import Partition, check_config
from eejax.experiment.runs.partition.solve import SOLVERS
from eejax.experiment.runs.partition.source import load_function, trace_function
from eejax.experiment.tables import Table, si
from eejax.models import zoo
from eejax.partition.measure import measured_on, time_calls
from eejax.partition.slicing import input_names


class Measured(NamedTuple):
    """What was measured.

    Attributes:
      profile: as `partition.from_profile` reads it.
      seconds: median of each layer, ``[layers]``.
      whole: median of the model as one program, which XLA can fuse across layers.
    """

    profile: dict[str, Any]
    seconds: np.ndarray
    whole: float


def profile_model(config: Partition, device: str, repeats: int) -> Measured:
    """Measures a network of the zoo, or a function of a module, one sample at a time.

    Parameters are drawn at random and the input is empty: values do not change the time of these
    operations. Every layer is compiled and called alone, all in turns, so its seconds hold the
    launch of a program.

    Args:
      config: its fields ``model``, ``granularity``, ``input`` and ``side`` count.
      device: name of this machine in the profile.
      repeats: timed rounds, of which the median counts.

    Returns:
      The profile and its seconds.

    Raises:
      ValueError: a field is wrong; names it.
    """
    if config.model.endswith((".onnx", ".json")):
        raise ValueError(f"model {config.model!r} is a file, of which nothing can be run here")
    check_config(config, tuple(SOLVERS))
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    apply, params, example = load_function(config)
    traced = trace_function(config, apply, params, example)
    if traced.samples != 1:
        raise ValueError(f"the example must hold one sample, got {traced.samples}")
    if config.model in zoo.NAMES:
        params = jax.jit(zoo.model(config.model).init)(jax.random.key(0), _filled(example))
    params, example = _filled(params), _filled(example)

    graph, layers = traced.graph, len(traced.graph.layers)
    own = np.arange(layers)
    if config.granularity == "block":
        graph = partition.to_blocks(graph)
        starts = {layer.name for layer in graph.layers}
        own = np.cumsum([layer.name in starts for layer in traced.graph.layers]) - 1
    wire = dict(zip(input_names(example), jax.tree.leaves(example)))
    calls = []
    for program in partition.slice_tiers(traced, own.tolist()):
        held = partition.own_params(program, params)
        reads = {name: wire[name] for name in program.reads}
        calls.append(lambda p=program, held=held, reads=reads: p.apply(held, reads))
        wire |= calls[-1]()
    whole = jax.jit(apply)
    *seconds, all_in_one = np.median(
        time_calls([*calls, lambda: whole(params, example)], repeats=repeats), 0
    ).tolist()
    source = f"{measured_on()}, median of {repeats} runs of one sample, each layer its own program"
    profile = partition.Profile(graph, {device: np.array(seconds)}, source)
    return Measured(partition.to_profile(profile), np.array(seconds), all_in_one)


def measured_tables(measured: Measured) -> tuple[Table, Table]:
    """Lays out what was measured.

    Args:
      measured: from `profile_model`.

    Returns:
      The layers, and their sum beside the model as one program.
    """
    rows = [
        [row["name"], si(s, "s"), si(row["flops"], "FLOP"), si(row["flops"] / s, "FLOP/s"),
         si(row["bytes_moved"] / s, "B/s")]
        for row, s in zip(measured.profile["layers"], measured.seconds.tolist())
    ]  # fmt: skip
    whole, total = measured.whole, float(measured.seconds.sum())
    return (
        Table("Layers, measured one by one.",
              ["layer", "time", "work", "computed", "memory moved"], rows),
        Table("The model.", ["what", "time"],
              [["sum of its layers", si(total, "s")],
               ["as one program", si(whole, "s")],
               ["sum / one program", f"{total / whole:.2f}"]]),
    )  # fmt: skip


def _filled(tree: Any) -> Any:
    """Replaces abstract arrays by zeros; zeros of floats by a small number."""

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jnp.full(leaf.shape, 0.01 if jnp.issubdtype(leaf.dtype, jnp.floating) else 0,
                        leaf.dtype)  # fmt: skip

    return jax.tree.map(fill, tree)
