"""The contract of `ExitRule`, for every rule: a new one joins by adding a row to RULES."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.coinfer import make_compacted, make_full, make_masked, normalised_entropy
from eejax.core import ExitRule


class Row(NamedTuple):
    make: Callable[..., ExitRule]  # thresholds, one for each exit but the last -> rule
    never: float  # a threshold that never fires
    always: float


RULES = {"normalised_entropy": Row(normalised_entropy, never=-1.0, always=1.0)}
EVERY = pytest.mark.parametrize("name", RULES)


def draw(seed=0, batch=40, classes=10):
    rng = np.random.default_rng(seed)
    sharpness = rng.uniform(0, 8, (batch, 1))
    logits = jnp.asarray((sharpness * rng.normal(size=(batch, classes))).astype(np.float32))
    return logits, jnp.asarray(rng.normal(size=(batch, 4)).astype(np.float32))


@EVERY
def test_decide_is_pure_and_gives_a_bool_and_a_score_per_sample(name):
    rule = RULES[name].make([0.3, 0.6])
    logits, features = draw()
    state = rule.init()
    before = trees.sha256((state, logits, features))
    for exit in range(3):
        leave, score = rule.decide(state, logits, features, exit)
        assert (leave.shape, leave.dtype) == ((40,), bool)
        assert (score.shape, score.dtype) == ((40,), jnp.float32)
        again = rule.decide(state, logits, features, exit)
        np.testing.assert_array_equal(leave, again[0])
        np.testing.assert_array_equal(score, again[1])
    assert trees.sha256((state, logits, features)) == before
    assert trees.sha256(rule.init()) == trees.sha256(state)


@EVERY
def test_jit_compiles_once_for_new_values_and_new_thresholds(name):
    make, traces = RULES[name].make, []

    @jax.jit
    def decide(state, logits, features):
        traces.append(name)
        return make([0.3, 0.6]).decide(state, logits, features, 0)

    for seed, threshold in enumerate([0.3, 0.5]):
        rule = make([threshold, 0.6])
        leave, score = decide(rule.init(), *draw(seed))
        plain = rule.decide(rule.init(), *draw(seed), 0)
        np.testing.assert_array_equal(leave, plain[0])
        np.testing.assert_allclose(score, plain[1], atol=1e-6)
    assert len(traces) == 1


@EVERY
def test_more_leave_at_a_higher_threshold_and_a_leaver_is_surer_than_a_stayer(name):
    logits, features = draw()
    earlier = np.zeros(40, bool)
    for threshold in np.linspace(RULES[name].never, RULES[name].always, 9):
        rule = RULES[name].make([threshold])
        leave, score = map(np.asarray, rule.decide(rule.init(), logits, features, 0))
        assert leave[earlier].all()
        assert score[leave].max(initial=-np.inf) <= score[~leave].min(initial=np.inf)
        earlier = leave
    assert earlier.all()


@EVERY
def test_at_the_last_exit_everyone_leaves(name):
    rule = RULES[name].make([RULES[name].never] * 2)
    leave, _ = rule.decide(rule.init(), *draw(), 2)
    assert leave.all()


@EVERY
@pytest.mark.parametrize("make", [make_compacted, make_masked])
def test_thresholds_that_never_fire_equal_the_full_model(name, make, tiny):
    model, params, x = tiny
    rule = RULES[name].make([RULES[name].never] * 2)
    outcome = make(model, rule, batch=8)(params, x)
    logits, scores = make_full(model, rule, batch=8)(params, x)
    np.testing.assert_array_equal(outcome.logits, logits[-1])
    np.testing.assert_array_equal(outcome.scores, scores)
    assert (outcome.exit_index == 2).all()
    assert outcome.reached.tolist() == [50] * 4


@EVERY
def test_thresholds_that_always_fire_equal_the_first_exit(name, tiny):
    model, params, x = tiny
    rule = RULES[name].make([RULES[name].always] * 2)
    outcome = make_compacted(model, rule, batch=8)(params, x)
    logits, _ = make_full(model, rule, batch=8)(params, x)
    np.testing.assert_array_equal(outcome.logits, logits[0])
    assert outcome.reached.tolist() == [50, 0, 0, 0]
    assert outcome.executed.tolist() == [56, 0, 0, 0]
    assert np.isnan(outcome.scores[1:]).all()
