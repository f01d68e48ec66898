"""Several processes as one run: joining, sharing batches, gathering state, and never hanging."""

from eejax.cotrain.multihost.batches import (
    DEVICE,
    PROCESS,
    global_batch,
    process_mesh,
    process_place,
    process_slice,
)
from eejax.cotrain.multihost.elastic import elastic_steps, is_elastic, leave
from eejax.cotrain.multihost.host import from_first, to_devices, to_host
from eejax.cotrain.multihost.processes import (
    any_process,
    end_on_error,
    initialize_from_env,
    is_first,
    largest,
    several_processes,
)

__all__ = [
    "DEVICE",
    "PROCESS",
    "any_process",
    "elastic_steps",
    "end_on_error",
    "from_first",
    "global_batch",
    "initialize_from_env",
    "is_elastic",
    "is_first",
    "largest",
    "leave",
    "process_mesh",
    "process_place",
    "process_slice",
    "several_processes",
    "to_devices",
    "to_host",
]
