"""Joining the processes of one run so that no failure of one leaves the others waiting forever.

Three things hang a multi-process run, and each is met here: a peer that was killed is missed after
``heartbeat_s``; a peer that raised an error would keep its heartbeat alive while it waits for the
others to end, so `end_on_error` leaves at once; and a launcher that was killed takes its workers
with it.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

PROCESS_ID, PROCESSES, COORDINATOR = "EEJAX_PROCESS_ID", "EEJAX_PROCESSES", "EEJAX_COORDINATOR"
LAUNCHER, ELASTIC = "EEJAX_LAUNCHER", "EEJAX_ELASTIC"
AUTO = "auto"


def initialize_from_env(
    *, start_s: int = 60, heartbeat_s: int = 10, shutdown_s: int = 10, collective_s: int = 10
) -> bool:
    """Joins this process to its peers; call it before anything else of JAX.

    If ``EEJAX_PROCESSES`` is set, as `eejax.experiment.launch` does, or as is done by hand on
    several GPU hosts, then ``EEJAX_PROCESS_ID`` and ``EEJAX_COORDINATOR`` (``host:port`` of process
    0) must be set too. Otherwise, or if it is ``auto``, JAX looks for a TPU pod, Slurm, Open MPI or
    Kubernetes, and where there is none the process stays alone.

    With ``EEJAX_ELASTIC=1`` the death of a process other than 0 does not abort the others, see
    `elastic`.

    Args:
      start_s: seconds in which all processes must have started. After that JAX aborts the process
        (SIGABRT); it raises no error that could be caught.
      heartbeat_s: seconds without a sign of life after which a peer counts as dead, and JAX aborts.
      shutdown_s: seconds a process that is done waits for the others.
      collective_s: with ``EEJAX_ELASTIC`` on CPUs, seconds after which a collective operation that
        a process has not joined fails; more than processes ever lie apart, also in compiling.

    Returns:
      Whether there may be peers.

    Raises:
      ValueError: one of the variables is missing or wrong.
      RuntimeError: JAX has already been used.
    """
    timeouts = {
        "initialization_timeout": start_s,
        "heartbeat_timeout_seconds": heartbeat_s,
        "shutdown_timeout_seconds": shutdown_s,
    }
    _keep_sigterm()
    if os.environ.get(ELASTIC) == "1":
        _survive(collective_s)
    if os.environ.get(PROCESSES, AUTO) == AUTO:
        try:
            jax.distributed.initialize(**timeouts)
        except ValueError as error:
            # What JAX says when it finds no cluster.
            if "coordinator_address should be defined" not in str(error):
                raise
            return False
        return True
    count = _number(PROCESSES, 1)
    index = _number(PROCESS_ID, 0)
    if index >= count:
        raise ValueError(f"{PROCESS_ID} must be below {PROCESSES}={count}, is {index}")
    host, _, port = os.environ.get(COORDINATOR, "").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{COORDINATOR} must be host:port, is {os.environ.get(COORDINATOR)!r}")
    if LAUNCHER in os.environ:
        threading.Thread(target=_follow, args=(_number(LAUNCHER, 1),), daemon=True).start()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # All ids are given, so nothing is detected and one GPU a process is not assumed.
    jax.distributed.initialize(
        f"{host}:{port}", count, index, cluster_detection_method="deactivate", **timeouts
    )
    return True


@contextmanager
def end_on_error() -> Iterator[None]:
    """Ends this process at once when its body fails, so that its peers do not wait for it.

    On an ordinary exit Python would let JAX wait for peers that wait for this process. Here the
    traceback is printed and the process is gone; peers and launcher notice. A process without peers
    raises the error as usual.

    Yields:
      None.

    Example:
      >>> with end_on_error():
      ...     raise ValueError("a bad batch")
      Traceback (most recent call last):
      ValueError: a bad batch
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized() or _exit_code(error) == 0:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Peers abort when process 0 is gone, perhaps before they have said what is wrong.
        if os.environ.get(PROCESS_ID) == "0":
            time.sleep(0.5)
        os._exit(_exit_code(error))


def several_processes() -> bool:
    """Tells whether this process has peers, without starting the devices of JAX.

    Returns:
      Whether it has joined others.

    Example:
      >>> several_processes()
      False
    """
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Tells whether this process speaks and writes for all, as process 0 does.

    Returns:
      Whether it is process 0 or has no peers.

    Example:
      >>> is_first()
      True
    """
    return not several_processes() or jax.process_index() == 0


def largest(number: int) -> int:
    """Finds the largest of the numbers that the processes give.

    Args:
      number: of this process, of 32 bits. All processes must call.

    Returns:
      The same answer everywhere.

    Example:
      >>> largest(15)
      15
    """
    if not several_processes():
        return number
    return int(multihost_utils.process_allgather(np.asarray(number, np.int32)).max())


def any_process(flag: bool) -> bool:
    """Tells every process whether ``flag`` is true on at least one.

    Signals reach the processes between different steps, so before they stop they must agree, or
    some would wait in a collective operation that the others never begin.

    Args:
      flag: the opinion of this process. All processes must ask.

    Returns:
      The same answer everywhere.

    Example:
      >>> any_process(False), any_process(True)
      (False, True)
    """
    return bool(largest(int(flag)))


def _keep_sigterm() -> None:
    # JAX would swallow the signal, which here means to save and stop, or to end at once.
    jax.config.update("jax_enable_preemption_service", False)


def _survive(collective_s: int) -> None:
    jax.config.update("jax_enable_recoverability", True)
    # Without these a collective operation on CPUs waits for the dead forever.
    flags = (
        f"--xla_cpu_collective_timeout_seconds={collective_s}",
        f"--xla_cpu_collective_call_terminate_timeout_seconds={collective_s}",
    )
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def _number(name: str, least: int) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} must be a whole number >= {least}, is {os.environ.get(name)!r}")
    return int(text)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    return 1


def _follow(launcher: int) -> None:
    """Ends this process when the launcher is gone."""
    while True:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)
