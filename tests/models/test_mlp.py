"""Staged MLP: golden forward pass, shapes, dropout, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import all_logits, init, staged_mlp


def test_golden():
    model = staged_mlp(classes=2, widths=(2, 1))
    dense = lambda kernel, bias: {"dense": {"kernel": jnp.array(kernel), "bias": jnp.array(bias)}}  # noqa: E731
    params = {
        "stage1": dense([[1.0, -1.0], [2.0, 0.0]], [0.5, 0.0]),
        "exit1": dense([[1.0, 0.0], [0.0, 1.0]], [0.0, -1.0]),
        "stage2": dense([[2.0], [1.0]], [-1.0]),
        "exit2": dense([[1.0, -1.0]], [0.0, 0.0]),
    }
    # [3, 1] -> relu [3 + 2 + 0.5, -3] = [5.5, 0] -> relu 11 - 1 = 10.
    logits = all_logits(model, params, jnp.array([[3.0, 1.0]]))
    assert logits.tolist() == [[[5.5, -1.0]], [[10.0, -10.0]]]


def test_inputs_are_flattened():
    params = jax.eval_shape(
        lambda key: init(staged_mlp(), key, jnp.zeros((3, 8, 8, 2), jnp.uint8)), jax.random.key(0)
    )
    assert params["stage1"]["dense"]["kernel"].shape == (128, 64)


def test_every_exit_learns_two_classes():
    model, rng = staged_mlp(classes=2, widths=(8, 8)), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 2)).astype(np.float32))
    labels = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)

    def loss(params):
        log_p = jax.nn.log_softmax(all_logits(model, params, x))
        return -jnp.take_along_axis(log_p, labels[None, :, None], 2).mean()

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params)), None

    train = jax.jit(lambda params: jax.lax.scan(step, params, length=400)[0])
    params = train(init(model, jax.random.key(0), x))
    accuracy = (all_logits(model, params, x).argmax(-1) == labels[None]).mean(1)
    assert (accuracy > 0.9).all()


@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_widths_are_checked(widths):
    with pytest.raises(ValueError, match="widths must be positive, got"):
        staged_mlp(widths=widths)
