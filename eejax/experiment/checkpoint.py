"""Checkpoints that survive kill -9 and never restore a damaged byte.

A step is a folder ``<step:08d>`` with the arrays (orbax), ``meta.json`` and, written last,
``manifest.json``: size and SHA-256 of every file, and a digest of the manifest itself. All of it is
written under a temporary name, flushed to the disk and renamed at once, so a folder with a final
name was complete when it got that name. Orbax alone does not notice a flipped byte; the manifest
does, and the newest step that agrees with its own is restored.

Several processes save and restore together: every array is gathered, process 0 alone touches the
disk, and on restoring sends what it read to the others. So no shared file system is needed, and a
step goes to another number of processes and devices.

Limits: all arrays pass through the memory of each host, and digests guard against accidents, not
against somebody who rewrites the manifest too. Nothing is unpickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from eejax import trees
from eejax.cotrain.multihost import from_first, to_devices, to_host
from eejax.experiment.workdir import fsync_path, replace_durable

PyTree = Any

ARRAYS, META, MANIFEST = "arrays", "meta.json", "manifest.json"
QUARANTINE = "quarantine"
WRITE_S = 600


class Restored(NamedTuple):
    """A step that was read back.

    Attributes:
      step: number of the step.
      tree: the arrays, equal to the bit, in the structure and on the devices of ``like``.
      meta: the JSON value that was saved with them.
    """

    step: int
    tree: PyTree
    meta: Any


def save(directory: Path, step: int, tree: PyTree, meta: Any, keep: int = 2) -> Path:
    """Saves one step, and then deletes the steps before the newest ``keep``.

    Of several processes all must call it; they return when process 0 has written.

    Args:
      directory: folder of the checkpoints; that of process 0 counts.
      step: number of the step, growing. A step that is already there is left as it is.
      tree: a pytree of JAX arrays (typed keys too) and numpy arrays.
      meta: a JSON value that comes back equal: no tuples, no keys but strings, no NaN.
      keep: how many steps stay.

    Returns:
      The folder of the step.

    Raises:
      ValueError: a leaf is no array or weakly typed, ``meta`` does not come back equal, or ``keep``
        is below 1.
      RuntimeError: process 0 has not written within ten minutes.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, is {keep}")
    directory = directory.absolute()
    final = directory / f"{step:08d}"
    arrays, text = _to_host(tree), _meta_text(meta)
    if jax.process_index() == 0 and not final.exists():
        _write(final, step, arrays, {n: _kind(x) for n, x in _leaves(tree).items()}, text, keep)
    wait = ocp.multihost.get_barrier_sync_fn()
    wait(key=f"eejax checkpoint {step}", timeout_ms=1000 * WRITE_S)
    return final


def _write(
    final: Path,
    step: int,
    arrays: dict[str, np.ndarray],
    kinds: dict[str, str],
    text: str,
    keep: int,
) -> None:
    directory = final.parent
    _sweep(directory)
    work = directory / f".tmp-{final.name}"
    with _orbax() as checkpointer:
        # Orbax refuses arrays without elements; their shape says all about them.
        filled = {name: array for name, array in arrays.items() if array.size}
        checkpointer.save(work / ARRAYS, args=ocp.args.PyTreeSave(filled))
    (work / META).write_text(text, encoding="utf-8")
    manifest = {
        "arrays": kinds,
        "files": {name: _fingerprint(work / name) for name in _files(work)},
        "step": step,
    }
    (work / MANIFEST).write_text(_sealed(manifest), encoding="utf-8")
    for path in [*work.rglob("*"), work]:
        fsync_path(path)
    replace_durable(work, final)
    for old in _steps(directory)[:-keep]:
        # Renamed first: a kill amid the deletion must not leave half a step under its name.
        doomed = directory / f".tmp-old-{old.name}"
        os.replace(old, doomed)
        shutil.rmtree(doomed)


def restore_newest(
    directory: Path, like: PyTree, say: Callable[[str], None] = print
) -> Restored | None:
    """Restores the newest step that is whole.

    Every step is checked before it is read. A damaged one is named, with its fault, and moved to
    the folder ``quarantine``. What a killed `save` left behind is removed. Of several processes all
    must call it.

    Args:
      directory: folder of the checkpoints; that of process 0 counts.
      like: a tree of the same structure, shapes and dtypes, such as the initial state. Its leaves
        also tell where the arrays go. All but typed keys may be ``jax.ShapeDtypeStruct``.
      say: called with a line of text for each damaged step.

    Returns:
      The step, or None if there is none or none is whole.

    Raises:
      ValueError: the step is whole but its arrays are not those of ``like``.
    """
    found = _newest_whole(directory.absolute(), say) if jax.process_index() == 0 else None
    header = json.loads(from_first(json.dumps(found and found[1]).encode()))
    if header is None:
        return None
    leaves = _leaves(like)
    # Every process compares, so that all refuse.
    _check_fit(header, {name: _kind(leaf) for name, leaf in leaves.items()})
    arrays = _read(found[0]) if found else {}
    placed = [_place(_send(arrays.get(name), leaf), leaf) for name, leaf in leaves.items()]
    tree = jax.tree.unflatten(jax.tree.structure(like), placed)
    return Restored(header["step"], tree, header["meta"])


