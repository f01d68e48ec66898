import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from eejax import trees
from eejax.experiment import checkpoint
from eejax.tiers.mesh import make_mesh


class State(NamedTuple):
    params: dict
    moments: list
    key: jax.Array
    step: np.ndarray


def state_at(step):
    rng = np.random.default_rng(step)
    weights = jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)
    return State(
        params={"end": {"kernel": weights, "bias": jnp.full(7, step, jnp.bfloat16)}},
        moments=[rng.normal(size=3), jnp.zeros((0, 4)), jnp.arange(4).astype(jnp.int4)],
        key=jax.random.split(jax.random.key(step), 2),
        step=np.int32(step),
    )


def bits(state):
    return trees.sha256(state._replace(key=jax.random.key_data(state.key)))


def saved(directory, steps):
    for step in steps:
        checkpoint.save(directory, step, state_at(step), {"step": step})
    return directory


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base") / "checkpoints", [1, 2])


@pytest.fixture
def directory(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def expect_fallback(directory, *words, step=1, quarantined="00000002"):
    """Restoring must say the fault, set the damaged step aside and give the one before it."""
    said = []
    restored = checkpoint.restore_newest(directory, state_at(0), said.append)
    assert restored.step == step
    assert restored.meta == {"step": step}
    assert bits(restored.tree) == bits(state_at(step))
    assert len(said) == 1
    for word in ("damaged", quarantined, *words):
        assert word in said[0]
    assert (directory / "quarantine" / f"{quarantined}-0").exists()
    assert not (directory / quarantined).exists()


def test_round_trip_is_exact_and_keeps_types(two_steps):
    restored = checkpoint.restore_newest(two_steps, state_at(0))
    assert restored.step == 2
    assert restored.meta == {"step": 2}
    assert bits(restored.tree) == bits(state_at(2))
    assert jax.tree.structure(restored.tree) == jax.tree.structure(state_at(2))
    assert restored.tree.key.dtype == state_at(2).key.dtype
    assert isinstance(restored.tree.moments[0], np.ndarray)
    assert isinstance(restored.tree.params["end"]["kernel"], jax.Array)
    assert not restored.tree.params["end"]["kernel"].committed


def test_abstract_leaves_other_keys_and_special_floats(tmp_path):
    special = jnp.array([jnp.nan, -0.0, jnp.inf])
    key = jax.random.key(3, impl="rbg")
    checkpoint.save(tmp_path, 1, {"key": key, "special": special}, None)
    like = {"key": jax.random.key(0, impl="rbg"), "special": trees.abstract(special)}
    restored = checkpoint.restore_newest(tmp_path, like).tree
    assert jax.random.key_impl(restored["key"]) == "rbg"
    assert trees.sha256(jax.random.key_data(restored["key"])) == trees.sha256(
        jax.random.key_data(key)
    )
    assert trees.sha256(restored["special"]) == trees.sha256(special)


@pytest.mark.parametrize("devices", [1, 4])
def test_arrays_saved_on_eight_devices_return_to_fewer(tmp_path, devices):
    def laid_over(n):
        mesh = make_mesh((n,), ("end",))
        return jax.device_put(
            jnp.arange(16.0).reshape(8, 2), jax.NamedSharding(mesh, P("end", None))
        )

    checkpoint.save(tmp_path, 1, {"x": laid_over(8)}, None)
    like = {"x": laid_over(devices) * 0}
    restored = checkpoint.restore_newest(tmp_path, like).tree["x"]
    np.testing.assert_array_equal(restored, np.arange(16.0).reshape(8, 2))
    assert restored.sharding == like["x"].sharding


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, [1, 2, 10])
    assert sorted(os.listdir(tmp_path)) == ["00000002", "00000010"]
    checkpoint.save(tmp_path, 11, state_at(11), {}, keep=1)
    assert os.listdir(tmp_path) == ["00000011"]


def test_a_step_that_is_there_stays(directory):
    before = (directory / "00000002" / "manifest.json").read_bytes()
    checkpoint.save(directory, 2, state_at(5), {})
    assert (directory / "00000002" / "manifest.json").read_bytes() == before


def test_nothing_to_restore(tmp_path):
    assert checkpoint.restore_newest(tmp_path / "missing", state_at(0)) is None


@pytest.mark.parametrize("seed", range(80))
def test_no_flipped_byte_is_ever_read(directory, seed):
    rng = np.random.default_rng(seed)
    files = files_of(directory / "00000002")
    path = files[seed % len(files)]
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    expect_fallback(directory, path.name)


