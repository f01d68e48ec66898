"""Threads of XLA, set before JAX is loaded."""

import os


def spare_threads(devices: int) -> None:
    """Lets XLA start more threads than fake devices on fewer cores, unless ``NPROC`` is set.

    With fewer cores than devices, XLA starts as many threads as devices, and each device blocks one
    in a collective. Whatever else takes a thread then keeps the last device out, and XLA aborts the
    process after 40 seconds. It reads ``NPROC`` when JAX is first used.

    Where each device has a core the number stays as it is: threads that wait for work spin. Rounds
    of two devices on two cores took 1.26 (perceptron) and 1.23 times (CNN) as long with 4 threads
    as with 2, and 2.3 and 1.4 times with 8.

    Args:
      devices: how many there will be.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if devices > (cores or 1):
        os.environ.setdefault("NPROC", str(2 * devices))
