"""Sixteen devices in a process of their own: every method equals one device there too."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, optax
from eejax.cotrain.replica import (
    HIERARCHICAL, Layered, async_server, data_parallel, gossip, mean_grad, ring, split, zero, zero3)
from eejax.tiers import collectives, make_mesh

axes, key = ("cloud", "edge", "end"), jax.random.key(0)
rng = np.random.default_rng(0)
flat = {"w": jnp.asarray(rng.normal(size=(5, 32)), jnp.float32), "b": jnp.zeros(7)}
batch = split(rng.normal(size=(40, 5)).astype(np.float32), [4, 1] * 8, micro=2)
grad_fn = mean_grad(lambda p, x, key: (jnp.tanh(x @ p["w"]).sum(-1) + jnp.sin(p["b"]).sum(), {}))
stack = Layered(lambda p, x, key: x, lambda p, x, key: x + jnp.tanh(x @ p["in"]) @ p["out"],
                lambda p, x, data, key: (((x + p["b"][None]) ** 2).sum(-1), {}))
draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32) / 4
models = {"layers": {"layers": {"in": draw(3, 5, 32), "out": draw(3, 32, 5)}, "b": draw(5)}}
delays = np.arange(16)[None] % 4
methods = {
    "synchronous": lambda *a: data_parallel(*a),
    "hierarchical": lambda *a: data_parallel(*a, reduce=HIERARCHICAL),
    "zero1": lambda *a: zero(*a, stage=1),
    "zero3": lambda *a: zero(*a, stage=3),
    "layers": lambda _, *a: zero3(stack, *a, remat="full"),
    "async": lambda *a: async_server(*a, delays=delays),
    "gossip": lambda *a: gossip(*a, w=ring(16)),
}
for name, make in methods.items():
    out, params = [], models.get(name, flat)
    for shape in ((2, 2, 4), (1, 1, 1)):
        mesh = make_mesh(shape, axes)
        method = make(grad_fn, optax.sgd(0.1), mesh, axes)
        step = method.step.lower(method.init(params), batch, key).compile()
        assert dict(collectives(step, mesh).by_tier) == {
            k: np.float64(v).item() for k, v in method.nbytes(params, batch).items()}, name
        state = method.init(params)
        for _ in range(3):
            state, _ = step(state, batch, key)
        out.append(jax.device_get(method.params(state)))
    for a, b in zip(*map(jax.tree.leaves, out)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=name)
    print(name, "ok")
"""


@pytest.mark.slow
def test_sixteen_devices_equal_one():
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "16", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok") == 7
