"""Several processes as one run: joining, sharing batches, gathering state, and never hanging."""

from eejax.cotrain.multihost.batches import (
    DEVICE,
    PROCESS,
    global_batch,
    process_mesh,
    process_slice,
)
from eejax.cotrain.multihost.host import from_first, to_devices, to_host
from eejax.cotrain.multihost.processes import any_process, end_on_error, initialize_from_env

__all__ = [
    "DEVICE",
    "PROCESS",
    "any_process",
    "end_on_error",
    "from_first",
    "global_batch",
    "initialize_from_env",
    "process_mesh",
    "process_slice",
    "to_devices",
    "to_host",
]
