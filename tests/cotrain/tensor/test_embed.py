"""Vocabulary-parallel embedding and cross-entropy against the plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from eejax.cotrain import tensor
from eejax.cotrain.tensor import theory
from eejax.tiers import collectives, make_mesh

VOCABULARY, HIDDEN, TOKENS = 32, 16, 24
IDS = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS).astype(np.int32)
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, HIDDEN)).astype(np.float32)
LOGITS = 5 * np.random.default_rng(2).normal(size=(TOKENS, VOCABULARY)).astype(np.float32)

EVERY = pytest.mark.parametrize(
    ("scheme", "grid"),
    [
        ("fsdp", (8,)),
        ("1d", (8,)),
        ("1d_sp", (8,)),
        ("2d", (2, 4)),
        ("2d_opt", (4, 2)),
        ("2.5d", (2, 2, 2)),
        ("3d", (2, 2, 2)),
    ],
)


@EVERY
def test_embedding(scheme, grid):
    lo = tensor.layout(scheme)
    mesh = make_mesh(grid, lo.axes)
    fn = tensor.spread(tensor.embed, lo, mesh, (lo.w_down, lo.down.ids), lo.act, "shard_map")

    @jax.jit
    def both(table, ids, dy):
        y, vjp = jax.vjp(lambda t: fn(t, ids), table)
        return y, vjp(dy)[0]

    dy = jnp.sin(jnp.arange(TOKENS * HIDDEN, dtype=jnp.float32)).reshape(TOKENS, HIDDEN)
    args = tensor.place((TABLE, IDS, dy), mesh, (lo.w_down, lo.down.ids, lo.act))
    y, gradient = both(*args)
    np.testing.assert_array_equal(y, TABLE[IDS])
    expected = np.zeros_like(TABLE)
    np.add.at(expected, IDS, dy)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    sent = theory.linear(lo.down, mesh.shape, TOKENS, VOCABULARY, HIDDEN, bias=False, x_moves=False)
    assert collectives(both.lower(*args).compile(), mesh).total == pytest.approx(4 * sent.total)


@EVERY
def test_cross_entropy(scheme, grid):
    lo = tensor.layout(scheme)
    mesh = make_mesh(grid, lo.axes)
    labels = np.where(np.arange(TOKENS) % 3, IDS, -1)
    lies = (lo.inner, tensor.label_spec(lo))
    fn = tensor.spread(tensor.cross_entropy, lo, mesh, lies, P(), "shard_map")
    both = jax.jit(jax.value_and_grad(fn))
    args = tensor.place((LOGITS, labels), mesh, lies)

    def plain(logits):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.abs(labels))
        return (losses * (labels >= 0)).sum() / (labels >= 0).sum()

    for ours, theirs in zip(both(*args), jax.value_and_grad(plain)(LOGITS)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    sent = theory.cross_entropy(lo, mesh.shape, TOKENS)
    assert collectives(both.lower(*args).compile(), mesh).total == pytest.approx(4 * sent.total)


def test_large_logits_and_no_labels():
    lo = tensor.layout("1d")
    mesh = make_mesh((8,), lo.axes)
    lies = (lo.inner, tensor.label_spec(lo))
    fn = jax.jit(
        jax.value_and_grad(tensor.spread(tensor.cross_entropy, lo, mesh, lies, P(), "shard_map"))
    )
    loss, gradient = fn(LOGITS * 1e4, IDS)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    loss, gradient = fn(LOGITS, np.full(TOKENS, -1))
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize(("scheme", "grid"), [("1d_sp", (8,)), ("3d", (2, 2, 2)), ("serial", ())])
def test_positions_count_within_sequences_across_devices(scheme, grid):
    lo = tensor.layout(scheme)
    mesh = make_mesh(grid, lo.axes)
    x, table = jnp.zeros((TOKENS, HIDDEN)), TABLE[:6]
    lies = (tensor.position_spec(lo), lo.act)
    fn = tensor.spread(tensor.positions, lo, mesh, lies, lo.act, "shard_map")
    np.testing.assert_array_equal(jax.jit(fn)(table, x), np.tile(table, (4, 1)))


def test_the_norm_does_not_produce_nan_on_constant_features():
    lo = tensor.layout("serial")
    params = tensor.layer_norm_init(HIDDEN)
    norm = functools.partial(tensor.layer_norm, lo, params)
    x = jnp.full((4, HIDDEN), 1e3 + 1 / 3)
    assert np.isfinite(norm(x)).all()
    x = jax.random.normal(jax.random.key(0), (4, HIDDEN)) * 3 + 1
    np.testing.assert_allclose(norm(x).mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(norm(x).var(1), 1, rtol=1e-4)
