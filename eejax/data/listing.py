"""The table of data sets that ``eejax data list`` shows."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from eejax.data import embedded, store
from eejax.data.catalogue import GROUPED, KNOWN
from eejax.data.load import find, names
from eejax.data.source import Info


def list_datasets(data_dir: str | Path | None = None) -> Table:
    """Lists the data sets that `load` knows, those that are ready first.

    Args:
      data_dir: folder of data sets; see `load`.

    Returns:
      A table of name, samples, shape, classes, and whether the set is ready: where it is from, or
      the command to get it.

    Example:
      >>> [column.header for column in list_datasets().columns]
      ['name', 'samples', 'shape', 'classes', 'ready']
    """
    option = store.command_option(data_dir)
    table = Table(
        title="Data sets",
        title_justify="left",
        title_style="bold",
        caption=escape(f"IDX files downloaded by hand: eejax data import NAME DIR{option}"),
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in ("name", "samples", "shape", "classes", "ready"):
        right = header in ("samples", "classes")
        table.add_column(
            header, justify="right" if right else "left", no_wrap=header != "ready", overflow="fold"
        )
    missing = []
    for name in names(data_dir):
        try:
            pool = find(name, data_dir)
        except (ImportError, ValueError) as error:
            table.add_row(name, "", "", "", f"[yellow]no: {escape(str(error))}[/]")
            continue
        if pool is None:
            missing.append(name)
        else:
            ready = f"[green]yes, {_where(name, data_dir)}[/]"
            table.add_row(*_cells(pool.info, sum(pool.sizes.values())), ready)
    for name in missing:
        known = KNOWN.get(name) or GROUPED[name]
        verb, path = ("prepare", "") if name in KNOWN else ("import", " PATH")
        command = escape(f"eejax data {verb} {name}{path}{option}")
        table.add_row(*_cells(known.info, known.samples), f"[dim]{command}[/]")
    return table


def _where(name: str, data_dir: str | Path | None) -> str:
    if store.find(store.data_dir(data_dir) / name):
        return "imported"
    return "embedded" if name in embedded.EMBEDDED else "prepared"


def _cells(info: Info, samples: int) -> tuple[str, str, str, str]:
    shape = "x".join(str(size) for size in info.image_shape)
    return info.name, f"{samples:,}", shape, str(len(info.classes))
