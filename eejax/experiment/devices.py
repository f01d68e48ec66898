"""As many devices as a run needs: those at hand, or fake ones on a CPU."""

import contextlib
import os

import jax

from eejax.experiment.threads import spare_threads


def ensure_devices(count: int) -> None:
    """Makes sure that there are enough devices.

    On a CPU, devices may be fake: they share its cores, so bytes and numbers are those of real
    ones, and times are not. They can only be made before JAX is used for the first time.

    Args:
      count: how many are needed.

    Raises:
      ValueError: there are fewer, and no more can be made.
    """
    spare_threads(count)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # JAX has been used.
            jax.config.update("jax_num_cpu_devices", max(count, jax.config.jax_num_cpu_devices))
    if jax.device_count() < count:
        raise ValueError(
            f"layout needs {count} devices, there are {jax.device_count()}; on a CPU start again "
            f"with JAX_NUM_CPU_DEVICES={count}"
        )
