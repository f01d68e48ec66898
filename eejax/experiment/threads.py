"""Threads of XLA, set before JAX is loaded."""

import os


def spare_threads(devices: int) -> None:
    """Lets XLA start more threads than there are fake devices, unless ``NPROC`` is set.

    On a machine with fewer cores than devices, XLA starts as many threads as devices, and each
    device blocks one in a collective. Whatever else takes a thread then keeps the last device out,
    and XLA aborts the process after 40 seconds. It reads ``NPROC`` when JAX is first used.

    Args:
      devices: how many there will be.
    """
    if devices > 1:
        os.environ.setdefault("NPROC", str(max(2 * devices, os.cpu_count() or 1)))
