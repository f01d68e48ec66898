"""Traps of sharded autodiff, each with the guard that keeps this room out of it.

Every test shows the trap as well, so it tells when JAX no longer has it.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from eejax.cotrain import tensor
from eejax.cotrain.tensor import theory
from eejax.tiers import cast_varying, collectives, make_mesh

KEYS = jax.random.split(jax.random.key(0), 4)
W, X = jax.random.normal(KEYS[0], (8, 8)) / 3, jax.random.normal(KEYS[1], (16, 8))


def test_1_gradients_of_shared_weights_count_once():
    """Averaging the gradients inside the body counts them once for each device."""
    lo, mesh = tensor.layout("dp"), make_mesh((8,), ("d",))

    def loss(w, x):
        return jnp.square(jnp.tanh(x @ w)).mean()

    def old_idiom(w, x):
        return lax.pmean(jax.grad(loss)(w, x), "d")

    def body(lo, w, x):
        return lax.pmean(jnp.square(jnp.tanh(tensor.linear(lo.up, x, w))).mean(), "d")

    expected = jax.grad(loss)(W, X)
    wrong = jax.shard_map(old_idiom, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
    np.testing.assert_allclose(jax.jit(wrong)(W, X), 8 * expected, rtol=1e-5, atol=1e-7)
    ours = jax.grad(tensor.spread(body, lo, mesh, (lo.w_up, lo.act), P(), "shard_map"))
    np.testing.assert_allclose(jax.jit(ours)(W, X), expected, rtol=1e-5, atol=1e-8)


def test_2_gradients_of_shared_weights_are_summed_once_not_in_every_tick():
    """Weights that a loop reads must vary before it, or it sums them in each turn."""
    lo, mesh = tensor.layout("dp"), make_mesh((8,), ("d",))
    micro = jnp.stack([X] * 5)

    def body(lo, w, micro, guarded):
        w = cast_varying(w, ("d",)) if guarded else w

        def tick(total, x):
            return total + jnp.square(jnp.tanh(tensor.linear(lo.up, x, w))).sum(), None

        return lax.psum(lax.scan(tick, cast_varying(jnp.zeros(()), ("d",)), micro)[0], "d")

    def sums(guarded):
        fn = functools.partial(body, guarded=guarded)
        loss = tensor.spread(fn, lo, mesh, (lo.w_up, P(None, "d")), P(), "shard_map")
        return collectives(jax.jit(jax.grad(loss)).lower(W, micro).compile(), mesh).count

    assert sums(False) == {"all-reduce": 5}
    assert sums(True) == {"all-reduce": 1}


def test_3_copies_of_weights_vary_before_they_are_gathered(monkeypatch):
    """Else the gathered gradient of 2.5-D is summed over the depth, and not the scattered one."""
    lo, mesh = tensor.layout("2.5d"), make_mesh((2, 2, 2), ("d", "r", "c"))

    def sent():
        fn = tensor.spread(
            lambda lo, x, w: tensor.linear(lo.up, x, w),
            lo,
            mesh,
            (lo.act, lo.w_up),
            lo.inner,
            "shard_map",
        )
        step = jax.jit(lambda x, w, dy: jax.vjp(fn, x, w)[1](dy))
        lies = tensor.shardings(mesh, (lo.act, lo.w_up, lo.inner))
        program = jax.jit(step, in_shardings=lies).lower(X, W, X).compile()
        return collectives(program, mesh).total

    expected = 4 * theory.linear(lo.up, mesh.shape, 16, 8, 8, bias=False).total
    assert sent() == expected
    module = importlib.import_module("eejax.cotrain.tensor.linear")
    monkeypatch.setattr(module, "like", lambda x, y: x)
    # Twice the sum over depth: q times 64 / 4 elements.
    assert sent() == expected + 4 * 2 * (1 / 2) * (64 / 2 - 64 / 4)


def test_4_the_policy_drops_gathers_by_primitive(monkeypatch):
    """A policy that excludes names keeps the result of a gather, which has none."""
    lo, mesh = tensor.layout("2d"), make_mesh((2, 2), ("r", "c"))
    shape = tensor.Shape(16, 32, 4, 4, seq=4, layers=2, causal=True)
    lies = (tensor.stack_specs(lo), lo.act)
    params = jax.eval_shape(lambda: tensor.stack_init(jax.random.key(0), shape))
    x = jax.ShapeDtypeStruct((16, 16), "float32")

    def sent():
        body = functools.partial(tensor.stack, shape=shape, remat="gathers")
        fn = tensor.spread(body, lo, mesh, lies, lo.act, "shard_map")
        step = jax.jit(
            lambda params, x, dy: jax.vjp(fn, params, x)[1](dy),
            in_shardings=tensor.shardings(mesh, (*lies, lo.act)),
        )
        program = step.lower(params, x, x).compile({"xla_backend_optimization_level": 0})
        return collectives(program, mesh).total

    def expected(remat):
        return 4 * 2 * theory.layer(lo, mesh.shape, 16, shape, remat).total

    assert sent() == pytest.approx(expected("gathers"))
    named = jax.checkpoint_policies.save_anything_except_these_names("gathered")
    module = importlib.import_module("eejax.cotrain.tensor.transformer")
    monkeypatch.setitem(module._POLICIES, "gathers", named)
    assert expected("none") < expected("gathers")
    assert sent() == pytest.approx(expected("none"))


def test_5_types_of_carries_and_of_replicated_results():
    """A carry must vary as its result does, and a gathered result is not known to be the same."""
    mesh = make_mesh((4,), ("t",))

    def carry(x, cast):
        zero = cast_varying(jnp.zeros(x.shape), ("t",)) if cast else jnp.zeros(x.shape)
        return lax.scan(lambda c, _: (c + x, None), zero, None, length=3)[0]

    def over(body, out):
        return jax.shard_map(body, mesh=mesh, in_specs=P("t"), out_specs=out)

    with pytest.raises(TypeError, match="carry"):
        over(functools.partial(carry, cast=False), P("t"))(X)
    np.testing.assert_allclose(over(functools.partial(carry, cast=True), P("t"))(X), 3 * X)
    with pytest.raises(ValueError, match="out_specs"):
        over(lambda x: lax.all_gather(x, "t", tiled=True), P())(X)
    # The guards: layers keep the type of their input for every layout, and losses are the same
    # everywhere, or `spread` would refuse them.
    shape = tensor.Shape(16, 32, 4, 4, seq=4, layers=2, causal=True)
    model = tensor.transformer(32, shape)
    ids = jax.ShapeDtypeStruct((32,), "int32")
    params = jax.eval_shape(model.init, jax.random.key(0))
    for scheme in tensor.SCHEMES:
        lo = tensor.layout(scheme)
        grid = {0: (), 1: (4,), 2: (2, 2), 3: (2, 2, 2)}[len(lo.axes)]
        step = tensor.loss_and_grad(model, lo, make_mesh(grid, lo.axes))
        loss, grads = jax.eval_shape(step, params, {"inputs": ids, "labels": ids})
        assert loss.shape == ()
        assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


def test_7_arguments_may_lie_otherwise_on_our_meshes():
    """On a mesh of explicit axes, `jax.shard_map` refuses arguments that lie otherwise."""
    lo = tensor.layout("1d")
    body = tensor.mlp
    params = tensor.mlp_init(KEYS[2], 8, 16)
    specs = tensor.mlp_specs(lo)

    def run(mesh):
        fn = tensor.spread(body, lo, mesh, (specs, lo.act), lo.act, "shard_map")
        elsewhere = jax.device_put(params, NamedSharding(mesh, P()))
        return jax.jit(fn)(elsewhere, jax.device_put(X, NamedSharding(mesh, P("t"))))

    ours = run(make_mesh((4,), ("t",)))
    expected = tensor.mlp(tensor.layout("serial"), params, X)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    with pytest.raises(ValueError, match="in_specs"):
        run(jax.make_mesh((4,), ("t",), axis_types=(AxisType.Explicit,)))