def _newest_whole(
    directory: Path, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """Finds the newest step that agrees with its manifest; gives its folder, and what it says."""
    _sweep(directory)
    steps = _steps(directory)
    for folder in reversed(steps):
        try:
            manifest = verify(folder)
        except (ValueError, OSError) as fault:
            place = _quarantine(folder)
            say(f"checkpoint {folder.name} is damaged: {fault}; moved it to {place}")
            continue
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        return folder, {"step": manifest["step"], "arrays": manifest["arrays"], "meta": meta}
    if steps:
        say("no checkpoint is whole: starting anew")
    return None


def verify(folder: Path) -> dict[str, Any]:
    """Compares a step with its manifest.

    Args:
      folder: folder of the step.

    Returns:
      The manifest, without its digest.

    Raises:
      ValueError: names the file and its fault.
      OSError: a file cannot be read.
    """
    if folder.is_symlink():
        raise ValueError("it is a link")
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        manifest.pop("sha256")
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} cannot be read ({error})") from None
    if text != _sealed(manifest):
        raise ValueError(f"{MANIFEST} does not have the SHA-256 it states")
    if folder.name != f"{manifest['step']:08d}":
        raise ValueError(f"its {MANIFEST} is that of step {manifest['step']}")
    present = set(_files(folder)) - {MANIFEST}
    for name in sorted(present | manifest["files"].keys()):
        expected = manifest["files"].get(name)
        if expected is None:
            raise ValueError(f"{name} is not in the manifest")
        if name not in present:
            raise ValueError(f"{name} is missing")
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{name} is not a regular file")
        size = path.stat().st_size
        if size != expected["size"]:
            raise ValueError(f"{name} has {size} bytes instead of {expected['size']}")
        if _fingerprint(path) != expected:
            raise ValueError(f"{name} does not have the SHA-256 of the manifest")
    return manifest


def _check_fit(header: dict[str, Any], kinds: dict[str, str]) -> None:
    stored = header["arrays"]
    for name in [*stored, *(kinds.keys() - stored.keys())]:
        before, now = stored.get(name, "absent"), kinds.get(name, "absent")
        if before != now:
            raise ValueError(
                f"checkpoint {header['step']:08d} does not fit this run: array {name!r} was "
                f"{before} and is {now}; was the configuration or the code changed?"
            )


def _read(folder: Path) -> dict[str, np.ndarray]:
    with _orbax() as checkpointer:
        return checkpointer.restore(folder / ARRAYS, args=ocp.args.PyTreeRestore())


def _orbax() -> ocp.Checkpointer:
    """Makes what reads and writes arrays for process 0 alone."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="eejax"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _send(array: np.ndarray | None, like: Any) -> np.ndarray:
    """Gives every process the array that process 0 has read, or an array without elements."""
    data = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
    if 0 in data.shape:
        return np.empty(data.shape, data.dtype)
    if jax.process_count() == 1:
        return array
    content = from_first(b"" if array is None else array.tobytes())
    return np.frombuffer(content, data.dtype).reshape(data.shape).copy()


def _place(array: np.ndarray, like: Any) -> Any:
    """Puts a restored array where its counterpart in ``like`` is."""
    if isinstance(like, np.ndarray | np.generic):
        return array
    # An uncommitted array must stay so, or it could not meet arrays on other devices.
    sharding = like.sharding if getattr(like, "committed", True) else None
    if not _is_key(like):
        return to_devices(array, sharding)
    # Not device_put, which refuses keys that go to several processes.
    wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(like))
    return jax.jit(wrap, out_shardings=sharding)(array)


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Names the leaves, in their order."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = trees.path_name(path)
        if not hasattr(leaf, "dtype"):
            raise ValueError(
                f"leaf {name!r} of a checkpoint is {type(leaf).__name__}; arrays belong into the "
                "tree, plain values into meta"
            )
        if name in named:
            raise ValueError(f"two leaves of a checkpoint have the same path {name!r}")
        named[name] = leaf
    return named


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _to_host(tree: PyTree) -> dict[str, np.ndarray]:
    arrays = {}
    for name, leaf in _leaves(tree).items():
        if getattr(leaf, "weak_type", False):
            raise ValueError(
                f"leaf {name!r} of a checkpoint is weakly typed, as arrays made of bare Python "
                "numbers are, and would be promoted differently once restored; give it a dtype"
            )
        # Not numpy scalars, which orbax saves but refuses to restore.
        arrays[name] = to_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return arrays


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _meta_text(meta: Any) -> str:
    text = json.dumps(meta, allow_nan=False)
    if json.loads(text) != meta:
        raise ValueError("meta would not come back from JSON as it is: use lists instead of "
                         "tuples, and strings as keys")  # fmt: skip
    return text


def _sealed(manifest: dict[str, Any]) -> str:
    """Canonical text of a manifest and its own digest, so that every byte of the file counts."""

    def canonical(value: dict[str, Any]) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    digest = hashlib.sha256(canonical(manifest).encode()).hexdigest()
    return canonical(manifest | {"sha256": digest})


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size": file.tell()}


def _files(folder: Path) -> list[str]:
    """Lists everything but folders, also links to folders."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _steps(directory: Path) -> list[Path]:
    """Lists everything that is named like a step, oldest first."""
    return sorted((p for p in directory.glob("*") if p.name.isdecimal()), key=lambda p: int(p.name))


def _sweep(directory: Path) -> None:
    for path in directory.glob(".tmp-*"):
        shutil.rmtree(path)


def _quarantine(folder: Path) -> Path:
    place = folder.parent / QUARANTINE
    place.mkdir(exist_ok=True)
    count = 0
    while (place / f"{folder.name}-{count}").exists():
        count += 1
    os.replace(folder, place / f"{folder.name}-{count}")
    return (place / f"{folder.name}-{count}").relative_to(folder.parent.parent)
