"""The modelled system: tiers of nodes, each node linked to its parent in the tier above."""

import dataclasses
import reprlib
from collections.abc import Sequence

import numpy as np

from eejax.names import suggest
from eejax.tiers.nodes import Device, Link, count, repeat, same_fields, stack, take


@dataclasses.dataclass(frozen=True, eq=False)
class Tier:
    """Nodes of one level; `make_tier` is the convenient way to make one.

    Attributes:
      name: name of the tier, such as ``"end"``.
      devices: the nodes, with fields ``[nodes]``.
      links: link of each node to its parent, with fields ``[nodes]``; None in the top tier.
      parent: int64 ``[nodes]``, the index of each node's parent in the tier above; None in the top
        tier.

    Raises:
      ValueError: a field is of the wrong type, or the numbers of nodes differ.
    """

    name: str
    devices: Device
    links: Link | None = None
    parent: np.ndarray | None = None

    def __post_init__(self):
        """Checks the fields, and freezes ``parent``."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a string, not empty, got {self.name!r}")
        for field, value, kind in (("devices", self.devices, Device), ("links", self.links, Link)):
            if value is None and field == "links":
                continue
            if not isinstance(value, kind) or np.ndim(value.name) == 0:
                raise ValueError(
                    f"{field} must be a {kind.__name__} with fields [nodes], "
                    f"got {reprlib.repr(value)}; make_tier makes one"
                )
            if count(value) != self.nodes:
                raise ValueError(f"{field} hold {count(value)} nodes, devices {self.nodes}")
        if (self.links is None) != (self.parent is None):
            missing, given = ("links", "parent") if self.links is None else ("parent", "links")
            raise ValueError(f"{missing} must be given with {given}, or neither in the top tier")
        if self.parent is not None:
            parent = np.array(self.parent)
            if parent.dtype.kind not in "iu" or parent.shape != (self.nodes,):
                raise ValueError(
                    f"parent must be {self.nodes} node indices, got {reprlib.repr(self.parent)}"
                )
            parent = parent.astype(np.int64)
            parent.setflags(write=False)
            # The class is frozen for its users; this is its constructor.
            object.__setattr__(self, "parent", parent)

    def __eq__(self, other):
        """Compares all fields; of two arrays, all elements."""
        return same_fields(self, other)

    def __len__(self) -> int:
        """Counts the nodes."""
        return count(self.devices)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self)

    def device(self, node: int) -> Device:
        """Gives one node.

        Raises:
          ValueError: there is no such node.
        """
        return take(self.devices, _node_index(self, node))

    def link(self, node: int) -> Link:
        """Gives the link of one node to its parent.

        Raises:
          ValueError: there is no such node, or this is the top tier, which has no links.
        """
        if self.links is None:
            raise ValueError(f"tier {self.name!r} is the top one: its nodes have no link upwards")
        return take(self.links, _node_index(self, node))


@dataclasses.dataclass(frozen=True)
class Topology:
    """Tiers from the data source upwards; every node has one path to the top.

    Attributes:
      tiers: at least one tier, such as end, edge and cloud; the last one has no links. A node
        without children is allowed.

    Raises:
      ValueError: a tier lacks its way up, a parent does not exist, or a name is used twice; names
        the field, such as ``tiers[0].parent[3]``.

    Example:
      >>> from eejax.tiers.presets import three_tier
      >>> topology = three_tier(ends=3, edges=2)
      >>> [(tier.name, tier.nodes) for tier in topology.tiers]
      [('end', 3), ('edge', 2), ('cloud', 1)]
      >>> topology.path(2), topology.children("edge", 0).tolist()
      ((2, 1, 0), [0, 1])
    """

    tiers: tuple[Tier, ...]

    def __post_init__(self):
        """Checks how the tiers fit together."""
        object.__setattr__(self, "tiers", tuple(self.tiers))
        if not self.tiers:
            raise ValueError("tiers must hold at least one tier")
        for i, tier in enumerate(self.tiers):
            if not isinstance(tier, Tier):
                raise ValueError(f"tiers[{i}] must be a Tier, got {reprlib.repr(tier)}")
            if tier.name in self.names[:i]:
                raise ValueError(f"tiers[{i}].name {tier.name!r} is used by a tier below already")
        top = len(self.tiers) - 1
        if self.tiers[top].links is not None:
            raise ValueError(f"tiers[{top}].links must be None: no tier is above")
        for i, (tier, above) in enumerate(zip(self.tiers, self.tiers[1:])):
            if tier.parent is None:
                raise ValueError(
                    f"tiers[{i}].links and parent must be given: without them {tier.name!r} has no "
                    f"path to {self.tiers[top].name!r}"
                )
            outside = (tier.parent < 0) | (tier.parent >= above.nodes)
            if outside.any():
                j = int(outside.argmax())
                raise ValueError(
                    f"tiers[{i}].parent[{j}] must be in [0, {above.nodes}), the nodes of "
                    f"{above.name!r}, got {tier.parent[j]}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tiers, from the data source upwards."""
        return tuple(tier.name for tier in self.tiers)

    def tier_index(self, tier: str | int) -> int:
        """Finds a tier.

        Args:
          tier: its name, or its index, which is only checked.

        Returns:
          Its index; 0 is the data source.

        Raises:
          ValueError: there is no such tier; tells the nearest name.
        """
        if isinstance(tier, str):
            if tier in self.names:
                return self.names.index(tier)
            names = ", ".join(self.names)
            raise ValueError(f"tier {tier!r} is none of {names}{suggest(tier, self.names)}")
        if not 0 <= tier < len(self.tiers):
            raise ValueError(f"tier index must be in [0, {len(self.tiers)}), got {tier}")
        return int(tier)

    def path(self, end: int) -> tuple[int, ...]:
        """Follows the links from one node of the lowest tier to the top.

        Args:
          end: index of the node.

        Returns:
          One node index for each tier, the first is ``end`` itself.

        Raises:
          ValueError: there is no such node.
        """
        path = [_node_index(self.tiers[0], end)]
        for tier in self.tiers[:-1]:
            path.append(int(tier.parent[path[-1]]))
        return tuple(path)

    def ancestor(self, tier: str | int) -> np.ndarray:
        """Finds the node of a tier through which each node of the lowest tier goes up.

        Args:
          tier: name or index of the tier.

        Returns:
          int64 ``[ends]``; use it to gather values of that tier for each end device.
        """
        nodes = np.arange(self.tiers[0].nodes)
        for below in self.tiers[: self.tier_index(tier)]:
            nodes = below.parent[nodes]
        return nodes

    def children(self, tier: str | int, node: int) -> np.ndarray:
        """Finds the nodes of the tier below that are linked to a node.

        Args:
          tier: name or index of the node's tier.
          node: index of the node.

        Returns:
          int64 ``[children]``, ascending; empty in the lowest tier.

        Raises:
          ValueError: there is no such tier or node.
        """
        index = self.tier_index(tier)
        node = _node_index(self.tiers[index], node)
        if index == 0:
            return np.empty(0, np.int64)
        return np.flatnonzero(self.tiers[index - 1].parent == node)