def test_no_truncated_missing_or_extra_file_is_ever_read(two_steps, tmp_path):
    names = [path.relative_to(two_steps) for path in files_of(two_steps / "00000002")]
    faults = {
        "half": lambda path: os.truncate(path, path.stat().st_size // 2),
        "empty": lambda path: os.truncate(path, 0),
        "missing": lambda path: path.unlink(),
        "folder": lambda path: (path.unlink(), path.mkdir()),
        "link": lambda path: (path.rename(path.parent / "other"), path.symlink_to("other")),
        "extra": lambda path: path.with_name("extra").write_text(""),
    }
    for number, name in enumerate(names):
        for fault, damage in faults.items():
            copy = shutil.copytree(two_steps, tmp_path / fault / str(number))
            damage(copy / name)
            expect_fallback(copy)


@pytest.mark.parametrize("kind", ["empty folder", "file", "older step", "dangling link", "link"])
def test_what_is_only_named_like_a_step_is_set_aside(directory, kind):
    fake = directory / "00000009"
    if kind == "empty folder":
        fake.mkdir()
    elif kind == "file":
        fake.write_text("9")
    elif kind == "older step":
        shutil.copytree(directory / "00000001", fake)
    else:
        fake.symlink_to(directory / ("00000001" if kind == "link" else "nowhere"))
    said = []
    restored = checkpoint.restore_newest(directory, state_at(0), said.append)
    assert restored.step == 2
    assert "00000009 is damaged" in said[0]
    assert (directory / "00000001").is_dir()


def test_all_damaged_means_starting_anew_and_nothing_is_deleted(directory):
    for step in ("00000001", "00000002"):
        (directory / step / "meta.json").write_text("{}")
    said = []
    assert checkpoint.restore_newest(directory, state_at(0), said.append) is None
    assert said[-1] == "no checkpoint is whole: starting anew"
    assert sorted(os.listdir(directory / "quarantine")) == ["00000001-0", "00000002-0"]
    saved(directory, [2])
    (directory / "00000002" / "meta.json").unlink()
    checkpoint.restore_newest(directory, state_at(0), said.append)
    assert (directory / "quarantine" / "00000002-1").is_dir()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: s._replace(step=np.float32(0)), r"'step' was int32\[\] and is float32\[\]"),
        (lambda s: s._replace(params={"end": s.params["end"] | {"bias": jnp.zeros(8)}}),
         r"'params/end/bias' was bfloat16\[7\] and is float32\[8\]"),
        (lambda s: s._replace(moments=s.moments[:2]), r"'moments/2' was int4\[4\] and is absent"),
        (lambda s: s._replace(moments=[*s.moments, np.ones(1)]), "'moments/3' was absent"),
        (lambda s: s._replace(key=jax.random.key_data(s.key)), r"'key' was key<fry>\[2\]"),
    ],
)  # fmt: skip
def test_a_changed_state_is_named_and_not_quarantined(directory, changed, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.restore_newest(directory, changed(state_at(0)))
    assert (directory / "00000002").is_dir()


@pytest.mark.parametrize(
    ("tree", "meta", "message"),
    [
        ({"a": 3.0}, None, "leaf 'a' of a checkpoint is float"),
        ({"a": jnp.asarray(3.0)}, None, "leaf 'a' of a checkpoint is weakly typed"),
        ({"a": {"b": np.ones(1)}, "a/b": np.ones(1)}, None, "same path 'a/b'"),
        ({"a": np.ones(1)}, {"rows": (1, 2)}, "lists instead of tuples"),
        ({"a": np.ones(1)}, {1: 2}, "strings as keys"),
        ({"a": np.ones(1)}, float("nan"), "not JSON compliant"),
    ],
)
def test_what_cannot_come_back_is_refused_before_anything_is_written(tmp_path, tree, meta, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path, 1, tree, meta)
    assert os.listdir(tmp_path) == []


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, is 0"):
        checkpoint.save(tmp_path, 1, state_at(1), None, keep=0)


class Crash(Exception):
    pass


def test_a_crash_between_any_two_writes_leaves_a_good_step(two_steps, tmp_path, monkeypatch):
    """Stops `save` before its first, second, ... access to the disk until it gets through."""
    crashes = 0
    while True:
        directory = shutil.copytree(two_steps, tmp_path / str(crashes))
        accesses = []

        def crashing(function, accesses=accesses, limit=crashes):
            def call(*args, **kwargs):
                accesses.append(function)
                if len(accesses) > limit:
                    raise Crash
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "fsync_path", crashing(checkpoint.fsync_path))
            patch.setattr(os, "replace", crashing(os.replace))
            patch.setattr(shutil, "rmtree", crashing(shutil.rmtree))
            try:
                checkpoint.save(directory, 3, state_at(3), {"step": 3})
                break
            except Crash:
                crashes += 1
        renamed = (directory / "00000003").exists()
        said = []
        restored = checkpoint.restore_newest(directory, state_at(0), said.append)
        assert restored.step == (3 if renamed else 2)
        assert bits(restored.tree) == bits(state_at(restored.step))
        assert said == []
        assert not list(directory.glob(".tmp-*"))
    assert crashes > 10


SAVER = """
import sys
from pathlib import Path
import numpy as np
from eejax.experiment import checkpoint

def state_at(step):
    return {"w": np.random.default_rng(step).normal(size=(50, 100)), "step": np.int32(step)}

directory, step = Path(sys.argv[1]), 0
restored = checkpoint.restore_newest(directory, state_at(0), lambda fault: sys.exit(fault))
if restored:
    step = restored.step
    assert restored.meta == {"step": step}
    assert restored.tree["w"].tobytes() == state_at(step)["w"].tobytes()
print(step, flush=True)
while True:
    step += 1
    checkpoint.save(directory, step, state_at(step), {"step": step})
"""


def test_kill_9_at_any_moment_loses_no_finished_step(tmp_path):
    rng = np.random.default_rng(0)
    newest = -1
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with child:
            start = child.stdout.readline()
            assert start, "the child found a damaged step or a wrong value"
            assert int(start) >= newest
            # One step more, and then at any moment of a later save.
            following = tmp_path / f"{int(start) + 1:08d}"
            while not following.exists() and child.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
        names = [path.name for path in tmp_path.iterdir() if path.name.isdecimal()]
        newest = max(map(int, names), default=0)
        for name in names:
            checkpoint.verify(tmp_path / name)
    assert newest >= 6


def test_manifest_is_readable_json(two_steps):
    manifest = json.loads((two_steps / "00000002" / "manifest.json").read_text())
    assert manifest["step"] == 2
    assert manifest["arrays"]["params/end/kernel"] == "float32[5, 7]"
    assert manifest["files"]["meta.json"]["size"] == len('{"step": 2}')
