"""The graph of whatever a user names: a network of the zoo, a file, or a function."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import partition
from eejax.experiment.runs.partition.config import FEATURES, INPUT_BYTES, Partition
from eejax.models import zoo
from eejax.names import suggest
from eejax.partition.estimate import fit_device
from eejax.tiers import DEVICES, Device, Topology

FOLDS = 5  # Of the cross-validation of a fitted roofline.


class Source(NamedTuple):
    """A model to be cut.

    Attributes:
      graph: its layers and tensors.
      unknown: how often operations occur whose FLOP no rule tells, by name.
      layer_seconds: measured seconds ``[layers, tiers]``, or None for the roofline.
      note: where the costs come from.
      raw: bytes of the raw input by its dtype, for images; else empty.
    """

    graph: partition.LayerGraph
    unknown: dict[str, int]
    layer_seconds: np.ndarray | None
    note: str
    raw: dict[str, float] = {}  # noqa: RUF012


def load_source(config: Partition, topology: Topology) -> Source:
    """Reads or traces the model of a config.

    Args:
      config: the fields.
      topology: whose tiers a profile must know.

    Returns:
      The model.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: there is no such module, or ``onnx`` is missing.
      ValueError: a field is wrong; names it.
    """
    name = config.model
    if config.side and name not in zoo.NAMES:
        raise ValueError(f"side is for networks of the zoo alone, not for model {name!r}")
    if name.endswith(".onnx"):
        source = _from_onnx(config)
    elif name.endswith(".json"):
        source = _from_profile(config, topology)
    else:
        apply, params, example = load_function(config)
        raw = {}
        if name in zoo.NAMES and example.dtype != "int32":
            raw = {dtype: example.size * size for dtype, size in INPUT_BYTES.items()}
        source = _from_traced(trace_function(config, apply, params, example), config, raw)
    return source._replace(graph=_written(source.graph, config.features))


def _from_onnx(config: Partition) -> Source:
    if config.granularity.startswith("depth"):
        raise ValueError("granularity of an ONNX file must be operator, layer or block")
    graph = partition.from_onnx(config.model, config.granularity, input_dtype=config.input)
    return Source(graph, {}, None, "roofline of FLOP and bytes counted from the file")


def load_function(config: Partition) -> tuple[Any, Any, Any]:
    """Finds a network of the zoo, or a function of a module.

    Args:
      config: the fields.

    Returns:
      ``(apply, params, example)``; those of the zoo are abstract.

    Raises:
      ImportError: the module lacks something that it imports.
      ValueError: there is none of that name.
    """
    name = config.model
    if ":" in name:
        return _imported(name)
    if name not in zoo.NAMES:
        raise ValueError(
            f"model {name!r} is no .onnx or .json file, no module:function, and none of "
            f"{', '.join(zoo.NAMES)}{suggest(name, zoo.NAMES)}"
        )
    network = zoo.model(name)
    example = network.example
    if example.dtype != "int32":
        shape = (1, config.side, config.side, 3) if config.side else example.shape
        example = example.update(shape=shape, dtype=config.input)
    return network.apply, jax.eval_shape(network.init, jax.random.key(0), example), example


def trace_function(config: Partition, apply: Any, params: Any, example: Any) -> partition.Traced:
    """Traces a function at the granularity of a config, where blocks are made of operators.

    Args:
      config: the fields.
      apply: as for `partition.from_function`.
      params: the same.
      example: the same.

    Returns:
      The function, traced.

    Raises:
      ValueError: the granularity is wrong, or the function cannot be traced.
    """
    found = re.fullmatch(r"operator|block|depth:([1-9]\d*)", config.granularity)
    if not found:
        raise ValueError(
            f"granularity {config.granularity!r} of a function must be operator, block or depth:K"
        )
    return partition.from_function(apply, params, example, depth=found[1] and int(found[1]))


def _from_traced(traced: partition.Traced, config: Partition, raw: dict[str, float]) -> Source:
    graph = traced.graph
    if config.granularity == "block":
        graph = partition.to_blocks(graph)
    note = "roofline of FLOP and bytes counted from the trace"
    return Source(graph, traced.unknown, None, note, raw)


def _from_profile(config: Partition, topology: Topology) -> Source:
    profile = partition.from_profile(config.model)
    names = ", ".join(profile.seconds)
    note = f"measured: {profile.source}"
    device = None
    flops, moved = np.array([row[1:3] for row in profile.graph.layers], float).T
    if config.measured_on:
        device = _device(config.measured_on)
        note += f"; scaled by rooflines from {names} to what was not measured"
    elif len(profile.seconds) == 1 and len(flops) >= FOLDS and (flops + moved > 0).all():
        (seconds,) = profile.seconds.values()
        start = dataclasses.replace(DEVICES["edge_server"], name=names, source=profile.source)
        device, error = fit_device(start, flops, moved, np.maximum(seconds, 1e-9), folds=FOLDS)
        note += (
            f"; scaled from {names} to what was not measured, by a roofline fitted to these "
            f"layers, whose median error on held-out ones is {100 * error.median:.0f} %"
        )
    seconds = partition.layer_seconds(profile, topology, measured_on=device)
    return Source(profile.graph, {}, seconds, note)


def _device(name: str) -> Device:
    if name in DEVICES:
        return DEVICES[name]
    if name.endswith((".toml", ".json")):
        return partition.read_device(name)
    raise ValueError(
        f"measured_on {name!r} is no .toml or .json file, and none of {', '.join(DEVICES)}"
        f"{suggest(name, DEVICES)}"
    )


def _imported(name: str) -> tuple[Any, Any, Any]:
    module, _, function = name.partition(":")
    path = Path(module)
    if path.suffix == ".py":
        raise ValueError(f"model {name!r}: name the module as Python imports it, without .py")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ImportError(f"model {name!r}: {module} cannot be imported: {error}") from error
        raise ValueError(f"model {name!r}: there is no module {error.name!r}") from error
    if not hasattr(found, function):
        raise ValueError(
            f"model {name!r}: {module} has no {function!r}{suggest(function, dir(found))}"
        )
    made = getattr(found, function)()
    if not isinstance(made, tuple) or len(made) != 3:
        raise ValueError(f"model {name!r}: {function}() must give (apply, params, example)")
    return made


def _written(graph: partition.LayerGraph, features: str) -> partition.LayerGraph:
    """Shrinks what crosses links, but for the input, which is as the sensor makes it."""
    scale = FEATURES[features]
    tensors = tuple(
        t if t.producer < 0 else t._replace(nbytes=t.nbytes * scale) for t in graph.tensors
    )
    return graph._replace(tensors=tensors)
