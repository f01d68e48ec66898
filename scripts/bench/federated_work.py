"""The work that all competitors of ``federated.py`` do, and how they are told to; numpy alone.

A competitor is a process that gets a file with the work, tells when it is ready, then does as many
rounds as each line it reads says, and answers with the seconds that they took.
"""

import json
import os
import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """Sizes of a piece of work.

    Attributes:
      image: height, width and channels.
      clients: in all.
      samples: of each client.
      cohort: clients of a round.
      batch: samples of a step; a round is one epoch.
      rate: learning rate of the clients.
    """

    image: tuple[int, int, int] = (28, 28, 1)
    clients: int = 100
    samples: int = 400
    cohort: int = 10
    batch: int = 20
    rate: float = 0.05


SHAPES = {
    "mnist": Shape(),
    "cifar": Shape((32, 32, 3), clients=200, samples=50, cohort=50, batch=10, rate=0.1),
}

TINY = {
    "mnist": Shape((8, 8, 1), clients=6, samples=8, cohort=2, batch=4),
    "cifar": Shape((8, 8, 3), clients=6, samples=8, cohort=4, batch=4),
}

MODELS = {"cnn": "mnist", "mlp": "mnist", "lr": "mnist", "cifar": "cifar"}
"""Shape of each model's work."""


def make_data(shape, seed=0, alpha=0.3, classes=10):
    """Images ``[clients * samples, ...]`` of class patterns in noise, labels by Dirichlet."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape.image
    pattern = rng.normal(size=(classes, -(-height // 4), -(-width // 4), 1))
    pattern = pattern.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.float32)
    share = rng.dirichlet(np.full(classes, alpha), shape.clients)
    y = [rng.choice(classes, shape.samples, p=p) for p in share]
    y = np.concatenate(y).astype(np.int32)
    x = rng.standard_normal((len(y), height, width, channels), np.float32)
    return x + 0.2 * pattern[y], y


def init_params(model, image, seed=1):
    """Kernels ``[kh, kw, in, out]`` and ``[in, out]`` with their biases, layer by layer.

    ``cnn`` pads its convolutions and pools after each, ``cifar`` does not pad and pools once.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = image
    size, half = height * width * channels, (height - 4) // 2 * ((width - 4) // 2)
    shapes = {
        "cnn": ((3, 3, channels, 16), (3, 3, 16, 32), (height // 4 * (width // 4) * 32, 64),
                (64, 10)),
        "mlp": ((size, 200), (200, 200), (200, 10)),
        "lr": ((size, 10),),
        "cifar": ((3, 3, channels, 32), (3, 3, 32, 64), (half * 64, 128), (128, 10)),
    }  # fmt: skip

    def layer(shape):
        scale = np.sqrt(2 / np.prod(shape[:-1])) if model != "lr" else 0
        kernel = (scale * rng.normal(size=shape)).astype(np.float32)
        return kernel, np.zeros(shape[-1], np.float32)

    return [layer(shape) for shape in shapes[model]]


class Work(NamedTuple):
    """What a competitor reads.

    Attributes:
      model: name in `MODELS`.
      shape: sizes.
      x: ``[clients * samples, ...]``; those of a client lie together.
      y: int32 ``[clients * samples]``.
      params: the first global model.
      cohorts: int32 ``[rounds, cohort]``.
      picks: int32 ``[rounds, cohort, steps, batch]``, positions in ``x``.
    """

    model: str
    shape: Shape
    x: np.ndarray
    y: np.ndarray
    params: list
    cohorts: np.ndarray
    picks: np.ndarray


def make_work(model, shape, cohorts, picks):
    """Completes the work of some rounds."""
    x, y = make_data(shape)
    return Work(model, shape, x, y, init_params(model, shape.image), cohorts, picks)


def save(folder, work):
    """Writes the work into a folder."""
    arrays = {"x": work.x, "y": work.y, "cohorts": work.cohorts, "picks": work.picks}
    for i, (kernel, bias) in enumerate(work.params):
        arrays |= {f"kernel{i}": kernel, f"bias{i}": bias}
    for name, array in arrays.items():
        np.save(folder / name, array)
    about = {"model": work.model, "layers": len(work.params), "shape": work.shape._asdict()}
    (folder / "work.json").write_text(json.dumps(about))


def load(folder):
    """Reads what `save` wrote."""
    folder = pathlib.Path(folder)
    about = json.loads((folder / "work.json").read_text())
    shape = Shape(**about["shape"])._replace(image=tuple(about["shape"]["image"]))

    def array(name):
        return np.load(folder / f"{name}.npy", allow_pickle=False)

    params = [(array(f"kernel{i}"), array(f"bias{i}")) for i in range(about["layers"])]
    return Work(about["model"], shape, *map(array, ("x", "y")), params,
                *map(array, ("cohorts", "picks")))  # fmt: skip


def pin(cores):
    """Keeps this process and its threads on some cores; before anything starts threads."""
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def cpu_seconds():
    """Processor seconds of this process and of all that it started."""
    own = time.process_time()
    try:
        stats = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
    except OSError:  # One ended meanwhile.
        return cpu_seconds()
    # After the name in brackets: state, parent, ..., user and system time as 12th and 13th.
    fields = {int(s.split(" ", 1)[0]): s.rpartition(")")[2].split() for s in stats}
    ours, ticks = {os.getpid()}, 0
    while more := {p for p, f in fields.items() if int(f[1]) in ours} - ours:
        ours |= more
        ticks += sum(int(fields[p][11]) + int(fields[p][12]) for p in more)
    return own + ticks / os.sysconf("SC_CLK_TCK")


class Told:
    """The competitor's end of the talk with ``federated.py``, for those who own their loop.

    Call it after every round (and once before the first): it returns at once until as many rounds
    are done as were asked for; then it answers and waits for the next line.

    Attributes:
      norm: function that gives the norm of the global model.
    """

    def __init__(self, norm):
        """Starts the talk."""
        self.norm, self.left, self.start = norm, 0, None
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # What libraries print must not enter the talk.

    def __call__(self):
        """Returns whether there is more to do."""
        if self.left > 1:
            self.left -= 1
            return True
        if self.start:
            wall, cpu = time.perf_counter() - self.start[0], cpu_seconds() - self.start[1]
            self.say({"wall": wall, "cpu": cpu, "norm": self.norm()})
        else:
            self.say({"ready": True})
        line = sys.stdin.readline().strip()
        self.left = int(line or 0)
        self.start = time.perf_counter(), cpu_seconds()
        return self.left > 0

    def say(self, answer):
        """Writes one line."""
        self.out.write(json.dumps(answer) + "\n")
        self.out.flush()


def serve(run_round, norm):
    """Does as many rounds as it is told; ``run_round(r)`` blocks until round r is done."""
    told, r = Told(norm), 0
    while told():
        run_round(r)
        r += 1
