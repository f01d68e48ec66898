"""Synchronous data parallelism: exact means, one all-reduce, real data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import data, models
from eejax.cotrain.replica import Batch, data_parallel, mean_grad, split
from eejax.tiers import collectives, make_mesh

KEY = jax.random.key(0)


def quadratic(w, x, key):
    del key
    return ((w[None] - x) ** 2).sum(-1) / 2, {}


def one_step(grad_fn, batch, w, mesh=None, tx=None):
    mesh = make_mesh((8,), ("end",)) if mesh is None else mesh
    method = data_parallel(grad_fn, optax.sgd(1.0) if tx is None else tx, mesh, ("end",))
    state, metrics = method.step(method.init(w), batch, KEY)
    return method.params(state), metrics


def test_the_mean_is_over_samples_and_not_over_nodes():
    x = np.arange(10, dtype=np.float32)[:, None] ** 2
    sizes = (3, 0, 1, 1, 2, 1, 1, 1)
    w, metrics = one_step(mean_grad(quadratic), split(x, sizes), jnp.zeros(1))
    np.testing.assert_allclose(w, x.mean(0), rtol=1e-6)  # 28.5, where a mean of means is 32.3.
    np.testing.assert_allclose(metrics["loss"], (x**2).mean() / 2, rtol=1e-6)


def test_weights_may_be_any_and_padding_may_be_nan():
    x = np.array([[[[1.0], [3.0]]]] * 8, np.float32)
    weights = np.array([[[1.0, 3.0]]] * 8, np.float32)
    x[5], weights[5] = np.nan, 0
    w, _ = one_step(mean_grad(quadratic), Batch(x, weights), jnp.zeros(1))
    np.testing.assert_allclose(w, [2.5], rtol=1e-6)


def test_a_batch_without_samples_has_no_gradient():
    x = np.ones((8, 1, 2, 1), np.float32)
    w, metrics = one_step(
        mean_grad(quadratic), Batch(x, np.zeros((8, 1, 2), np.float32)), jnp.ones(1)
    )
    assert w.tolist() == [1]
    assert float(metrics["loss"]) == 0


def test_gradients_cross_once_a_step_however_many_micro_batches_there_are():
    """Regression: replicated weights in a loop are all-reduced in each turn (35 x the bytes)."""
    params = {"w": jnp.ones((6, 4)), "b": jnp.ones(4)}

    def loss(p, x, key):
        return jnp.tanh(x @ p["w"] + p["b"][None]).sum(-1), {}

    mesh = make_mesh((8,), ("end",))
    method = data_parallel(mean_grad(loss), optax.adam(0.1), mesh, ("end",))
    found = []
    for micro in (1, 4, 32):
        batch = split(np.ones((256, 6), np.float32), [32] * 8, micro)
        compiled = method.step.lower(method.init(params), batch, KEY).compile()
        found.append(collectives(compiled, mesh))
    assert found[0].by_kind == {"all-reduce": 2 * 7 / 8 * 4 * (6 * 4 + 4 + 2)}
    assert all(f.by_kind == found[0].by_kind for f in found)
    # At most one a leaf, and one for loss and weight.
    assert all(f.count["all-reduce"] <= len(params) + 1 for f in found)


def test_other_axes_of_the_mesh_stay_with_the_compiler():
    x = np.arange(8, dtype=np.float32)[:, None]
    mesh = make_mesh((4, 2), ("end", "model"))
    w, _ = one_step(mean_grad(quadratic), split(x, [2] * 4), jnp.zeros(1), mesh)
    np.testing.assert_allclose(w, [3.5])


def test_curve_of_digits_equals_one_device_and_the_model_learns():
    """20 steps of a two-layer net on 8 nodes with unequal batches, against the global batch."""
    digits = data.load("digits", "train")
    model = models.staged_mlp(widths=(32,))
    images = digits.images[:, ..., 0].astype(np.float32) / 127.5 - 1
    params = models.init(model, jax.random.key(1), images[:1])

    def loss(p, batch, key):
        del key
        logits = models.all_logits(model, p, batch["x"])[-1]
        right = (logits.argmax(-1) == batch["y"]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]), {"right": right}

    tx = optax.adam(0.02)
    mesh = make_mesh((8,), ("end",))
    method = data_parallel(mean_grad(loss), tx, mesh, ("end",))
    sizes = (40, 10, 20, 30, 5, 15, 25, 47)

    @jax.jit
    def plain(p, opt_state, batch):
        value, grads = jax.value_and_grad(lambda p: loss(p, batch, None)[0].mean())(p)
        updates, opt_state = tx.update(grads, opt_state, p)
        return optax.apply_updates(p, updates), opt_state, value

    state, p, opt_state = method.init(params), params, tx.init(params)
    curve, reference, right = [], [], []
    rng = np.random.default_rng(0)
    for _ in range(20):
        picked = rng.choice(len(images), sum(sizes), replace=False)
        batch = {"x": images[picked], "y": digits.labels[picked].astype(np.int32)}
        state, metrics = method.step(state, split(batch, sizes, micro=2), KEY)
        p, opt_state, value = plain(p, opt_state, batch)
        curve.append(float(metrics["loss"]))
        right.append(float(metrics["right"]))
        reference.append(float(value))
    np.testing.assert_allclose(curve, reference, rtol=1e-5)
    assert right[0] < 0.3
    assert right[-1] > 0.85


def test_split_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"sizes \[3, 3\] .* add up to the samples \[5\]"):
        split(np.zeros(5), (3, 3))
    with pytest.raises(ValueError, match="sizes"):
        split(np.zeros(5), (6, -1))
    with pytest.raises(ValueError, match="micro must be >= 1, got 0"):
        split(np.zeros(5), (3, 2), 0)


def test_axes_must_be_in_the_order_of_the_mesh():
    mesh = make_mesh((2, 4), ("edge", "end"))
    for axes in (("end", "edge"), ("end", "end"), ()):
        with pytest.raises(ValueError, match=r"must be some of .*in this order"):
            data_parallel(mean_grad(quadratic), optax.sgd(1.0), mesh, axes)
