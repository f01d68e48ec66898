"""Progress bars in a terminal, short plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress(NamedTuple):
    """How a run tells what it is doing.

    Attributes:
      console: where the run prints its tables.
      say: ``(text)`` prints a line, without markup.
      track: ``(total, description, done=0)`` gives a context manager whose value is
        ``update(done, note="")``; ``done`` counts up to ``total`` and ``note`` is a short text
        beside the bar, such as ``"accuracy 0.93"``.
    """

    console: Console
    say: Callable[[str], None]
    track: Callable[..., AbstractContextManager[Callable[..., None]]]


def make_progress(quiet: bool = False, console: Console | None = None) -> Progress:
    """Makes the progress display of a run.

    Args:
      quiet: shows neither bars nor lines for tracked phases; ``say`` still prints.
      console: where to print; standard output if None. Without a terminal, a phase is one line
        when it ends, and no escape codes are written.

    Returns:
      The display.

    Example:
      >>> progress = make_progress(quiet=True)
      >>> with progress.track(3, "co-train") as update:
      ...     for step in range(3):
      ...         update(step + 1, "accuracy 0.90")
    """
    console = Console(highlight=False) if console is None else console

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(total: int, description: str, done: int = 0) -> Iterator[Callable[..., None]]:
        columns = (
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bars(*columns, console=console) as bars:
            task = bars.add_task(description, total=total, completed=done, note="")
            yield lambda done, note="": bars.update(task, completed=done, note=note)

    @contextmanager
    def line(total: int, description: str, done: int = 0) -> Iterator[Callable[..., None]]:
        last = (done, "")
        start = time.monotonic()

        def update(done: int, note: str = "") -> None:
            nonlocal last
            last = (done, note)

        try:
            yield update
        finally:
            done, note = last
            seconds = time.monotonic() - start
            if not quiet:
                say(f"{description:<12} {done}/{total} in {seconds:.1f} s  {note}".rstrip())

    return Progress(console, say, bar if console.is_terminal and not quiet else line)
