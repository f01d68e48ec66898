"""Several local processes as one run: start all, watch all, end all when one fails.

For CPU processes on one machine: to try out multi-host code, and to use several sockets. On a TPU
pod or a cluster its own scheduler starts the processes, and the same program runs there unchanged
(`eejax.cotrain.multihost.initialize_from_env`). Needs Linux or macOS.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import NamedTuple

from eejax.cotrain.multihost.processes import (
    COORDINATOR,
    ELASTIC,
    LAUNCHER,
    PROCESS_ID,
    PROCESSES,
)

ATTEMPT, STARTED = "EEJAX_ATTEMPT", "EEJAX_STARTED"
TIMED_OUT = 124  # As timeout(1) says it.
POLL_S = 0.02


class _Worker(NamedTuple):
    process: subprocess.Popen
    reader: Thread


def launch(
    command: Sequence[str],
    processes: int,
    *,
    devices_per_process: int = 1,
    restarts: int = 0,
    elastic: bool = False,
    deadline_s: float | None = None,
    grace_s: float = 5.0,
    write: Callable[[str], object] | None = None,
) -> int:
    """Runs a command in several processes that find each other; for the main thread.

    Each gets ``EEJAX_PROCESS_ID``, ``EEJAX_PROCESSES``, ``EEJAX_COORDINATOR`` (on a free local
    port), ``EEJAX_ATTEMPT`` (0, then the number of the restart), ``EEJAX_STARTED`` (a name of this
    launch from its date and time), ``JAX_PLATFORMS=cpu`` and ``JAX_NUM_CPU_DEVICES``. Their output
    comes line by line behind ``[process id]``.

    When one fails, the others, which would wait for it, get SIGTERM and after ``grace_s`` SIGKILL.
    SIGINT and SIGTERM are passed on, so that the run can save and stop; a second one kills. When
    the launcher itself is killed, processes that have called `initialize_from_env` end too.

    A restart starts all processes again with the same command, which must go on from its last
    checkpoint by itself (``eejax run`` does, and starts anew if there is none). This is recovery by
    restart: the number of processes stays the same.

    Experimental: with ``elastic`` the processes also get ``EEJAX_ELASTIC=1``, and when a signal
    ends one other than 0, the others are left to go on without it, see
    `eejax.cotrain.multihost.elastic`.

    Args:
      command: program and arguments.
      processes: how many to start.
      devices_per_process: CPU devices of each.
      restarts: how often to start again after a failure.
      elastic: whether the run goes on when a process is killed.
      deadline_s: seconds for the whole run with its restarts; no limit if None.
      grace_s: seconds between SIGTERM and SIGKILL.
      write: takes the output, with line ends; standard output if None.

    Returns:
      0 if all processes ended well; else the code of the first that failed, 128 plus the number of
      the signal that ended it or that stopped the launcher, or 124 after the deadline.

    Raises:
      ValueError: a number is out of range or the command is empty.
      OSError: the program cannot be started.

    Example:
      >>> launch([sys.executable, "-c", "print('hello')"], 1, deadline_s=60)
      [0] hello
      0
    """
    _check(command, processes, devices_per_process, restarts, deadline_s, grace_s)
    write = write or _write
    end = float("inf") if deadline_s is None else time.monotonic() + deadline_s
    started = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"
    with _signals() as received:
        for attempt in range(restarts + 1):
            more = {ATTEMPT: str(attempt), STARTED: started} | ({ELASTIC: "1"} if elastic else {})
            code = _attempt(command, processes, devices_per_process, more, end, grace_s,
                            received, write)  # fmt: skip
            if code and received:
                return 128 + received[0]
            if code in (0, TIMED_OUT) or attempt == restarts:
                return code
            write(f"launch: exit code {code}; restart {attempt + 1} of {restarts}\n")
    raise AssertionError  # The loop has returned.


def _attempt(command, processes, devices, more, end, grace_s, received, write) -> int:
    port = _free_port()
    workers: list[_Worker] = []
    forwarded: list[int] = []
    try:
        for index in range(processes):
            environment = _environment(index, processes, devices, port) | more
            workers.append(_start(command, index, environment, write))
        return _watch(workers, ELASTIC in more, end, received, forwarded, write)
    finally:
        # A run that was told to stop is saving; nothing is gained by telling it twice.
        if not forwarded:
            _send(workers, signal.SIGTERM)
        _end(workers, 0 if len(received) > 1 else grace_s, received)


def _watch(
    workers: list[_Worker],
    elastic: bool,
    end: float,
    received: list[int],
    forwarded: list[int],
    write: Callable[[str], object],
) -> int:
    """Waits until all processes have ended, one has failed, or time is up."""
    lost: set[int] = set()
    while True:
        codes = [worker.process.poll() for worker in workers]
        for index, code in enumerate(codes):
            if not code or index in lost:
                continue
            write(f"launch: process {index} {_ending(code)}\n")
            if not elastic or code > 0 or index == 0:
                return code if code > 0 else 128 - code
            lost.add(index)
            write("launch: going on without it\n")
        if all(code == 0 or index in lost for index, code in enumerate(codes)):
            return 0
        if time.monotonic() > end:
            write("launch: the deadline has passed\n")
            return TIMED_OUT
        if received and not forwarded:
            forwarded.append(received[0])
            _send(workers, received[0])
        if len(received) > 1:
            return 128 + received[1]
        time.sleep(POLL_S)


def _start(
    command: Sequence[str], index: int, environment: dict, write: Callable[[str], object]
) -> _Worker:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        # A group of its own: Ctrl-C reaches it only through the launcher, and its children end
        # with it.
        start_new_session=True,
    )

    def read():
        with process.stdout as lines:
            for line in lines:
                # Gloo greets once for each pair of devices and group, sometimes amid a line.
                if line.startswith("[Gloo] Rank ") or "connected peer ranks is" in line:
                    continue
                # The pipe is emptied even when nobody listens, or the process would stand still.
                with suppress(OSError):
                    write(f"[{index}] {line.rstrip()}\n")

    reader = Thread(target=read, daemon=True)
    reader.start()
    return _Worker(process, reader)


def _end(workers: list[_Worker], grace_s: float, received: list[int]) -> None:
    """Waits for processes that were told to stop, then kills those that did not."""
    alive = [worker for worker in workers if worker.process.poll() is None]
    until, before = time.monotonic() + grace_s, len(received)
    while any(worker.process.poll() is None for worker in alive):
        if time.monotonic() > until or len(received) > max(before, 1):
            break
        time.sleep(POLL_S)
    for worker in alive:
        # Also a group whose leader has ended may have left children behind.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    for worker in workers:
        # A grandchild that fled its group may hold the pipe open.
        worker.reader.join(timeout=1)


def _send(workers: list[_Worker], signum: int) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.process.pid, signum)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of obeying them."""
    received: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda s, _: received.append(s)) for each in caught}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _environment(index: int, processes: int, devices: int, port: int) -> dict:
    return os.environ | {
        PROCESS_ID: str(index),
        PROCESSES: str(processes),
        COORDINATOR: f"127.0.0.1:{port}",
        LAUNCHER: str(os.getpid()),
        # Otherwise the coordinator would listen on all networks.
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONUNBUFFERED": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ending(code: int) -> str:
    if code > 0:
        return f"failed with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _check(command, processes, devices, restarts, deadline_s, grace_s) -> None:
    if isinstance(command, str) or not command:
        raise ValueError(f"command must be a list of program and arguments, is {command!r}")
    for name, value, least in (
        ("processes", processes, 1),
        ("devices_per_process", devices, 1),
        ("restarts", restarts, 0),
        ("grace_s", grace_s, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, is {value}")
    if deadline_s is not None and deadline_s <= 0:
        raise ValueError(f"deadline_s must be above 0, is {deadline_s}")
