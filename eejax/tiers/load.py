"""Topologies as data: plain dicts and TOML files, in and out.

A tier is a list of groups of equal nodes. A device or link is the name of a preset, or a table of
fields; ``preset`` in a table fills in the fields that are not given. Any field may be a list of
``count`` values. For example:

```toml
[[tiers]]
name = "end"
nodes = [
  {count = 5, device = "raspberry_pi_4", link = "wifi", parent = 0},
  {count = 3, device = "phone", link = {preset = "lte_4g", rtt_s = 0.05}, parent = [0, 1, 1]},
]

[[tiers]]
name = "edge"
nodes = [{count = 2, device = "edge_server", link = "wan", parent = 0}]

[[tiers]]
name = "cloud"
nodes = [{device = "cloud_gpu"}]
```
"""

import dataclasses
import json
import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eejax.names import suggest
from eejax.tiers.nodes import Device, Link, fields_of, repeat, stack
from eejax.tiers.presets import DEVICES, LINKS, three_tier
from eejax.tiers.topology import Tier, Topology, make_tier


def load(name_or_path: str | os.PathLike) -> Topology:
    """Loads the topology that a config names.

    Args:
      name_or_path: name of a preset link, for ``three_tier(end_edge=name)``; the path of a file
        that ends in ``.toml``; or one node a tier, as devices and the links between them from the
        lowest up, such as ``"phone,wifi,edge_server,wan,cloud_gpu"``. A device there is the name of
        a preset, or a file of fields.

    Returns:
      The topology.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the name is unknown, or the file is wrong; names the field.

    Example:
      >>> load("lte_4g").tiers[0].link(0).name
      'lte_4g'
      >>> load("phone,wifi,cloud_gpu").names
      ('end', 'cloud')
    """
    text = os.fspath(name_or_path)
    if "," in text:
        return _chain(text)
    if text.endswith(".toml"):
        return from_toml(text)
    if text not in LINKS:
        raise ValueError(
            f"topology {text!r} is none of {', '.join(LINKS)}, no chain such as "
            f"phone,wifi,cloud_gpu, and no path of a .toml file{suggest(text, LINKS)}"
        )
    return three_tier(end_edge=text)


def from_toml(path: str | os.PathLike) -> Topology:
    """Reads a topology from a TOML file, whose form the module shows.

    Args:
      path: path of the file.

    Returns:
      The topology.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no TOML, or a field is wrong; names file and field.
    """
    try:
        return from_dict(_parsed(Path(path)), Path(path).parent)
    except ValueError as error:  # TOML and Unicode errors are of this class, too.
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def from_dict(data: Mapping[str, Any], folder: str | os.PathLike = ".") -> Topology:
    """Builds a topology from plain data, in the form that the module shows.

    Args:
      data: ``{"tiers": [{"name": ..., "nodes": [{"count", "device", "link", "parent"}]}]}``;
        ``count`` is 1 if left out, the top tier has neither ``link`` nor ``parent``.
      folder: where the paths of files of fields start from.

    Returns:
      The topology.

    Raises:
      FileNotFoundError: there is no such file of fields.
      ValueError: a field is unknown, missing, of the wrong type or out of range; names it, such as
        ``tiers[0].nodes[1].link.rtt_s``.
    """
    _check_fields("", data, {"tiers"})
    tiers = _list("tiers", data["tiers"])
    return Topology(tuple(_tier(f"tiers[{i}]", tier, Path(folder)) for i, tier in enumerate(tiers)))


def to_dict(topology: Topology) -> dict[str, Any]:
    """Writes a topology as plain data; `from_dict` gives back an equal one.

    Args:
      topology: any topology.

    Returns:
      Dicts, lists, strings and numbers, ready for JSON. A tier is one group, in which a field that
      differs between nodes is a list.
    """
    tiers = []
    for tier in topology.tiers:
        group = {"count": tier.nodes, "device": _columns(tier.devices)}
        if tier.links is not None:
            group |= {"link": _columns(tier.links), "parent": _column(tier.parent)}
        tiers.append({"name": tier.name, "nodes": [group]})
    return {"tiers": tiers}


def _columns(node: Device | Link) -> dict[str, Any]:
    return {name: _column(values) for name, values in fields_of(node).items()}


def _column(values: np.ndarray) -> Any:
    constant = (values == values[0]).all()
    return values[:1].tolist()[0] if constant else values.tolist()


def _chain(text: str) -> Topology:
    parts = [part.strip() for part in text.split(",")]
    devices, links = parts[::2], parts[1::2]
    if len(devices) != len(links) + 1 or not all(parts):
        raise ValueError(
            f"topology {text!r} must alternate devices and links, from a device up to a device, "
            "such as phone,wifi,cloud_gpu"
        )
    known = {2: ("end", "cloud"), 3: ("end", "edge", "cloud")}
    names = known.get(len(devices), [f"tier{i}" for i in range(len(devices))])
    tiers = []
    for i, (name, device) in enumerate(zip(names, devices)):
        node = {"device": {"file": device} if "." in device else device}
        if i < len(links):
            node |= {"link": links[i], "parent": 0}
        tiers.append({"name": name, "nodes": [node]})
    return from_dict({"tiers": tiers})


