"""Survey eq. (3) to (6), literally."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.coinfer import joint_grad_fn, joint_loss
from eejax.core import Exit, Stage
from eejax.models.staged import all_logits, init, staged


def literal_loss(logits, labels, weights):
    """Eq. (3) to (6) in loops, mean over the batch."""
    exits, batch, classes = logits.shape
    total = 0.0
    for n in range(exits):
        for i in range(batch):
            z = logits[n, i].astype(np.float64)
            y_hat = np.exp(z) / np.exp(z).sum()
            y = np.eye(classes)[labels[i]]
            total += weights[n] * -(y * np.log(y_hat)).sum() / classes / batch
    return total


@pytest.mark.parametrize("weights", [None, (1.0, 0.3, 0.3), (0.0, 0.0, 1.0)])
def test_loss_is_the_equation_times_the_number_of_classes(weights):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 8, 5)).astype(np.float32), rng.integers(0, 5, 8)
    loss, metrics = joint_loss(jnp.asarray(logits), jnp.asarray(labels), weights)
    literal = literal_loss(logits, labels, weights or (1 / 3,) * 3)
    assert float(loss) == pytest.approx(5 * literal, rel=1e-5)
    assert list(metrics) == ["loss", "accuracy_exit1", "accuracy_exit2", "accuracy_exit3"]
    assert metrics["loss"] == loss
    for n in range(3):
        right = (logits[n].argmax(-1) == labels).mean()
        assert float(metrics[f"accuracy_exit{n + 1}"]) == pytest.approx(right)


def test_huge_logits_keep_loss_and_gradient_finite():
    logits = jnp.array([[[1e30, -1e30]]])
    loss, grad = jax.value_and_grad(lambda z: joint_loss(z, jnp.array([0]))[0])(logits)
    assert float(loss) == 0
    assert jnp.isfinite(grad).all()


def test_gradients_are_those_of_the_weighted_sum(tiny):
    model, params, x = tiny
    batch = {"x": x[:6], "y": np.arange(6) % 10}
    weights = (1.0, 0.5, 0.25)
    grads, metrics = jax.jit(joint_grad_fn(model, weights))(params, batch, jax.random.key(0))

    def one_exit(params, n):
        log_y_hat = jax.nn.log_softmax(all_logits(model, params, batch["x"])[n])
        return -log_y_hat[jnp.arange(6), batch["y"]].mean()

    singly = [jax.grad(one_exit)(params, n) for n in range(3)]
    expected = jax.tree.map(lambda *g: sum(w * g_n for w, g_n in zip(weights, g)), *singly)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert metrics.keys() == {"loss", "accuracy_exit1", "accuracy_exit2", "accuracy_exit3"}
    # The head of an exit learns from its own loss only.
    assert np.abs(singly[0]["exit1"]["w"]).max() > 0
    assert np.abs(singly[1]["exit1"]["w"]).max() == 0


def test_the_model_trains_in_training_mode_with_the_key_on_uint8_images():
    seen = []

    def apply(params, x, *, train=False, key=None):
        seen.append((train, key is not None))
        return x.astype(jnp.float32).reshape(len(x), -1) @ params

    stage = Stage("s", lambda key, x: jnp.ones((4, 3)), apply)
    head = Stage("h", lambda key, x: jnp.eye(3), apply)
    model = staged((stage,), (Exit("s", head),))
    batch = {"x": np.ones((2, 2, 2, 1), np.uint8), "y": np.array([0, 1])}
    params = init(model, jax.random.key(0), batch["x"])
    seen.clear()
    grads, metrics = joint_grad_fn(model)(params, batch, jax.random.key(1))
    assert set(seen) == {(True, True)}
    assert grads["s"].shape == (4, 3)
    assert float(metrics["loss"]) == pytest.approx(np.log(3), rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -0.1), (1.0, float("nan"))])
def test_wrong_weights_are_named(weights):
    with pytest.raises(ValueError, match="weights must be 2 numbers >= 0"):
        joint_loss(jnp.zeros((2, 1, 3)), jnp.zeros(1, int), weights)
