"""Configurations: plain dataclasses that Python files return, with typed overrides.

A config file is code that the user names on the command line, ``configs/x.py`` or
``configs/x.py:tiny``. It defines ``get_config(arg=None)``, which returns a dataclass, and ``run``,
the function that runs it, usually imported from ``eejax.experiment.runs``. What a run folder
stores of it, ``config.json``, is data: it is compared, never evaluated or imported.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any


def load_config(spec: str, overrides: Sequence[str] = ()) -> tuple[Any, Callable[..., dict]]:
    """Loads a config file and applies the overrides of the command line.

    Args:
      spec: ``path/x.py``, or ``path/x.py:arg`` to call ``get_config(arg)``.
      overrides: arguments such as ``--config.rounds=3``. ``--help`` prints every field with its
        default and exits.

    Returns:
      ``(config, run)``: the dataclass, and the file's function ``run(config, context) -> dict``.

    Raises:
      FileNotFoundError: there is no such file; names the nearest ones.
      ValueError: the file lacks ``get_config`` or ``run``, returns no dataclass, or refuses the
        argument.
      SystemExit: with code 2 after telling which override is unknown or of the wrong type.
    """
    path, arg = _split(spec)
    module = _import_file(path)
    for name in ("get_config", "run"):
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{path} defines no function {name!r}; a config file needs both "
                             "get_config(arg=None) and run(config, context)")  # fmt: skip
    try:
        config = module.get_config() if arg is None else module.get_config(arg)
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{path}: get_config returned {config!r}, which is no dataclass instance")
    return _override(config, overrides, spec), module.run


def config_name(spec: str) -> str:
    """Names the runs of a config, for use as a folder.

    Args:
      spec: ``path/x.py`` or ``path/x.py:arg``.

    Returns:
      The stem of the file and the argument, without characters that are special in paths.

    Example:
      >>> config_name("configs/lifecycle_mnist.py"), config_name("configs/x.py:tiny")
      ('lifecycle_mnist', 'x-tiny')
    """
    path, arg = _split(spec)
    return re.sub(r"[^\w.=-]+", "_", path.stem if arg is None else f"{path.stem}-{arg}")


def to_json(config: Any) -> str:
    """Writes a config as JSON text.

    Args:
      config: a dataclass of numbers, strings, booleans, None, and sequences, dicts or dataclasses
        of these.

    Returns:
      Indented JSON in the order of the fields.

    Raises:
      ValueError: a field holds something else, or a number that is not finite.
    """
    values = dataclasses.asdict(config)
    for name, value in _flat(values).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"config field {name!r} is {value}; it must be finite, or None")
        # Of containers only empty ones are leaves.
        if not isinstance(value, bool | int | float | str | list | tuple | dict | None):
            raise ValueError(f"config field {name!r} is of type {type(value).__name__}; it must be "
                             "a number, string, bool, None, or a sequence of these")  # fmt: skip
    return json.dumps(values, indent=2) + "\n"


def check_same(stored: str, config: Any) -> None:
    """Refuses to go on with a run under another config.

    Args:
      stored: text of the run's ``config.json``.
      config: the config at hand.

    Raises:
      ValueError: names the fields that differ, with both values.
    """
    try:
        before = _flat(json.loads(stored))
    except ValueError as error:
        raise ValueError(f"config.json of the run is damaged: {error}") from error
    now = _flat(json.loads(to_json(config)))
    changes = [
        f"{name} was {json.dumps(before[name]) if name in before else 'absent'}"
        f" and is {json.dumps(now[name]) if name in now else 'absent'}"
        for name in sorted(before.keys() | now.keys())
        if name not in before or name not in now or before[name] != now[name]
    ]
    if changes:
        raise ValueError(
            f"the run was started with another config: {'; '.join(changes)}. "
            "Resume with the first values, or start in a new folder"
        )


def _split(spec: str) -> tuple[Path, str | None]:
    path, colon, arg = spec.partition(":")
    return Path(path), arg if colon else None


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = []
        if path.parent.is_dir():
            names = sorted(p.name for p in path.parent.glob("*.py"))
            near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(str(path.parent / n) for n in near)}?" if near else ""
        raise FileNotFoundError(f"no config file {str(path)!r}{hint}")
    # Dataclasses and tyro look a class's module up in sys.modules, so it needs a name of its own
    # that shadows no package.
    name = f"eejax_config_{path.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _override(config: Any, overrides: Sequence[str], spec: str) -> Any:
    import tyro  # Slow to import, and not needed by notebooks.

    # Booleans as --config.flag=True, like every other field.
    field_type = Annotated[type(config), tyro.conf.FlagConversionOff]
    wrap = dataclasses.make_dataclass("Overrides", [("config", field_type)])
    return tyro.cli(
        wrap, default=wrap(config=config), args=list(overrides), prog=f"eejax run {spec}"
    ).config


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Names every leaf of nested dicts and sequences: ``{"opt.lr": 0.1, "widths.0": 8}``."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values)
    else:
        return {prefix: values}
    # An empty container is a leaf, so that it differs from an absent one.
    flat = {} if values or not prefix else {prefix: values}
    for key, value in items:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
