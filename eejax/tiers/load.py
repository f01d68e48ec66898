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
      name_or_path: name of a preset link, for ``three_tier(end_edge=name)``, or the path of a file
        that ends in ``.toml``.

    Returns:
      The topology.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the name is unknown, or the file is wrong; names the field.

    Example:
      >>> load("lte_4g").tiers[0].link(0).name
      'lte_4g'
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml"):
        return from_toml(text)
    if text not in LINKS:
        raise ValueError(
            f"topology {text!r} is none of {', '.join(LINKS)}, and no path of a .toml file"
            f"{suggest(text, LINKS)}"
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
        return from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except ValueError as error:  # TOML and Unicode errors are of this class, too.
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def from_dict(data: Mapping[str, Any]) -> Topology:
    """Builds a topology from plain data, in the form that the module shows.

    Args:
      data: ``{"tiers": [{"name": ..., "nodes": [{"count", "device", "link", "parent"}]}]}``;
        ``count`` is 1 if left out, the top tier has neither ``link`` nor ``parent``.

    Returns:
      The topology.

    Raises:
      ValueError: a field is unknown, missing, of the wrong type or out of range; names it, such as
        ``tiers[0].nodes[1].link.rtt_s``.
    """
    _check_fields("", data, {"tiers"})
    tiers = _list("tiers", data["tiers"])
    return Topology(tuple(_tier(f"tiers[{i}]", tier) for i, tier in enumerate(tiers)))


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


def _tier(path: str, data: Any) -> Tier:
    _check_fields(path, data, {"name", "nodes"})
    groups = _list(f"{path}.nodes", data["nodes"])
    linked = [isinstance(group, Mapping) and "link" in group for group in groups]
    parts = [_group(f"{path}.nodes[{i}]", group, any(linked)) for i, group in enumerate(groups)]
    devices, links, parents = zip(*parts)
    up = (stack(links), np.concatenate(parents)) if any(linked) else ()
    return _at(f"{path}.", make_tier, data["name"], stack(devices), *up)


def _group(path: str, data: Any, linked: bool) -> tuple[Device, Link | None, np.ndarray | None]:
    """Reads equal nodes; ``linked`` asks for the link and parent of each."""
    up = {"link", "parent"}
    _check_fields(path, data, {"device"} | (up if linked else set()), {"count"} | up)
    nodes = data.get("count", 1)
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise ValueError(f"{path}.count must be an integer >= 1, got {nodes!r}")
    device = _at(f"{path}.device ", repeat, _node(f"{path}.device", data["device"], Device), nodes)
    if not linked:
        if "parent" in data:
            raise ValueError(f"{path} misses field 'link', which goes with 'parent'")
        return device, None, None
    link = _at(f"{path}.link ", repeat, _node(f"{path}.link", data["link"], Link), nodes)
    parent = _at(f"{path}.parent: ", np.asarray, data["parent"])
    if parent.dtype.kind not in "iu" or parent.shape not in ((), (nodes,)):
        raise ValueError(
            f"{path}.parent must be a node index or {nodes} of them, got {data['parent']!r}"
        )
    return device, link, np.broadcast_to(parent, nodes)


def _node(path: str, data: Any, kind: type) -> Device | Link:
    """Reads a device or link: the name of a preset, or fields over a preset."""
    presets = DEVICES if kind is Device else LINKS
    given = {"preset": data} if isinstance(data, str) else data
    fields = {field.name for field in dataclasses.fields(kind)}
    has_preset = isinstance(given, Mapping) and "preset" in given
    _check_fields(path, given, set() if has_preset else fields, fields | {"preset"})
    given = dict(given)
    if not has_preset:
        return _at(f"{path}.", kind, **given)
    name = given.pop("preset")
    if not isinstance(name, str) or name not in presets:
        where = path if isinstance(data, str) else f"{path}.preset"
        hint = suggest(str(name), presets)
        raise ValueError(f"{where} {name!r} is none of {', '.join(presets)}{hint}")
    changed = sorted(given.keys() - {"name", "source"})
    if changed and "source" not in given:
        # The source of the preset does not vouch for numbers of the user.
        given["source"] = f"{presets[name].source}; changed by the user: {', '.join(changed)}"
    return _at(f"{path}.", kind, **(fields_of(presets[name]) | given))


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
