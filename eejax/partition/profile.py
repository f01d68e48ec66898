"""Profiles: a layer graph with measured seconds, as JSON.

```json
{
  "format": "eejax-profile", "version": 1,
  "granularity": "stage with its exit", "source": "measured on ...",
  "layers": [
    {"name": "conv", "seconds": {"raspberry_pi_4": 0.02, "edge": 0.001},
     "parameter_bytes": 400, "flops": 1e6, "bytes_moved": 1e5}
  ],
  "tensors": [{"name": "image", "producer": null, "consumers": ["conv"], "nbytes": 784}]
}
```

Layers are in the order in which they run, and costs are those of one sample. ``seconds`` are by the
name of a device or of a tier, the same names for all layers. ``flops`` and ``bytes_moved`` may be
left out of all layers.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eejax.names import suggest
from eejax.partition.graph import Layer, LayerGraph, Tensor, check
from eejax.tiers.cost import roofline
from eejax.tiers.nodes import Device
from eejax.tiers.topology import Topology

FORMAT, VERSION = "eejax-profile", 1


class Profile(NamedTuple):
    """A model with the seconds that its layers took.

    Attributes:
      graph: the model; FLOP and bytes moved are 0 where the profile leaves them out.
      seconds: ``[layers]`` by the name of a device or tier.
      source: where the seconds come from.
    """

    graph: LayerGraph
    seconds: dict[str, np.ndarray]
    source: str


def from_profile(profile: str | os.PathLike | Mapping[str, Any]) -> Profile:
    """Reads a profile.

    Args:
      profile: path of a JSON file, or what it holds, in the form that the module shows.

    Returns:
      The profile.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no JSON, the format or version is another, a field is unknown, missing
        or of the wrong type, seconds are negative or not finite, or the graph has a fault.

    Example:
      >>> conv = {"name": "conv", "seconds": {"phone": 0.02}, "parameter_bytes": 400}
      >>> image = {"name": "image", "producer": None, "consumers": ["conv"], "nbytes": 784}
      >>> profile = from_profile(
      ...     {"format": "eejax-profile", "version": 1, "granularity": "layer", "source": "a test",
      ...      "layers": [conv], "tensors": [image]}
      ... )
      >>> profile.seconds["phone"].tolist(), profile.graph.layers[0].name
      ([0.02], 'conv')
    """
    if isinstance(profile, Mapping):
        return _read(profile)
    try:
        return _read(json.loads(Path(profile).read_text(encoding="utf-8")))
    except ValueError as error:  # JSON and Unicode errors are of this class, too.
        raise ValueError(f"{os.fspath(profile)}: {error}") from error


def to_profile(profile: Profile) -> dict[str, Any]:
    """Writes a profile as plain data; `from_profile` gives back an equal one.

    Args:
      profile: any profile.

    Returns:
      Dicts, lists, strings and numbers, ready for JSON.
    """
    names = [layer.name for layer in profile.graph.layers]
    layers = [
        layer._asdict() | {"seconds": {name: float(s[i]) for name, s in profile.seconds.items()}}
        for i, layer in enumerate(profile.graph.layers)
    ]
    tensors = [
        {
            "name": tensor.name,
            "producer": None if tensor.producer < 0 else names[tensor.producer],
            "consumers": [names[i] for i in tensor.consumers],
            "nbytes": tensor.nbytes,
        }
        for tensor in profile.graph.tensors
    ]
    head = {"format": FORMAT, "version": VERSION, "granularity": profile.graph.granularity}
    return head | {"source": profile.source, "layers": layers, "tensors": tensors}


def layer_seconds(
    profile: Profile,
    topology: Topology,
    *,
    factors: Mapping[str, float] | None = None,
    measured_on: Device | None = None,
) -> np.ndarray:
    """Gives each tier its measured seconds, for pricing in place of the roofline.

    A tier takes, in this order: the seconds of the only device of the profile times its factor, the
    seconds under its own name, the mean of those under the names of its nodes' devices, or those of
    the only device of the profile times the ratio of rooflines, layer by layer, of its nodes to
    ``measured_on``. The last keeps how far each layer stays below the roofline.

    Args:
      profile: a profile.
      topology: the system.
      factors: how many times slower than measured a tier is, by its name.
      measured_on: the device that the profile was measured on.

    Returns:
      Seconds ``[layers, tiers]``.

    Raises:
      ValueError: a tier has no seconds, a factor has no tier or is not above 0, or several devices
        were measured where one is scaled.

    Example:
      >>> from eejax.tiers import three_tier
      >>> layers = (Layer("conv", 1e6, 1e5, 400),)
      >>> graph = LayerGraph(layers, (Tensor("image", -1, (0,), 784),), "layer")
      >>> profile = Profile(graph, {"edge": np.array([0.001])}, "a test")
      >>> layer_seconds(profile, three_tier(), factors={"end": 20, "cloud": 0.1}).tolist()
      [[0.02, 0.001, 0.0001]]
    """
    factors = dict(factors or {})
    for name, factor in factors.items():
        topology.tier_index(name)
        if not 0 < factor < np.inf:
            raise ValueError(f"factors[{name!r}] must be finite and > 0, got {factor}")
    layers = profile.graph.layers

    def only() -> np.ndarray:
        if len(profile.seconds) != 1:
            raise ValueError(
                f"the profile must hold one device to be scaled, got {', '.join(profile.seconds)}"
            )
        return next(iter(profile.seconds.values()))

    columns = []
    for tier in topology.tiers:
        devices = set(np.atleast_1d(tier.devices.name).tolist())
        if tier.name in factors:
            columns.append(factors[tier.name] * only())
        elif tier.name in profile.seconds:
            columns.append(profile.seconds[tier.name])
        elif devices <= profile.seconds.keys():
            nodes = [profile.seconds[name] for name in tier.devices.name]
            columns.append(np.mean(nodes, 0))
        elif measured_on is not None:
            flops, moved = np.array([layer[1:3] for layer in layers], float).T[:, :, None]
            if not (flops + moved).any():
                raise ValueError("measured_on needs the flops and bytes_moved of the layers")
            here = np.broadcast_to(roofline(measured_on, flops, moved), flops.shape)[:, 0]
            there = roofline(tier.devices, flops, moved).mean(1)
            ratio = np.divide(there, here, out=np.ones_like(here), where=here > 0)
            columns.append(ratio * only())
        else:
            raise ValueError(
                f"tier {tier.name!r} has no seconds: the profile holds those of "
                f"{', '.join(profile.seconds)}; give factors={{{tier.name!r}: ...}} or measured_on"
            )
    return np.stack(columns, 1)


def _read(data: Any) -> Profile:
    _check_fields(
        "profile", data, {"format", "version", "granularity", "source", "layers", "tensors"}
    )
    for field, value in (("format", FORMAT), ("version", VERSION)):
        if data[field] != value:
            raise ValueError(f"{field} must be {value!r}, got {data[field]!r}")
    layers, rows = [], []
    for i, row in enumerate(_list("layers", data["layers"])):
        path = f"layers[{i}]"
        _check_fields(path, row, {"name", "seconds", "parameter_bytes"}, {"flops", "bytes_moved"})
        numbers = [
            _number(f"{path}.{field}", row.get(field, 0))
            for field in ("flops", "bytes_moved", "parameter_bytes")
        ]
        layers.append(Layer(_text(f"{path}.name", row["name"]), *numbers))
        names = rows[0] if rows else row["seconds"]
        _check_fields(f"{path}.seconds", row["seconds"], set(names))
        rows.append({k: _number(f"{path}.seconds.{k}", v) for k, v in row["seconds"].items()})
    if not rows or not rows[0]:
        raise ValueError("layers[0].seconds must hold those of at least one device or tier")
    index: dict[str, int] = {}
    for i, layer in enumerate(layers):
        if index.setdefault(layer.name, i) != i:
            raise ValueError(f"layers[{i}].name {layer.name!r} is used before already")

    def find(path: str, name: Any) -> int:
        if name not in index:
            raise ValueError(f"{path} {name!r} is no layer{suggest(str(name), index)}")
        return index[name]

    tensors = []
    for i, row in enumerate(_list("tensors", data["tensors"])):
        path = f"tensors[{i}]"
        _check_fields(path, row, {"name", "producer", "consumers", "nbytes"})
        producer = row["producer"]
        consumers = [
            find(f"{path}.consumers[{j}]", name)
            for j, name in enumerate(_list(f"{path}.consumers", row["consumers"], 0))
        ]
        tensors.append(
            Tensor(
                _text(f"{path}.name", row["name"]),
                -1 if producer is None else find(f"{path}.producer", producer),
                tuple(sorted(consumers)),
                _number(f"{path}.nbytes", row["nbytes"]),
            )
        )
    granularity = _text("granularity", data["granularity"])
    graph = check(LayerGraph(tuple(layers), tuple(tensors), granularity))
    seconds = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Profile(graph, seconds, _text("source", data["source"]))


def _check_fields(
    path: str, data: Any, required: Collection[str], optional: Collection[str] = ()
) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} must be an object of fields, got {data!r}")
    allowed = sorted({*required, *optional})
    for name in data:
        if name not in allowed:
            raise ValueError(
                f"{path} has the unknown field {name!r}{suggest(str(name), allowed)}; "
                f"fields are {', '.join(allowed)}"
            )
    for name in sorted(required):
        if name not in data:
            raise ValueError(f"{path} misses field {name!r}")


def _list(path: str, value: Any, least: int = 1) -> list:
    if not isinstance(value, list | tuple) or len(value) < least:
        raise ValueError(f"{path} must be a list{', not empty' * least}, got {value!r}")
    return list(value)


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{path} must be a string, not empty, got {value!r}")
    return value


def _number(path: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf:
        raise ValueError(f"{path} must be a number >= 0 and finite, got {value!r}")
    return value
