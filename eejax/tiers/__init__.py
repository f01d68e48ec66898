"""End, edge and cloud as data: nodes and links, their cost, their traffic, and the mesh."""

from eejax.tiers.collectives import Collective, Collectives, collectives
from eejax.tiers.cost import (
    Direction,
    Estimator,
    Work,
    compute_joules,
    roofline,
    transfer_joules,
    transfer_seconds,
    work_of,
)
from eejax.tiers.ledger import (
    Ledger,
    Transfer,
    by_kind,
    by_link,
    from_rows,
    merge,
    record,
    to_rows,
    total_bytes,
)
from eejax.tiers.load import from_dict, from_toml, load, to_dict
from eejax.tiers.mesh import EDGE, END, cast_varying, make_mesh, tier_mean, tier_mesh
from eejax.tiers.nodes import Device, Link, stack, take
from eejax.tiers.presets import DEVICES, LINKS, three_tier
from eejax.tiers.topology import Tier, Topology, make_tier, make_topology
from eejax.tiers.traces import Trace, constant, from_csv, markov, transfer_end, value_at

__all__ = [
    "DEVICES",
    "EDGE",
    "END",
    "LINKS",
    "Collective",
    "Collectives",
    "Device",
    "Direction",
    "Estimator",
    "Ledger",
    "Link",
    "Tier",
    "Topology",
    "Trace",
    "Transfer",
    "Work",
    "by_kind",
    "by_link",
    "cast_varying",
    "collectives",
    "compute_joules",
    "constant",
    "from_csv",
    "from_dict",
    "from_rows",
    "from_toml",
    "load",
    "make_mesh",
    "make_tier",
    "make_topology",
    "markov",
    "merge",
    "record",
    "roofline",
    "stack",
    "take",
    "three_tier",
    "tier_mean",
    "tier_mesh",
    "to_dict",
    "to_rows",
    "total_bytes",
    "transfer_end",
    "transfer_joules",
    "transfer_seconds",
    "value_at",
    "work_of",
]
