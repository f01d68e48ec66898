"""What a run gets besides its config: a folder of its own, a display, and a stop flag."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console

from eejax.cotrain.multihost import any_process, from_first, is_first, several_processes
from eejax.experiment.config import check_same, to_json
from eejax.experiment.metrics import JSONL
from eejax.experiment.progress import Progress, make_progress
from eejax.experiment.signals import Stop, agree_to_stop, catch_signals
from eejax.experiment.workdir import LOCK, RunDir, open_run_dir

CONFIG_FILE = "config.json"
REFUSED = b"refused"


class Context(NamedTuple):
    """The surroundings of a run.

    Attributes:
      workdir: the run folder, locked for this process.
      resume: whether to look for a checkpoint first.
      progress: bars, lines and the console.
      stop: whether a signal asked to save and stop.
      tensorboard: whether to write TensorBoard events too.
    """

    workdir: RunDir
    resume: bool
    progress: Progress
    stop: Stop
    tensorboard: bool


@contextmanager
def open_context(
    config: Any,
    root: Path | str,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Iterator[Context]:
    """Opens the folder of a run and writes, or on resuming compares, its ``config.json``.

    Resuming in an empty or missing folder starts anew and says so, since a run may be killed
    before it has written anything.

    Of several processes, process 0 has the folder and the display. The others say nothing, and
    what they write goes to a folder that is thrown away; `checkpoint` knows who reads and writes.
    A signal to one stops all.

    Args:
      config: the dataclass of the run.
      root: the run folder; that of process 0 counts.
      resume: whether to go on with the run in the folder.
      tensorboard: whether to write TensorBoard events too.
      quiet: shows no progress.

    Yields:
      The context for ``run(config, context)``.

    Raises:
      FileExistsError: the folder is not empty and ``resume`` is false.
      BlockingIOError: another process writes in the folder.
      ValueError: the stored config differs, or the folder holds something else than a run.
      SystemExit: with code 2, in the other processes, when process 0 raises one of these.
    """
    with catch_signals() as stop:
        if not several_processes():
            progress = make_progress(quiet)
            with _folder(config, root, resume, progress) as workdir:
                yield Context(workdir, resume, progress, stop, tensorboard)
            return
        first = is_first()
        progress = make_progress(quiet) if first else make_progress(True, Console(quiet=True))
        folder = _first_folder(config, root, resume, progress) if first else _other_folder()
        with folder as workdir:
            yield Context(workdir, resume, progress, agree_to_stop(stop), tensorboard and first)
        # Together, or the first that leaves would not wait long enough for the others.
        any_process(False)


@contextmanager
def _first_folder(*args: Any) -> Iterator[RunDir]:
    """Opens the folder for process 0, and tells the others that it did, or that it could not."""
    opened = False
    try:
        with _folder(*args) as workdir:
            opened = True
            rows = workdir.path(JSONL)
            from_first(rows.read_bytes() if rows.exists() else b"")
            yield workdir
    finally:
        if not opened:
            from_first(REFUSED)


@contextmanager
def _other_folder() -> Iterator[RunDir]:
    """Waits until process 0 has the folder, and makes one with the same rows of metrics."""
    rows = from_first(b"")
    if rows == REFUSED:
        raise SystemExit(2)
    with TemporaryDirectory(prefix="eejax-") as folder:
        workdir = RunDir(Path(folder))
        workdir.write_bytes(JSONL, rows)
        yield workdir


@contextmanager
def _folder(config: Any, root: Path | str, resume: bool, progress: Progress) -> Iterator[RunDir]:
    text = to_json(config)
    with open_run_dir(root, resume=resume) as workdir:
        stored = workdir.path(CONFIG_FILE)
        if stored.exists():
            check_same(stored.read_text(), config)
        else:
            # It is the first file of a run.
            if any(not path.name.startswith(".") for path in workdir.root.iterdir()):
                raise ValueError(f"{workdir.root} is no run folder: it has no {CONFIG_FILE}")
            if resume:
                progress.say(f"nothing to resume in {workdir.root}: starting anew")
            workdir.write_text(CONFIG_FILE, text)
        try:
            yield workdir
        except (ValueError, OSError):
            # Refused before anything was written: the corrected run may use the folder.
            if not any(p.name not in (CONFIG_FILE, LOCK) for p in workdir.root.iterdir()):
                stored.unlink()
            raise