def make_tier(
    name: str,
    devices: Device | Sequence[Device],
    links: Link | Sequence[Link] | None = None,
    parent: int | Sequence[int] | np.ndarray | None = None,
    nodes: int | None = None,
) -> Tier:
    """Makes a tier; whatever is given once holds for all nodes.

    Args:
      name: name of the tier.
      devices: one device, several, or one whose fields are arrays ``[nodes]``.
      links: the same for the links to the parents; None in the top tier.
      parent: index of the parent in the tier above, one or ``[nodes]``; None in the top tier.
      nodes: number of nodes; the largest number found in the other arguments if None.

    Returns:
      The tier.

    Raises:
      ValueError: the numbers of nodes differ, or links come without parents.

    Example:
      >>> from eejax.tiers.presets import DEVICES, LINKS
      >>> ends = make_tier("end", DEVICES["phone"], LINKS["wifi"], parent=0, nodes=1_000_000)
      >>> ends.nodes, ends.device(999_999) == DEVICES["phone"]
      (1000000, True)
    """
    given = {
        "devices": devices if isinstance(devices, Device) else stack(devices),
        "links": links if links is None or isinstance(links, Link) else stack(links),
    }
    if nodes is None:
        sizes = [count(node) for node in given.values() if node is not None]
        nodes = max([*sizes, np.size(parent)])
    if isinstance(nodes, bool) or not isinstance(nodes, int | np.integer) or nodes < 1:
        raise ValueError(f"nodes must be an integer >= 1, got {nodes!r}")
    for field, node in given.items():
        if node is None:
            continue
        try:
            given[field] = repeat(node, nodes)
        except ValueError as error:
            raise ValueError(f"{field} {error}") from error
    if parent is not None and np.size(parent) == 1:
        parent = np.broadcast_to(np.reshape(parent, ()), nodes)
    return Tier(name, given["devices"], given["links"], parent)


def make_topology(*tiers: Tier) -> Topology:
    """Puts tiers on top of each other.

    Args:
      *tiers: from the data source upwards.

    Returns:
      The topology; see there for what is checked.
    """
    return Topology(tiers)


def _node_index(tier: Tier, node: int) -> int:
    if not 0 <= node < tier.nodes:
        raise ValueError(f"tier {tier.name!r} has nodes 0 to {tier.nodes - 1}, got {node}")
    return int(node)
