"""A topology as the planner sees it: a regular grid of equal devices."""

import numpy as np

from eejax import tiers
from eejax.cotrain.hybrid.planner import Level


def levels_of(topology: tiers.Topology) -> tuple[dict[str, Level], float, float]:
    """Reads the levels of `plan` from a topology whose lowest tier is the devices that train.

    A program in lock-step is as fast as its slowest device and link, so these stand for all. Links
    of a tier join the nodes under one parent, and all devices below a node send over its link at
    once: each has its share, and no more than the links below carry. A link is as fast as its
    slower direction. The nodes above the lowest tier forward, and do not train.

    Args:
      topology: tiers under one node at the top.

    Returns:
      The levels, slowest first, by the tier whose links they are; FLOP/s of the slowest device;
      and memory of the smallest, in bytes.

    Raises:
      ValueError: a tier has no links but several nodes, or parents with different numbers of
        children; names the tier.

    Example:
      >>> from eejax.tiers import three_tier
      >>> levels, _, _ = levels_of(three_tier(ends=8, edges=2, end_edge="lan", edge_cloud="lan"))
      >>> [(name, level.devices) for name, level in levels.items()]
      [('edge', 2), ('end', 4)]
      >>> levels["end"].bytes_per_s / levels["edge"].bytes_per_s  # Four devices share a link.
      4.0
    """
    *below, top = topology.tiers
    if top.nodes != 1:
        raise ValueError(f"tier {top.name!r} at the top has {top.nodes} nodes, which no link joins")
    levels, sharing, speed = {}, 1, np.inf
    for tier, above in zip(below, topology.tiers[1:]):
        children = np.bincount(tier.parent, minlength=above.nodes)
        if children.min() != children.max():
            raise ValueError(
                f"tier {tier.name!r} is no regular grid: nodes of {above.name!r} have from "
                f"{children.min()} to {children.max()} children; a plan needs equal numbers"
            )
        links = tier.links
        bits = min(np.min(links.bandwidth_up_bps), np.min(links.bandwidth_down_bps))
        speed = min(speed, float(bits) / 8 / sharing)
        levels[tier.name] = Level(int(children[0]), speed)
        sharing *= int(children[0])
    if not below:
        levels[top.name] = Level(1, speed)
    devices = topology.tiers[0].devices
    return (
        dict(reversed(levels.items())),
        float(np.min(devices.flops_per_s)),
        float(np.min(devices.memory_bytes)),
    )
