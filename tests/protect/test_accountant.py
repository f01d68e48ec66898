import sys

import jax.numpy as jnp
import numpy as np
import pytest

from eejax.cotrain.federated import samplers
from eejax.protect import PrivacySpent, calibrate, check_sampler, epsilon, sampling


def poisson(clients=1000, cohort=100.0, relation="add or remove one"):
    return sampling("poisson", relation, clients=clients, cohort=cohort)


def fixed(clients=1000, cohort=100):
    return sampling("fixed size without replacement", "replace one", clients=clients, cohort=cohort)


def spend(how, rounds, sigma):
    return PrivacySpent(jnp.int32(rounds), jnp.float32(sigma), jnp.float32(how.rate))


@pytest.mark.parametrize(
    ("how", "rounds", "sigma", "expected"),
    [
        (poisson(), 100, 1.0, 7.047),
        (poisson(60_000, 256), 14_040, 1.1, 2.380),
        (poisson(10, 10), 1, 1.0, 4.377),
        # Replacing one moves the sum twice as far: twice the noise gives the same.
        (poisson(10, 10, "replace one"), 1, 2.0, 4.377),
        (fixed(10, 10), 1, 2.0, 4.377),
        # By Renyi divergences at noise of 1 in units of what replacing one changes.
        (fixed(), 100, 2.0, 14.054),
    ],
)
def test_golden_epsilons(how, rounds, sigma, expected):
    assert epsilon(spend(how, rounds, sigma), how, 1e-5) == pytest.approx(expected, abs=6e-4)


def test_golden_noise():
    sigma = calibrate(poisson(1000, 10), rounds=1500, epsilon=2.0, delta=1e-6)
    assert sigma == pytest.approx(1.141, abs=6e-4)


def test_calibrated_noise_keeps_the_budget_and_hardly_less_does_not():
    how = fixed(50, 50)
    sigma = calibrate(how, rounds=3, epsilon=1.0, delta=1e-5)
    assert epsilon(spend(how, 3, sigma), how, 1e-5) <= 1 + 1e-6
    assert epsilon(spend(how, 3, sigma * 0.999), how, 1e-5) > 1


def test_no_rounds_spend_nothing_and_no_noise_spends_all():
    for how in (poisson(), fixed()):
        assert epsilon(spend(how, 0, 1.0), how, 1e-5) == 0
        assert epsilon(spend(how, 1, 0.0), how, 1e-5) == float("inf")


def test_the_rate_of_the_run_must_be_that_of_the_account():
    with pytest.raises(ValueError, match=r"took clients with rate 0\.1, not 0\.05"):
        epsilon(spend(poisson(), 1, 1.0), poisson(cohort=50), 1e-5)


def test_statements_that_have_no_account_are_refused():
    with pytest.raises(ValueError, match=r"'poison' is none of .*; did you mean 'poisson'\?"):
        sampling("poison", "replace one", clients=10, cohort=1)
    with pytest.raises(ValueError, match="relation 'replace' is none of"):
        sampling("poisson", "replace", clients=10, cohort=1)
    with pytest.raises(ValueError, match="relation must be 'replace one'"):
        sampling("fixed size without replacement", "add or remove one", clients=10, cohort=1)
    with pytest.raises(ValueError, match="must be whole"):
        sampling("fixed size without replacement", "replace one", clients=10, cohort=1.5)
    for cohort in (0, 11):
        with pytest.raises(ValueError, match="cohort must be in"):
            sampling("poisson", "replace one", clients=10, cohort=cohort)
    for delta in (0, 1):
        with pytest.raises(ValueError, match="delta must be in"):
            epsilon(spend(poisson(), 1, 1.0), poisson(), delta)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        calibrate(poisson(), 0, 1.0, 1e-5)


SAMPLERS = {
    "poisson": (samplers.poisson(0.1), "poisson"),
    "uniform": (samplers.uniform(20), "fixed"),
    "weighted": (samplers.weighted(20, np.r_[np.full(100, 3.0), np.ones(100)]), None),
    "available": (samplers.available(20, np.eye(2, dtype=bool).repeat(100, 1)[[0, 0, 0, 1]]), None),
    "other rate": (samplers.poisson(0.12), None),
    "other size": (samplers.uniform(21), None),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_the_sampler_that_draws_may_be_accounted_for(name):
    draw, true = SAMPLERS[name]
    for stated, how in (("poisson", poisson(200, 20)), ("fixed", fixed(200, 20))):
        if stated == true:
            check_sampler(how, draw)
        else:
            with pytest.raises(ValueError, match="accounted is"):
                check_sampler(how, draw)


def test_everybody_is_both():
    check_sampler(poisson(20, 20), samplers.poisson(1.0))
    check_sampler(fixed(20, 20), samplers.poisson(1.0))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ModuleNotFoundError, match=r"eejax\[privacy\]"):
        epsilon(spend(poisson(), 1, 1.0), poisson(), 1e-5)