def _parsed(path: Path) -> Any:
    parse = json.loads if path.suffix == ".json" else tomllib.loads
    return parse(path.read_text(encoding="utf-8"))


def _tier(path: str, data: Any, folder: Path) -> Tier:
    _check_fields(path, data, {"name", "nodes"})
    groups = _list(f"{path}.nodes", data["nodes"])
    linked = [isinstance(group, Mapping) and "link" in group for group in groups]
    parts = [
        _group(f"{path}.nodes[{i}]", group, any(linked), folder) for i, group in enumerate(groups)
    ]
    devices, links, parents = zip(*parts)
    up = (stack(links), np.concatenate(parents)) if any(linked) else ()
    return _at(f"{path}.", make_tier, data["name"], stack(devices), *up)


def _group(
    path: str, data: Any, linked: bool, folder: Path
) -> tuple[Device, Link | None, np.ndarray | None]:
    """Reads equal nodes; ``linked`` asks for the link and parent of each."""
    up = {"link", "parent"}
    _check_fields(path, data, {"device"} | (up if linked else set()), {"count"} | up)
    nodes = data.get("count", 1)
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise ValueError(f"{path}.count must be an integer >= 1, got {nodes!r}")
    device = _node(f"{path}.device", data["device"], Device, folder)
    device = _at(f"{path}.device ", repeat, device, nodes)
    if not linked:
        if "parent" in data:
            raise ValueError(f"{path} misses field 'link', which goes with 'parent'")
        return device, None, None
    link = _node(f"{path}.link", data["link"], Link, folder)
    link = _at(f"{path}.link ", repeat, link, nodes)
    parent = _at(f"{path}.parent: ", np.asarray, data["parent"])
    if parent.dtype.kind not in "iu" or parent.shape not in ((), (nodes,)):
        raise ValueError(
            f"{path}.parent must be a node index or {nodes} of them, got {data['parent']!r}"
        )
    return device, link, np.broadcast_to(parent, nodes)


def _node(path: str, data: Any, kind: type, folder: Path) -> Device | Link:
    """Reads a device or link: the name of a preset, or fields, maybe over a preset or a file."""
    given = {"preset": data} if isinstance(data, str) else data
    fields = {field.name for field in dataclasses.fields(kind)}
    origins = [o for o in ("preset", "file") if isinstance(given, Mapping) and o in given]
    _check_fields(path, given, set() if origins else fields, fields | {"preset", "file"})
    given = dict(given)
    if not origins:
        return _at(f"{path}.", kind, **given)
    if len(origins) > 1:
        raise ValueError(f"{path} must have preset or file, not both")
    if origins == ["file"]:
        base = _file_fields(f"{path}.file", given.pop("file"), fields, folder)
    else:
        where = path if isinstance(data, str) else f"{path}.preset"
        base = _preset_fields(where, given.pop("preset"), DEVICES if kind is Device else LINKS)
    changed = sorted(given.keys() - {"name", "source"})
    if changed and "source" not in given:
        # The source of the others does not vouch for numbers of the user.
        given["source"] = f"{base['source']}; changed by the user: {', '.join(changed)}"
    return _at(f"{path}.", kind, **(base | given))


def _preset_fields(path: str, name: Any, presets: Mapping[str, Device | Link]) -> dict[str, Any]:
    if not isinstance(name, str) or name not in presets:
        hint = suggest(str(name), presets)
        raise ValueError(f"{path} {name!r} is none of {', '.join(presets)}{hint}")
    return fields_of(presets[name])


def _file_fields(path: str, name: Any, fields: set[str], folder: Path) -> dict[str, Any]:
    if not isinstance(name, str):
        raise ValueError(f"{path} must be the path of a file, got {name!r}")
    base = _at(f"{path} {name}: ", _parsed, folder / name)
    _check_fields(f"{path} {name}", base, fields)
    return dict(base)


def _at(prefix: str, function: Callable, *args, **kwargs) -> Any:
    """Calls a function, and puts the prefix in front of its errors."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _list(path: str, value: Any) -> list:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{path} must be a list, not empty, got {value!r}")
    return list(value)


def _check_fields(
    path: str, data: Any, required: Collection[str], optional: Collection[str] = ()
) -> None:
    where = path or "topology"
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be a table of fields, got {data!r}")
    allowed = sorted({*required, *optional})
    for name in data:
        if name not in allowed:
            raise ValueError(
                f"{where} has the unknown field {name!r}{suggest(str(name), allowed)}; "
                f"fields are {', '.join(allowed)}"
            )
    for name in sorted(required):
        if name not in data:
            raise ValueError(f"{where} misses field {name!r}")
