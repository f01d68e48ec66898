"""Distillation against hand computation, its limits, and the contract of `Distiller`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.core import Knowledge
from eejax.transfer import kd, with_labels

DISTILLERS = {
    "kd": kd(),
    "kd_cold": kd(T=1.0),
    "kd_with_labels": with_labels(kd(T=2.0), alpha=0.1),
}
EVERY = pytest.mark.parametrize("name", DISTILLERS)


def logits(seed, batch=6, classes=5):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 2, (batch, classes)), jnp.float32)


def labels(batch=6, classes=5):
    return jnp.arange(batch) % classes


def loss(distiller, z_s, z_t, y=None, mask=None):
    teacher = Knowledge(logits=z_t, class_mask=mask)
    student = Knowledge(logits=z_s)
    aux = distiller.init(jax.random.key(0), student, teacher)
    return distiller.apply(aux, student, teacher, y)


def student_gradient(distiller, z_s, z_t, y=None, mask=None):
    return jax.grad(lambda z: loss(distiller, z, z_t, y, mask).sum())(z_s)


@EVERY
def test_a_distiller_is_pure_and_gives_one_loss_a_sample(name):
    z_s, z_t = logits(0), logits(1)
    before = trees.sha256((z_s, z_t))
    first = loss(DISTILLERS[name], z_s, z_t, labels())
    assert first.shape == (6,)
    assert (first >= 0).all()
    np.testing.assert_array_equal(first, loss(DISTILLERS[name], z_s, z_t, labels()))
    assert trees.sha256((z_s, z_t)) == before
    jitted = jax.jit(lambda *args: loss(DISTILLERS[name], *args))
    np.testing.assert_allclose(jitted(z_s, z_t, labels()), first, rtol=1e-5, atol=1e-6)
    singly = jax.vmap(lambda *row: loss(DISTILLERS[name], *(x[None] for x in row))[0])
    np.testing.assert_allclose(singly(z_s, z_t, labels()), first, rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("mask", [None, (True, True, False, True, False)])
def test_no_gradient_reaches_the_teacher(name, mask):
    mask = None if mask is None else jnp.array(mask)
    teacher = jax.grad(lambda z: loss(DISTILLERS[name], logits(0), z, labels(), mask).sum())
    assert not teacher(logits(1)).any()
    assert student_gradient(DISTILLERS[name], logits(0), logits(1), labels(), mask).any()


def test_kd_by_hand():
    # At T = 2 the teacher says (3/4, 1/4), the student (1/2, 1/2).
    z_t, z_s = jnp.array([[2 * np.log(3.0), 0.0]], jnp.float32), jnp.zeros((1, 2))
    expected = 4 * (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5))
    np.testing.assert_allclose(loss(kd(T=2.0), z_s, z_t), [expected], rtol=1e-6)
    # The gradient by z_s is T (softmax(z_s / T) - softmax(z_t / T)).
    np.testing.assert_allclose(
        student_gradient(kd(T=2.0), z_s, z_t), [[2 * (0.5 - 0.75), 2 * (0.5 - 0.25)]], rtol=1e-6
    )


def test_labels_by_hand():
    z_t, z_s = jnp.array([[2 * np.log(3.0), 0.0]], jnp.float32), jnp.zeros((1, 2))
    soft, hard = loss(kd(T=2.0), z_s, z_t), np.log(2.0)
    for alpha in (0.0, 0.1, 1.0):
        mixed = loss(with_labels(kd(T=2.0), alpha), z_s, z_t, jnp.array([0]))
        np.testing.assert_allclose(mixed, alpha * hard + (1 - alpha) * soft, rtol=1e-6)


def test_self_distillation_gives_nothing():
    z = logits(3)
    np.testing.assert_allclose(loss(kd(), z, z), 0, atol=1e-6)
    np.testing.assert_allclose(student_gradient(kd(), z, z), 0, atol=1e-6)


def test_a_hot_teacher_is_logit_matching():
    z_s, z_t = logits(4), logits(5)
    z_s, z_t = (z - z.mean(-1, keepdims=True) for z in (z_s, z_t))
    limit = (z_s - z_t) / 5
    np.testing.assert_allclose(student_gradient(kd(T=300.0), z_s, z_t), limit, atol=0.02)


def test_the_gradient_keeps_its_order_when_the_temperature_changes():
    norms = [
        float(jnp.linalg.norm(student_gradient(kd(T), logits(6), logits(7)))) for T in (4, 8, 16)
    ]
    assert max(norms) / min(norms) < 1.5
    # Without T^2 the outer two would differ sixteen-fold.


def test_masked_classes_count_for_nothing():
    mask = jnp.array([True, False, True, True, False])
    known = np.flatnonzero(mask)
    z_s, z_t = logits(8), logits(9)
    masked = loss(kd(), z_s, z_t, mask=mask)
    np.testing.assert_allclose(masked, loss(kd(), z_s[:, known], z_t[:, known]), rtol=1e-5)
    gradient = student_gradient(kd(), z_s, z_t, mask=mask)
    assert jnp.isfinite(gradient).all()
    assert not gradient[:, ~mask].any()
    loud = z_s.at[:, 1].set(1e4)
    np.testing.assert_array_equal(loss(kd(), loud, z_t, mask=mask), masked)
    # A teacher that knows one class, or none, has nothing to say.
    for few in (jnp.arange(5) == 2, jnp.zeros(5, bool)):
        np.testing.assert_array_equal(loss(kd(), z_s, z_t, mask=few), 0)
        assert not student_gradient(kd(), z_s, z_t, mask=few).any()


def test_a_sure_teacher_makes_no_nan():
    z_t = jnp.array([[1e4, 0.0, -1e4]])
    assert jnp.isfinite(loss(kd(T=1.0), jnp.zeros((1, 3)), z_t)).all()
    assert jnp.isfinite(student_gradient(kd(T=1.0), jnp.zeros((1, 3)), z_t)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kd(T=0), "T must be > 0, got 0"),
        (lambda: kd(T=float("nan")), "T must be > 0, got nan"),
        (lambda: with_labels(kd(), 1.5), r"alpha must be in \[0, 1\], got 1.5"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
