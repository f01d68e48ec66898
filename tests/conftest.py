"""Eight fake CPU devices, one cache of compiled programs, and the strictness of every test."""

import itertools
import os
from pathlib import Path

# Before JAX starts, and for the processes that tests start: whoever compiles a program first saves
# the others the time. Each process of pytest has a folder of its own, as JAX does not lock them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".cache" / os.environ.get("PYTEST_XDIST_WORKER", "xla")),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# The size of XLA's pools of threads. By default there are as many as devices, each of which blocks
# one in a collective: now and then another task has taken one, and XLA aborts the process.
os.environ.setdefault("NPROC", str(max(16, os.cpu_count() or 1)))

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


_files = itertools.count(1)


@pytest.fixture(autouse=True, scope="module")
def _free_programs():
    """Drops compiled programs now and then: many thousands in one process make XLA crash."""
    yield
    if next(_files) % 8 == 0:
        jax.clear_caches()
