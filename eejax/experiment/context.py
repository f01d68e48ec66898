"""What a run gets besides its config: a folder of its own, a display, and a stop flag."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from eejax.experiment.config import check_same, to_json
from eejax.experiment.progress import Progress, make_progress
from eejax.experiment.signals import Stop, catch_signals
from eejax.experiment.workdir import LOCK, RunDir, open_run_dir

CONFIG_FILE = "config.json"


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

    Args:
      config: the dataclass of the run.
      root: the run folder.
      resume: whether to go on with the run in the folder.
      tensorboard: whether to write TensorBoard events too.
      quiet: shows no progress.

    Yields:
      The context for ``run(config, context)``.

    Raises:
      FileExistsError: the folder is not empty and ``resume`` is false.
      BlockingIOError: another process writes in the folder.
      ValueError: the stored config differs, or the folder holds something else than a run.
    """
    text = to_json(config)
    progress = make_progress(quiet)
    with catch_signals() as stop, open_run_dir(root, resume=resume) as workdir:
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
            yield Context(workdir, resume, progress, stop, tensorboard)
        except (ValueError, OSError):
            # Refused before anything was written: the corrected run may use the folder.
            if not any(p.name not in (CONFIG_FILE, LOCK) for p in workdir.root.iterdir()):
                stored.unlink()
            raise
