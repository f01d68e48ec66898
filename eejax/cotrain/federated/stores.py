"""Where the states of very many clients lie between rounds: in host memory or on disk."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any

_SLOTS, _CRC = (
    3,
    4,
)  # What two earlier calls began from, and what is written now; bytes of a CRC-32.
_LAYOUT = "store.json"


def _nothing(kept, at):
    del kept, at


class Store(NamedTuple):
    """A place for one state per client; all clients begin alike.

    What it hands on as ``kept`` is part of the state of a run, and given up by ``scatter``.

    Attributes:
      init: ``(own, clients) -> kept`` from the first state of a client and their number.
      gather: ``(kept, ids [n], at) -> states [n, ...]``, numpy arrays of its own.
      scatter: ``(kept, ids [n], states [n, ...], at) -> kept``: states that clients, each at most
        once, have after ``at`` steps of the run.
      begin: ``(kept, at)``: the run goes on, or goes back to, after ``at`` steps.
      finish: ``(kept, at)``: the run may be saved here.
    """

    init: Callable[[PyTree, int], PyTree]
    gather: Callable[..., PyTree]
    scatter: Callable[..., PyTree]
    begin: Callable[[PyTree, int], None] = _nothing
    finish: Callable[[PyTree, int], None] = _nothing


class HostKept(NamedTuple):
    """States in host memory.

    Attributes:
      first: state of a client that was never written.
      states: numpy arrays ``[clients, ...]``; memory is taken only by what was written.
      written: bool ``[clients]``.
    """

    first: PyTree
    states: PyTree
    written: np.ndarray


def host_store() -> Store:
    """Makes a store in host memory. Checkpoints hold all of it, as any array of the state.

    Returns:
      The store.

    Example:
      >>> store = host_store()
      >>> kept = store.init(np.float32(7.0), 1000)
      >>> kept = store.scatter(kept, np.array([2, 5]), np.float32([0.5, 1.5]), 1)
      >>> store.gather(kept, np.array([5, 6]), 1).tolist()
      [1.5, 7.0]
    """

    def init(own, clients):
        own = jax.tree.map(np.array, own)
        states = jax.tree.map(lambda x: np.zeros((clients, *x.shape), x.dtype), own)
        return HostKept(own, states, np.zeros(clients, bool))

    def gather(kept, ids, at):
        del at
        states = jax.tree.map(lambda x: x[ids], kept.states)
        return _fill(states, kept.first, kept.written[ids])

    def scatter(kept, ids, states, at):
        del at
        for x, new in zip(jax.tree.leaves(kept.states), jax.tree.leaves(states)):
            x[ids] = new
        kept.written[ids] = True
        return kept

    return Store(init, gather, scatter)


def disk_store(folder: Path) -> Store:
    """Makes a store in a folder: files with holes, which take room only where they were written.

    Nothing of it is in a checkpoint but the number of steps, and still a run goes back exactly to
    where any of its last two calls of ``run`` began, whatever kills it in between: each state is
    written with the number of steps to one of three places, never to one that such a call would
    read. Every state is read against its CRC-32, and all is on the disk before ``run`` returns. A
    run that begins anew forgets what was in the folder; a folder serves one run at a time.

    Args:
      folder: made if it is missing.

    Returns:
      The store. Its functions raise ValueError when the folder is of other clients or states, when
      it does not know the number of steps, or when a state is damaged.
    """
    folder, opened = Path(folder), {}

    def init(own, clients):
        first = [np.array(x) for x in jax.tree.leaves(own)]
        width = sum(x.nbytes for x in first) + _CRC
        layout = {"clients": clients, "states": [f"{x.dtype}{list(x.shape)}" for x in first]}
        fresh = not (folder / _LAYOUT).exists()
        if fresh:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            there = json.loads((folder / _LAYOUT).read_text(encoding="utf-8"))
            if there != layout:
                raise ValueError(f"the store in {folder} is {there}, but this run needs {layout}")

        def file(name, shape, dtype):
            mode = "w+" if fresh else "r+"
            return np.memmap(folder / f"{name}.bin", dtype, mode, shape=shape)

        opened.update(
            first=first,
            structure=jax.tree.structure(own),
            states=file("states", (clients, _SLOTS, width), np.uint8),
            versions=file("versions", (clients, _SLOTS), np.int32),
            marks=file("marks", (3,), np.int32),
        )
        # Named last: a folder without it is begun anew.
        (folder / f".{_LAYOUT}").write_text(json.dumps(layout), encoding="utf-8")
        (folder / f".{_LAYOUT}").replace(folder / _LAYOUT)
        return ()

    def begin(kept, at):
        marks, versions = opened["marks"], opened["versions"]
        if at and at not in marks:
            raise ValueError(
                f"the store in {folder} has the states after {sorted({*marks.tolist()})} steps, "
                f"not after {at}"
            )
        # What comes after was of a call that did not end, or of another run.
        later = np.argwhere(versions > at)
        versions[later[:, 0], later[:, 1]] = 0
        marks[:] = max([int(m) for m in marks if m < at], default=0), at, at
        marks.flush()

    def gather(kept, ids, at):
        versions = opened["versions"][ids]
        versions = np.where(versions <= at, versions, 0)
        written = versions.max(1) > 0
        raw = opened["states"][ids, versions.argmax(1)]
        for client, row in zip(np.asarray(ids)[written], raw[written]):
            if zlib.crc32(row[_CRC:]) != int.from_bytes(row[:_CRC].tobytes(), "little"):
                raise ValueError(f"the state of client {client} in {folder} is damaged")
        states, end = [], _CRC
        for x in opened["first"]:
            begin, end = end, end + x.nbytes
            row = np.ascontiguousarray(raw[:, begin:end])
            states.append(row.reshape(-1).view(x.dtype).reshape(len(raw), *x.shape))
        unflatten = opened["structure"].unflatten
        return _fill(unflatten(states), unflatten(opened["first"]), written)

    def scatter(kept, ids, states, at):
        n = len(ids)
        raw = [
            np.ascontiguousarray(x).reshape(n, -1).view(np.uint8) for x in jax.tree.leaves(states)
        ]
        raw = np.concatenate([np.zeros((n, _CRC), np.uint8), *raw], 1)
        for row in raw:
            row[:_CRC] = np.frombuffer(zlib.crc32(row[_CRC:]).to_bytes(_CRC, "little"), np.uint8)
        versions = opened["versions"][ids]
        needed = np.zeros(versions.shape, bool)
        for mark in opened["marks"][:2]:
            known = np.where(versions <= mark, versions, 0)
            needed |= (known > 0) & (known == known.max(1, keepdims=True))
        place = needed.argmin(1)
        # A state that is half written has no version.
        opened["versions"][ids, place] = 0
        opened["states"][ids, place] = raw
        opened["versions"][ids, place] = at
        return kept

    def finish(kept, at):
        opened["states"].flush()
        opened["versions"].flush()
        opened["marks"][2] = at
        opened["marks"].flush()

    return Store(init, gather, scatter, begin, finish)


def _fill(states: PyTree, first: PyTree, written: np.ndarray) -> PyTree:
    """Puts the first state where none was written."""

    def fill(x, first):
        x[~written] = first
        return x

    return jax.tree.map(fill, states, first)
