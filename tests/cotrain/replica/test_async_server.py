"""Asynchronous server: special cases and the learning rate of late gradients, by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.replica import async_server, data_parallel, mean_grad, split
from eejax.tiers import make_mesh

KEY = jax.random.key(0)
GRAD_FN = mean_grad(lambda w, x, key: ((w - x) ** 2 / 2, {}))


def mesh():
    return make_mesh((8,), ("end",))


def batch(seed=0, sizes=(2, 1, 3, 2, 2, 2, 2, 2)):
    return split(np.random.default_rng(seed).normal(size=sum(sizes)).astype(np.float32), sizes)


def run(method, steps=5, w=0.0, batches=batch):
    state, metrics = method.init(jnp.array(w)), []
    for t in range(steps):
        state, m = method.step(state, batches(t), KEY)
        metrics.append(m)
    return jax.device_get((method.params(state), state.opt_state, metrics))


@pytest.mark.parametrize("aware", [False, True])
def test_without_staleness_it_is_synchronous(aware):
    tx = optax.adam(0.1)
    delays = np.zeros((1, 8), int)
    late = async_server(GRAD_FN, tx, mesh(), ("end",), delays=delays, staleness_aware=aware)
    params, opt_state, metrics = run(late)
    expected = run(data_parallel(GRAD_FN, tx, mesh(), ("end",)))
    chex.assert_trees_all_close((params, opt_state), expected[:2], rtol=1e-6)
    assert all(m["staleness"] == 0 for m in metrics)


def still(t):
    """Every sample is 0, so the gradient is the parameter itself."""
    del t
    return split(np.zeros(8, np.float32), [1] * 8)


def test_staleness_by_hand():
    """Gradient w at rate 1/2, two updates late: 8, 4, 0, -4, -6, -6, -4."""
    delays = np.full((1, 8), 2)
    method = async_server(GRAD_FN, optax.sgd(0.5), mesh(), ("end",), delays=delays)
    expected = [8.0]
    for t in range(6):
        expected.append(expected[-1] - expected[max(t - 2, 0)] / 2)
    assert expected == [8, 4, 0, -4, -6, -6, -4]
    assert [float(run(method, t, 8.0, still)[0]) for t in range(7)] == expected


def test_a_late_gradient_counts_less_when_the_server_is_aware():
    """Of 8 workers one comes in time and one 4 late: (8 + 8 / 4) / 2 = 5, times 1/2."""
    delays = np.array([[0, 4] + [-1] * 6])
    method = async_server(
        GRAD_FN, optax.sgd(0.5), mesh(), ("end",), delays=delays, staleness_aware=True
    )
    params, _, (metrics,) = run(method, 1, 8.0, still)
    assert float(params) == 8 - 5 / 2
    assert metrics["staleness"] == 2


def test_staleness_makes_a_rate_unstable_that_is_stable_in_time():
    """w <- w - a w(t - tau) is stable for a < 2 sin(pi / (2 (2 tau + 1))): 2 and then 0.445."""
    ends = []
    for tau in (0, 3):
        delays = np.full((1, 8), tau)
        method = async_server(GRAD_FN, optax.sgd(0.6), mesh(), ("end",), delays=delays)
        ends.append(abs(float(run(method, 60, 8.0, still)[0])))
    assert ends[0] < 1e-6
    assert ends[1] > 8


@pytest.mark.parametrize(
    ("delays", "message"),
    [
        (np.zeros(8, int), r"delays must be whole numbers >= -1, \[period, workers\]"),
        (np.zeros((1, 8)), "delays must be whole numbers"),
        (np.full((1, 8), -2), "delays must be whole numbers >= -1"),
        (np.array([[0] * 8, [-1] * 8]), "at least one gradient must arrive"),
    ],
)
def test_delays_are_checked(delays, message):
    with pytest.raises(ValueError, match=message):
        async_server(GRAD_FN, optax.sgd(1.0), mesh(), ("end",), delays=delays)


def test_delays_must_be_of_the_workers_of_the_batch():
    delays = np.zeros((1, 16), int)
    method = async_server(GRAD_FN, optax.sgd(1.0), mesh(), ("end",), delays=delays)
    with pytest.raises(ValueError, match="delays are of 16 workers"):
        method.step(method.init(jnp.array(0.0)), batch(), KEY)
