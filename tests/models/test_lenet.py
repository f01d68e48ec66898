"""LeNet: parameters and FLOPs by hand, and its convolution against convolving, then pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.models import all_logits, conv, init, lenet, max_pool, owned, run_stage
from eejax.models.lenet import conv_max_pool
from eejax.tiers import work_of

MNIST = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)


def abstract_params(model, x):
    return jax.eval_shape(lambda key: init(model, key, x), jax.random.key(0))


def test_parameters_of_the_default_by_hand():
    params = abstract_params(lenet(), MNIST)
    assert {name: trees.size(subtree) for name, subtree in params.items()} == {
        "stage1": 5 * 5 * 1 * 6 + 6,
        "stage2": 5 * 5 * 6 * 16 + 16,
        "stage3": 4 * 4 * 16 * 120 + 120,
        "stage4": 120 * 84 + 84,
        "exit": 84 * 10 + 10,
    }
    assert trees.size(params) == 44_426
    colour = abstract_params(lenet(), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8))
    assert trees.size(colour) == 62_006  # 5 x 5 x 16 = 400 flat features.


def test_the_table_of_the_docstring():
    model = lenet()
    params, x, rows = abstract_params(model, MNIST), MNIST, []
    for i in range(4):
        own = {name: params[name] for name in owned(model, i)}
        run = lambda params, x, i=i: run_stage(model, i, params, x)  # noqa: E731
        flops = work_of(run, own, x).flops
        x, _ = jax.eval_shape(run, own, x)
        rows.append((round(flops / 1e6, 2), trees.size(own), x.shape[1:], trees.nbytes(x)))
    assert rows == [
        (0.26, 156, (12, 12, 6), 3_456),
        (0.44, 2_416, (4, 4, 16), 1_024),
        (0.06, 30_840, (120,), 480),
        (0.02, 11_014, (84,), 336),
    ]


@pytest.mark.parametrize(
    ("image", "kernel"),
    [
        ((3, 28, 28, 1), (5, 5, 1, 6)),
        ((2, 12, 12, 6), (5, 5, 6, 16)),
        ((2, 13, 11, 2), (5, 5, 2, 3)),
        ((2, 9, 8, 3), (3, 5, 3, 4)),
        ((2, 5, 4, 2), (1, 1, 2, 3)),
    ],
)
def test_one_convolution_equals_convolving_and_then_pooling(image, kernel):
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=s).astype(np.float32)) for s in (image, kernel))

    @jax.jit
    def both(x, w):
        found = []
        for fn in (conv_max_pool, lambda x, w: max_pool(conv(x, w, padding="VALID"))):
            y, vjp = jax.vjp(fn, x, w)
            found.append((y, *vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))))
        return found

    for a, b in zip(*both(x, w), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_golden():
    """Ones everywhere in the convolutions, so that only places and sums count."""
    model = lenet(2, (1, 1), (1, 1))
    kernel = jnp.ones((5, 5, 1, 1))
    dense = lambda *rows: {"kernel": jnp.array(rows), "bias": jnp.zeros(len(rows[0]))}  # noqa: E731
    params = {
        "stage1": {"kernel": kernel, "bias": jnp.array([-1.0])},
        "stage2": {"kernel": kernel, "bias": jnp.array([-10.0])},
        "stage3": {"dense": dense([2.0])},
        "stage4": {"dense": dense([1.0])},
        "exit": {"dense": dense([1.0, -1.0])},
    }
    # A pixel of 3 at row 7, column 7 is seen from rows and columns 3 to 7, so by windows 1 to 3:
    # there 3 - 1 = 2, and elsewhere relu(-1) = 0. The best 5 x 5 of those sees all 9: 18 - 10 = 8.
    x = jnp.zeros((1, 16, 16, 1)).at[0, 7, 7, 0].set(3.0)
    assert all_logits(model, params, x).tolist() == [[[16.0, -16.0]]]


@pytest.mark.parametrize(
    ("kwargs", "field"), [({"channels": (6,)}, "channels"), ({"hidden": (120, 0)}, "hidden")]
)
def test_widths_are_checked(kwargs, field):
    with pytest.raises(ValueError, match=f"{field} must be two positive numbers, got"):
        lenet(**kwargs)


def test_images_too_small_are_an_error():
    with pytest.raises(ValueError, match="does not fit into x"):
        abstract_params(lenet(), jax.ShapeDtypeStruct((1, 15, 28, 1), jnp.float32))
