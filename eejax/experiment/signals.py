"""SIGTERM and Ctrl-C as a request to stop at the next safe point."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from eejax.cotrain.multihost import largest


class Interrupted(Exception):
    """A run stopped because a signal asked it to.

    Attributes:
      signum: number of the signal; the process exits with ``128 + signum``.
      saved: step of the checkpoint that holds the state, or None if nothing was saved.
    """

    def __init__(self, signum: int, saved: int | None = None):
        """Keeps the signal and the step."""
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.saved = saved


class Stop(NamedTuple):
    """Whether somebody asked the run to stop.

    Attributes:
      requested: ``() ->`` number of the signal, or None.
      check: ``(saved=None)`` raises `Interrupted` if a stop was requested; ``saved`` is the step
        of the checkpoint that was just written.
    """

    requested: Callable[[], int | None]
    check: Callable[..., None]


@contextmanager
def catch_signals() -> Iterator[Stop]:
    """Turns the first SIGTERM or SIGINT into a flag.

    The first signal also restores the default action, so the second one ends the process at once
    even inside a compiled program. Outside of the main thread, where Python allows no handlers,
    nothing is caught and no stop is ever requested.

    Yields:
      The flag, to be looked at where the state can be saved.

    Example:
      >>> with catch_signals() as stop:
      ...     stop.requested() is None
      True
    """
    received: list[int] = []
    caught = (signal.SIGTERM, signal.SIGINT)

    def handle(signum, frame):
        del frame
        received.append(signum)
        for each in caught:
            signal.signal(each, signal.SIG_DFL)
        # Not print: the handler may have interrupted one.
        name = signal.Signals(signum).name
        os.write(2, f"\n{name}: saving and stopping; once more to stop at once\n".encode())

    def requested() -> int | None:
        return received[0] if received else None

    def check(saved: int | None = None) -> None:
        if received:
            raise Interrupted(received[0], saved)

    if threading.current_thread() is not threading.main_thread():
        yield Stop(requested, check)
        return
    before = {each: signal.signal(each, handle) for each in caught}
    try:
        yield Stop(requested, check)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def agree_to_stop(stop: Stop) -> Stop:
    """Lets a signal to one process stop all after the same step.

    Args:
      stop: the flag of this process.

    Returns:
      The flag of all; every process must ask it at the same places.

    Example:
      >>> with catch_signals() as stop:
      ...     agree_to_stop(stop).requested() is None
      True
    """

    def requested() -> int | None:
        return largest(stop.requested() or 0) or None

    def check(saved: int | None = None) -> None:
        signum = requested()
        if signum:
            raise Interrupted(signum, saved)

    return Stop(requested, check)
