"""The graph of whatever a user names: a network of the zoo, a file, or a function."""

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eejax import partition
from eejax.experiment.runs.partition.config import FEATURES, Partition
from eejax.models import zoo
from eejax.names import suggest
from eejax.tiers import Topology


class Source(NamedTuple):
    """A model to be cut.

    Attributes:
      graph: its layers and tensors.
      unknown: how often operations occur whose FLOP no rule tells, by name.
      layer_seconds: measured seconds ``[layers, tiers]``, or None for the roofline.
      note: where the costs come from.
    """

    graph: partition.LayerGraph
    unknown: dict[str, int]
    layer_seconds: np.ndarray | None
    note: str


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
    if name.endswith(".onnx"):
        source = _from_onnx(config)
    elif name.endswith(".json"):
        profile = partition.from_profile(name)
        seconds = partition.layer_seconds(profile, topology)
        source = Source(profile.graph, {}, seconds, f"measured: {profile.source}")
    elif ":" in name:
        source = _from_function(config, *_imported(name))
    elif name in zoo.NAMES:
        network = zoo.model(name)
        example = network.example
        if example.dtype != "int32":
            example = example.update(dtype=config.input)
        params = jax.eval_shape(network.init, jax.random.key(0), network.example)
        source = _from_function(config, network.apply, params, example)
    else:
        raise ValueError(
            f"model {name!r} is no .onnx or .json file, no module:function, and none of "
            f"{', '.join(zoo.NAMES)}{suggest(name, zoo.NAMES)}"
        )
    return source._replace(graph=_written(source.graph, config.features))


def _from_onnx(config: Partition) -> Source:
    if config.granularity.startswith("depth"):
        raise ValueError("granularity of an ONNX file must be operator, layer or block")
    graph = partition.from_onnx(config.model, config.granularity, input_dtype=config.input)
    return Source(graph, {}, None, "roofline of FLOP and bytes counted from the file")


def _from_function(config: Partition, apply: Any, params: Any, example: Any) -> Source:
    found = re.fullmatch(r"operator|block|depth:([1-9]\d*)", config.granularity)
    if not found:
        raise ValueError(
            f"granularity {config.granularity!r} of a function must be operator, block or depth:K"
        )
    traced = partition.from_function(apply, params, example, depth=found[1] and int(found[1]))
    graph = traced.graph
    if config.granularity == "block":
        graph = partition.to_blocks(graph)
    return Source(graph, traced.unknown, None, "roofline of FLOP and bytes counted from the trace")


def _imported(name: str) -> tuple[Any, Any, Any]:
    module, _, function = name.partition(":")
    path = Path(module)
    if path.suffix == ".py":
        raise ValueError(f"model {name!r}: name the module as Python imports it, without .py")
    found = importlib.import_module(module)
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
