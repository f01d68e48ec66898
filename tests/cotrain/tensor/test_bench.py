"""The table of layouts, on the numbers of devices that do not fit into this process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
SCHEMES = {"dp", "fsdp", "1d", "1d_sp", "2d", "2d_opt", "2.5d", "3d"}


def run(*args, code=None):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = ["-c", code] if code else [str(ROOT / "scripts/bench/tensor.py")]
    done = subprocess.run(
        [sys.executable, *command, *args],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_64_devices_send_what_theory_says():
    sizes = ("--tokens", "4096", "--hidden", "512", "--heads", "64", "--seq", "64")
    table = json.loads(run("--devices", "64", *sizes, "--face", "shard_map", "--json"))
    rows = {row["scheme"]: row for row in table["rows"]}
    assert set(rows) == SCHEMES
    for row in rows.values():
        assert row["ratio"] == pytest.approx(1, rel=1e-12)
    assert rows["2d_opt"]["grid"] == {"r": 16, "c": 4}
    assert rows["2d_opt"]["bytes"] < rows["2d"]["bytes"] < rows["fsdp"]["bytes"]
    assert rows["fsdp"]["bytes"] < rows["1d"]["bytes"]


@pytest.mark.slow
def test_the_table_of_both_faces_at_8_devices():
    out = run("--devices", "8", "--tokens", "256", "--hidden", "64")
    assert out.count("shard_map") == out.count("jit") == 8
    assert "  1.000" in out


@pytest.mark.slow
def test_16_devices_equal_one():
    code = """
import functools, jax
jax.config.update("jax_num_cpu_devices", 16)
import numpy as np
from eejax.cotrain import tensor
from eejax.tiers import make_mesh
shape = tensor.Shape(32, 128, 16, 16, seq=4, layers=1, causal=True)
keys = jax.random.split(jax.random.key(0), 3)
params = tensor.layer_init(keys[0], shape)
x, dy = (jax.random.normal(k, (64, 32)) for k in keys[1:])
def run(scheme, grid, batch=()):
    lo = tensor.layout(scheme, batch=("data",)[:len(batch)])
    mesh = make_mesh((*batch, *grid), ("data",)[:len(batch)] + lo.axes)
    lies = (tensor.layer_specs(lo), lo.act)
    body = functools.partial(tensor.layer, shape=shape)
    fn = tensor.spread(body, lo, mesh, lies, lo.act, "shard_map")
    def both(params, x, dy):
        y, vjp = jax.vjp(fn, params, x)
        return y, vjp(dy)
    return jax.device_get(jax.jit(both)(params, x, dy))
expected = run("serial", ())
def error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()
for case in [("1d", (16,)), ("2d", (4, 4)), ("2d_opt", (8, 2)), ("2.5d", (4, 2, 2)),
             ("3d", (2, 2, 2), (2,)), ("1d_sp", (4,), (4,))]:
    worst = max(jax.tree.leaves(jax.tree.map(error, run(*case), expected)))
    assert worst < 1e-6, (case, worst)
print("equal")
"""
    assert run(code=code).strip() == "equal"
