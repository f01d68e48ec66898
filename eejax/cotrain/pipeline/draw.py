"""A schedule as a picture and as text: who works when, on which micro-batch, and who waits."""

from typing import Any

from eejax.cotrain.pipeline.schedule import Schedule
from eejax.cotrain.pipeline.timeline import bubble, timeline

# Okabe and Ito, told apart with every kind of colour vision; later chunks are lighter.
_COLOURS = {"forward": "#0072b2", "backward": "#e69f00"}
_IDLE, _INK = "#ececec", "#444444"


def draw_schedule(
    schedule: Schedule,
    forward: float = 1.0,
    backward: float = 2.0,
    *,
    lockstep: bool = False,
    names: tuple[str, ...] | None = None,
    ax: Any = None,
) -> Any:
    """Draws a row of boxes for each device over modelled time; what stays grey is the bubble.

    Boxes bear the number of the micro-batch where there is room. With chunks, the first is dark and
    the last is light.

    Args:
      schedule: a schedule.
      forward: as for `timeline`.
      backward: as for `timeline`.
      lockstep: as for `timeline`.
      names: of the devices; "stage 0", "stage 1", ... if None.
      ax: matplotlib axes to draw on; those of a new figure if None.

    Returns:
      The axes.

    Raises:
      ValueError: there is not one name a device.

    Example:
      >>> from eejax.cotrain.pipeline import one_f_one_b
      >>> ax = draw_schedule(one_f_one_b(3, 6), names=("end", "edge", "cloud"))
      >>> ax.get_title(loc="left")
      'one_f_one_b: 3 stages, 6 micro-batches, bubble 25.0 %'
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.ticker import MaxNLocator

    stages, chunks = schedule.stages, schedule.chunks
    names = tuple(f"stage {s}" for s in range(stages)) if names is None else names
    if len(names) != stages:
        raise ValueError(f"names must be {stages}, one for each stage; got {names}")
    tasks = timeline(schedule, forward, backward, lockstep=lockstep)
    end = max(task.end for task in tasks)
    if ax is None:
        size = min(max(4.5, 1.2 + 0.2 * end), 12), 1.5 + 0.36 * stages
        ax = Figure(figsize=size, layout="constrained").subplots()

    def colour(kind: str, chunk: int) -> tuple[float, ...]:
        light = 0.55 * chunk / max(chunks - 1, 1)
        return tuple(c + (1 - c) * light for c in to_rgb(_COLOURS[kind]))

    inches = ax.figure.get_size_inches()[0] * 0.88 / end
    for s in range(stages):
        ax.add_patch(Rectangle((0, s - 0.4), end, 0.8, color=_IDLE, linewidth=0))
    for task in tasks:
        width = task.end - task.start
        ax.add_patch(
            Rectangle((task.start, task.stage - 0.4), width, 0.8, facecolor=colour(*task[::3]),
                      edgecolor="white", linewidth=0.7)
        )  # fmt: skip
        digits = len(str(task.microbatch))
        if width * inches > 0.09 * digits:
            dark = task.kind == "forward" and 2 * task.chunk < max(chunks - 1, 1)
            ax.text(
                task.start + width / 2, task.stage, task.microbatch, ha="center", va="center",
                fontsize=7.5, color="white" if dark else "black",
            )  # fmt: skip
    ax.set(xlim=(0, end), ylim=(stages - 0.5, -0.5), yticks=range(stages), yticklabels=names)
    ax.set_xlabel("time, in forwards of a stage" if forward == 1 else "time", color=_INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    ax.tick_params(length=0, colors=_INK)
    ax.spines[:].set_visible(False)
    idle = bubble(schedule, forward, backward, lockstep=lockstep)
    title = f"{schedule.name}: {_count(stages, 'stage')}, "
    title += _count(schedule.microbatches, "micro-batch")
    title += f", {_count(chunks, 'chunk')}" if chunks > 1 else ""
    ax.set_title(f"{title}, bubble {idle:.1%}".replace("%", " %"), loc="left", fontsize=9.5, pad=20)
    handles = [Patch(color=colour(kind, 0), label=kind) for kind in _COLOURS]
    ax.legend(
        handles=[*handles, Patch(color=_IDLE, label="idle")], loc="lower left", ncols=3,
        bbox_to_anchor=(0, 1), frameon=False, fontsize=8, handlelength=1, borderaxespad=0.3,
    )  # fmt: skip
    return ax


def text_schedule(schedule: Schedule) -> str:
    """Writes a schedule as text: a line a device, a column a tick.

    Args:
      schedule: a schedule.

    Returns:
      Lines such as ``"0  F0 F1 .. B0"``: forward and backward of a micro-batch, and ``".."`` where
      the device is idle. With chunks a letter tells which, as in ``"F0b"``.

    Example:
      >>> from eejax.cotrain.pipeline import fused, gpipe
      >>> print(text_schedule(gpipe(2, 2)))
      stage 0  F0 F1 .. .. B0 B1
      stage 1  .. F0 F1 B0 B1 ..
      >>> print(text_schedule(fused(2, 3)))
      stage 0  F0    F1    F2,B0 B1    B2
      stage 1  ..    F0,B0 F1,B1 F2,B2 ..
    """

    def cell(t: int, s: int) -> str:
        parts = []
        for kind in ("forward", "backward"):
            m, c = getattr(schedule, kind)[t, s], getattr(schedule, f"{kind}_chunk")[t, s]
            if m >= 0:
                letter = chr(ord("a") + c) if schedule.chunks > 1 else ""
                parts.append(f"{kind[0].upper()}{m}{letter}")
        return ",".join(parts) or ".."

    rows = [[cell(t, s) for t in range(schedule.ticks)] for s in range(schedule.stages)]
    width = max(len(text) for row in rows for text in row)
    name = len(str(schedule.stages - 1))
    return "\n".join(
        f"stage {s:{name}}  " + " ".join(text.ljust(width) for text in row).rstrip()
        for s, row in enumerate(rows)
    )


def _count(number: int, noun: str) -> str:
    plural = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{plural}"
