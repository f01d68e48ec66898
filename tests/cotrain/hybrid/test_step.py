"""Every hybrid equals one device, sends what theory says, and sums each gradient once."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain import pipeline, tensor
from eejax.cotrain.hybrid import (
    Hybrid,
    copies,
    hybrid_grad,
    hybrid_step,
    make_mesh_of,
    nbytes,
    pack,
    packed_specs,
    text_model,
    tier_of,
    unpack,
)
from eejax.tiers import collectives, make_mesh

V, T = 32, 128
SHAPE = tensor.Shape(16, 32, 4, 2, seq=4, layers=4, causal=True)
MODEL = text_model(V, SHAPE)
HYBRIDS = [
    Hybrid(2, 2, "1d", (2,), "fused", microbatches=4),
    Hybrid(2, 2, "1d_sp", (2,), "one_f_one_b", microbatches=4),
    Hybrid(1, 2, "2d", (2, 2), "gpipe", microbatches=4),
    Hybrid(2, 2, "fsdp", (2,), "interleaved", chunks=2, microbatches=2),
]
LARGE = [
    Hybrid(1, 2, "2.5d", (2, 2, 2), microbatches=4),
    Hybrid(1, 2, "3d", (2, 2, 2), microbatches=4),
    Hybrid(2, 2, "2d", (2, 2), microbatches=4),
]


def batch():
    key = jax.random.key(1)
    ids = jax.random.randint(key, (T,), 0, V)
    # Micro-batches have different numbers of labels that count, as those of an encoder do.
    counts = jax.random.uniform(key, (T,)) < jnp.linspace(0.2, 1, T)
    return {"inputs": ids, "labels": jnp.where(counts, jnp.roll(ids, -1), -1)}


def serial():
    model, mesh = tensor.transformer(V, SHAPE), make_mesh((1,), ("x",))
    params = model.init(jax.random.key(0))
    grad = jax.jit(tensor.loss_and_grad(model, tensor.layout("serial"), mesh))
    return params, jax.device_get(grad(params, batch()))


def check_equal(hybrid, params, want):
    mesh = make_mesh_of(hybrid)
    packed = tensor.place(pack(params, hybrid), mesh, packed_specs(hybrid, MODEL))
    data = pipeline.microbatches(batch(), hybrid.microbatches)
    grad = jax.jit(hybrid_grad(MODEL, hybrid, mesh)).lower(packed, data).compile()
    loss, grads = jax.device_get(grad(packed, data))
    np.testing.assert_allclose(loss, want[0], rtol=1e-6)
    for path, g in jax.tree_util.tree_leaves_with_path(want[1]):
        got = unpack(grads)
        for entry in path:
            got = got[entry.key]
        error = np.linalg.norm(got - g) / np.linalg.norm(g)
        assert error < 1e-6, (path, error)

    found, tier = collectives(grad, mesh), tier_of(hybrid)
    sent = dict.fromkeys(nbytes(hybrid, MODEL, T), 0.0)
    for axis, number in found.by_tier.items():
        sent[tier[axis]] += number
    assert sent == nbytes(hybrid, MODEL, T)
    sums = [op.count for op in found.ops if any("data" in axes for axes in op.nbytes)]
    # Each leaf, the number of labels and the loss.
    assert sum(sums) <= len(jax.tree.leaves(params)) + 2


@pytest.fixture(scope="module")
def reference():
    return serial()


@pytest.mark.parametrize("hybrid", HYBRIDS, ids=lambda h: f"{h.scheme}-{h.schedule}")
def test_hybrid_equals_one_device(hybrid, reference):
    check_equal(hybrid, *reference)


def test_training_equals_one_device():
    model = text_model(V, tensor.Shape(16, 32, 4, 4, seq=4, layers=2, causal=False))
    data, losses = batch(), []
    for hybrid in (Hybrid(), Hybrid(2, 2, "2d_opt", (2, 1), "fused", microbatches=4)):
        init, step = hybrid_step(model, hybrid, make_mesh_of(hybrid), optax.adam(1e-2))
        state = init(jax.random.key(0))
        for moment, p in zip(jax.tree.leaves(state[1][0].mu), jax.tree.leaves(state[0])):
            assert moment.sharding == p.sharding
        curve = []
        for _ in range(20):
            state, metrics = step(state, pipeline.microbatches(data, hybrid.microbatches))
            curve.append(float(metrics["loss"]))
        losses.append(curve)
        # Beyond the ends of the model, their room stays empty.
        assert np.abs(state[0]["head"][0, : hybrid.stages - 1]).sum() == 0
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-5)


PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cases", sys.argv[1])
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
params, want = cases.serial()
for hybrid in cases.LARGE:
    cases.check_equal(hybrid, params, want)
    print(hybrid.scheme, "ok")
"""


@pytest.mark.slow
def test_sixteen_devices_equal_one():
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "16", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, __file__],
        env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok") == len(LARGE)


@pytest.mark.parametrize("hybrid", [*HYBRIDS, *LARGE], ids=lambda h: h.scheme)
def test_packing_is_undone(hybrid):
    params = jax.eval_shape(tensor.transformer(V, SHAPE).init, jax.random.key(0))
    packed = jax.eval_shape(lambda p: pack(p, hybrid), params)
    for p in jax.tree.leaves(packed):
        assert p.shape[:2] == (hybrid.chunks, hybrid.stages)
    assert jax.tree.map(jnp.shape, jax.eval_shape(unpack, packed)) == jax.tree.map(
        jnp.shape, params
    )


def test_layers_keep_their_order():
    shape = tensor.Shape(4, 4, 1, 1, seq=2, layers=8, causal=True)
    hybrid = Hybrid(stages=2, schedule="interleaved", chunks=2, microbatches=2)
    params = tensor.transformer(4, shape).init(jax.random.key(0))
    numbered = params | {"layers": {"n": jnp.arange(8)}}
    packed = pack(numbered, hybrid)
    # Device 0 holds the first and the third quarter.
    assert packed["layers"]["n"][:, 0].tolist() == [[0, 1], [4, 5]]
    assert jax.tree.map(jnp.array_equal, unpack(packed), numbered) == jax.tree.map(
        lambda _: True, numbered
    )


def test_gradients_are_summed_where_parameters_are_copied():
    summed = copies(Hybrid(2, 2, "2.5d", (2, 2, 2)), MODEL)
    assert summed["layers"]["mlp"]["w1"] == ("data", "d")
    assert summed["layers"]["norm1"]["scale"] == ("data", "d", "r")
    # The tokens of a 1-D layout are everywhere the same between blocks.
    assert copies(Hybrid(2, 2, "1d", (2,)), MODEL)["norm"]["scale"] == ("data",)
    assert copies(Hybrid(2, 2, "1d_sp", (2,)), MODEL)["norm"]["scale"] == ("data", "t")


def test_other_meshes_and_batches_are_refused():
    hybrid = Hybrid(data=2, microbatches=4)
    with pytest.raises(ValueError, match="mesh must have axes"):
        hybrid_grad(MODEL, hybrid, make_mesh_of(Hybrid(data=4)))
    grad = hybrid_grad(MODEL, hybrid, make_mesh_of(hybrid))
    with pytest.raises(ValueError, match="microbatches=4"):
        grad({}, pipeline.microbatches(batch(), 2))
    with pytest.raises(ValueError, match="tiers must hold"):
        make_mesh_of(hybrid, {"cloud": ("stage",)})
