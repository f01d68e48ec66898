"""The two convolutions agree to rounding; golden numbers; pooling against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import Conv, avg_pool, conv, max_pool
from eejax.models.conv import _images_at_once


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def assert_near(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_golden_same_with_strides_pads_at_the_end():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    for impl in ("im2col", "native"):
        y = conv(x, jnp.ones((3, 3, 1, 1)), strides=2, impl=impl)
        # Rows 0-2 and 2-3 by columns 0-2 and 2-3.
        assert y[0, :, :, 0].tolist() == [[45, 39], [66, 50]]


def test_golden_kernel_is_not_flipped_and_channels_keep_their_order():
    x = jnp.array([[1.0, 10.0], [2.0, 20.0]]).reshape(1, 1, 2, 2)
    kernel = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[100.0, 0.0], [0.0, 0.0]]]).reshape(1, 2, 2, 2)
    for impl in ("im2col", "native"):
        y = conv(x, kernel, padding="VALID", impl=impl)
        # First channel: 1 + 100 * 2; second: 10.
        assert y.ravel().tolist() == [201, 10]


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((3, 7, 5, 2), (3, 3, 2, 4), 1, "SAME"),
        ((1, 7, 5, 2), (3, 3, 2, 4), 2, "SAME"),
        ((2, 8, 6, 1), (3, 3, 1, 3), 2, "SAME"),
        ((2, 7, 8, 3), (3, 3, 3, 2), 1, "VALID"),
        ((2, 7, 8, 3), (3, 3, 3, 2), 2, "VALID"),
        ((2, 5, 4, 3), (1, 1, 3, 4), 1, "SAME"),
        ((1, 5, 4, 3), (1, 1, 3, 4), 2, "SAME"),
        ((2, 6, 7, 2), (2, 5, 2, 3), 3, "SAME"),
        ((2, 3, 3, 2), (3, 3, 2, 5), 1, "VALID"),
    ],
)
def test_im2col_and_native_agree_in_values_and_gradients(shape, kernel, strides, padding):
    @jax.jit
    def both(x, kernel):
        results = []
        for impl in ("im2col", "native"):
            fn = functools.partial(conv, strides=strides, padding=padding, impl=impl)
            y, vjp = jax.vjp(fn, x, kernel)
            results.append((y, *vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))))
        return results

    im2col, native = both(random(*shape), random(*kernel, seed=1))
    for a, b in zip(im2col, native):
        assert_near(a, b)


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((5, 50, 48, 10), (3, 3, 10, 2), 1, "SAME"),  # One image at a time.
        ((6, 48, 48, 10), (3, 3, 10, 2), 1, "VALID"),
        ((8, 64, 64, 30), (3, 3, 30, 2), 2, "SAME"),
        ((27, 50, 50, 2), (3, 3, 2, 3), 1, "SAME"),  # Three at a time.
    ],
)
def test_images_a_few_at_a_time_are_the_same(shape, kernel, strides, padding):
    test_im2col_and_native_agree_in_values_and_gradients(shape, kernel, strides, padding)


@pytest.mark.parametrize(
    ("batch", "nbytes", "images"),
    [
        (32, 2**17, 32),
        (33, 2**17, 3),
        (35, 2**17, 7),
        (37, 2**17, 1),
        (64, 2**17, 8),
        (5, 2**22, 1),
    ],
)
def test_how_many_images_at_a_time(batch, nbytes, images):
    """All up to 4 MB of patches; beyond, the largest divisor whose patches take at most 1 MB."""
    assert _images_at_once(batch, nbytes) == images


def test_patches_of_many_images_are_never_there_at_once():
    x, kernel = random(96, 32, 32, 8), random(3, 3, 8, 4, seed=1)
    nbytes = 9 * 4 * x.size  # Of all patches.

    def loss(kernel, x):
        return jnp.square(conv(jnp.cos(x), kernel, impl="im2col")).sum()

    used = jax.jit(jax.grad(loss, (0, 1))).lower(kernel, x).compile().memory_analysis()
    assert 0 < used.temp_size_in_bytes < nbytes / 2


def test_im2col_and_native_agree_under_vmap_and_scan():
    """Three clients with kernels of their own take two steps of SGD."""
    x, kernels = random(3, 2, 4, 5, 5, 2), random(3, 3, 3, 2, 2, seed=1)

    def train(kernel, x, impl):
        def step(kernel, x):
            loss = lambda k: jnp.square(conv(x, k, impl=impl)).mean()  # noqa: E731
            value, grad = jax.value_and_grad(loss)(kernel)
            return kernel - 0.1 * grad, value

        return jax.lax.scan(step, kernel, x)

    def clients(impl):
        return jax.jit(jax.vmap(functools.partial(train, impl=impl)))(kernels, x)

    (kernel, losses), (native_kernel, native_losses) = clients("im2col"), clients("native")
    assert_near(kernel, native_kernel)
    assert_near(losses, native_losses)
    assert (kernel != kernels).all()
    alone, _ = jax.jit(functools.partial(train, impl="im2col"))(kernels[1], x[1])
    assert_near(kernel[1], alone)


@pytest.mark.parametrize(("backend", "native"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_auto_picks_by_backend(monkeypatch, backend, native):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jaxpr = jax.make_jaxpr(lambda x, k: conv(x, k))(random(1, 4, 4, 1), random(3, 3, 1, 2))
    assert ("conv_general_dilated" in str(jaxpr)) == native


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"padding": "same"}, "padding must be 'SAME' or 'VALID', got 'same'"),
        ({"impl": "gemm"}, "impl must be 'auto', 'im2col' or 'native', got 'gemm'"),
        ({"strides": 0}, "strides must be >= 1, got 0"),
        ({"kernel": jnp.ones((3, 3, 3, 1))}, "reads 3 channels, x is"),
        ({"kernel": jnp.ones((5, 5, 2, 1)), "padding": "VALID"}, r"\(5, 5, 2, 1\) does not fit"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    with pytest.raises(ValueError, match=message):
        conv(**{"x": jnp.ones((1, 4, 4, 2)), "kernel": jnp.ones((3, 3, 2, 1))} | kwargs)


def test_module_adds_its_bias_to_a_strided_convolution():
    x, kernel = random(2, 5, 5, 2), random(2, 2, 2, 3, seed=1)
    params = {"kernel": kernel, "bias": jnp.array([1.0, 2.0, 3.0])}
    y = Conv(3, kernel_size=2, strides=2).apply({"params": params}, x)
    assert_near(y, conv(x, kernel, strides=2) + params["bias"][None, None, None])
    shapes = jax.eval_shape(Conv(3, use_bias=False).init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, shapes) == {"kernel": (3, 3, 2, 3)}


@pytest.mark.parametrize(
    ("shape", "window"), [((2, 6, 4, 3), 2), ((1, 7, 5, 2), 2), ((2, 7, 9, 1), 3)]
)
def test_pooling_equals_reduce_window_in_values_and_gradients(shape, window):
    def by_window(init, op, x):
        size = (1, window, window, 1)
        return jax.lax.reduce_window(x, init, op, size, size, "VALID")

    references = {
        max_pool: functools.partial(by_window, -jnp.inf, jax.lax.max),
        avg_pool: lambda x: by_window(0.0, jax.lax.add, x) / window**2,
    }
    x = random(*shape)
    for pool, reference in references.items():
        y, vjp = jax.vjp(functools.partial(pool, window=window), x)
        expected, expected_vjp = jax.vjp(reference, x)
        assert_near(y, expected)
        assert_near(vjp(random(*y.shape, seed=1))[0], expected_vjp(random(*y.shape, seed=1))[0])


def test_pooling_rejects_windows_that_do_not_fit():
    for pool in (max_pool, avg_pool):
        with pytest.raises(ValueError, match="window 4 does not fit into images of 3 x 5"):
            pool(jnp.ones((1, 3, 5, 1)), window=4)
        with pytest.raises(ValueError, match="window 0 does not fit"):
            pool(jnp.ones((1, 3, 5, 1)), window=0)
