import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import fixed_point


def test_the_sum_of_codes_is_the_sum_of_values_within_half_a_step_each():
    n, limit, levels = 100, 2.0, 1000
    codec = fixed_point(limit, n, levels)
    x = np.random.default_rng(0).uniform(-2, 2, (n, 50)).astype(np.float32)
    codes = np.stack([codec.encode((), row, None)[1].codes for row in x])
    off = codes.sum(0) * limit / levels - x.sum(0)
    assert np.abs(off).max() <= n * limit / levels / 2
    assert np.abs(off).max() > 0


def test_out_of_range_and_not_a_number():
    codec = fixed_point(1.0, clients=1, levels=2**31 - 1)
    x = jnp.array([5.0, -5.0, jnp.inf, -jnp.inf, jnp.nan, 1.0])
    most = 2**31 - 1
    codes = codec.encode((), x, None)[1].codes.tolist()
    assert codes == [most, -most, most, -most, 0, most]


def test_dtypes_come_back():
    codec = fixed_point(1.0, clients=2, levels=4)
    _, payload = codec.encode((), {"h": jnp.array([0.5], jnp.bfloat16)}, None)
    assert codec.decode(payload)["h"].dtype == jnp.bfloat16
    assert codec.decode(payload)["h"].tolist() == [0.5]


def test_a_sum_that_may_overflow_is_refused():
    fixed_point(1.0, clients=511)
    fixed_point(1.0, clients=1000, levels=2_147_483)
    with pytest.raises(ValueError, match="levels is at most 4194303"):
        fixed_point(1.0, clients=512)  # 512 * 2**22 = 2**31.
    with pytest.raises(ValueError, match="limit must be above 0"):
        fixed_point(0.0, clients=2)
    with pytest.raises(ValueError, match="floating leaves, got int32"):
        fixed_point(1.0, clients=2).encode((), jnp.arange(3), None)
