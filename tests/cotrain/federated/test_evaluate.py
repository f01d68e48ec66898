"""Evaluation of the global model: the same sums over any mesh, in batches of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.cotrain.federated import evaluator, replicate
from eejax.tiers import tier_mesh

RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(101, 4)).astype(np.float32),
    "y": RNG.integers(0, 3, 101).astype(np.int32),
}
W = RNG.normal(size=(4, 3)).astype(np.float32)


def metric_fn(w, batch):
    logits = batch["x"] @ w
    return {"accuracy": logits.argmax(1) == batch["y"], "margin": logits.max(1)}


@pytest.mark.parametrize(("devices", "at_once"), [(1, 256), (1, 7), (8, 5), (8, 1000)])
def test_sums_are_those_of_all_samples(devices, at_once):
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    found = evaluator(metric_fn, mesh, at_once=at_once)(*replicate(mesh, (W, DATA)))
    logits = DATA["x"] @ W
    assert float(found["accuracy"].total) == (logits.argmax(1) == DATA["y"]).sum()
    np.testing.assert_allclose(found["margin"].total, logits.max(1).sum(), rtol=1e-5)
    assert [float(score.weight) for score in found.values()] == [101, 101]


def test_parts_add_up():
    evaluate = evaluator(metric_fn, tier_mesh(1, 1), at_once=10)
    parts = [jax.tree.map(lambda a, p=p: a[p], DATA) for p in (slice(0, 40), slice(40, None))]
    whole, *scores = (evaluate(W, data)["accuracy"] for data in (DATA, *parts))
    assert jax.tree.map(float, whole) == jax.tree.map(lambda a, b: float(a + b), *scores)


def test_batches_have_at_least_one_sample():
    with pytest.raises(ValueError, match="at_once must be at least 1, got 0"):
        evaluator(metric_fn, tier_mesh(1, 1), at_once=0)
    assert jnp.isfinite(evaluator(metric_fn, tier_mesh(1, 1))(W, DATA)["margin"].total)
