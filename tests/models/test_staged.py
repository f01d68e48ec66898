"""Staged models: checks at the border, and the order in which things run, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.core import Exit, Stage, StagedModel
from eejax.models import all_logits, exit_after, init, owned, run, run_stage, staged


def times(name):
    """A stage ``w * x``, plus the first bits of its key when trained with one."""

    def apply(params, x, *, train=False, key=None):
        noise = jax.random.uniform(key, ()) if train and key is not None else 0.0
        return params["w"] * x + noise

    return Stage(name, lambda key, x: {"w": jax.random.uniform(key, ()) + x.shape[-1]}, apply)


A, B, C = (times(name) for name in "abc")
P, Q = times("p"), times("q")
MODEL = staged((A, B, C), (Exit("a", P), Exit("c", Q)))
PARAMS = {name: {"w": jnp.float32(w)} for name, w in zip("abcpq", (2, 3, 5, 7, 11))}
X = jnp.array([[1.0, 10.0]])


@pytest.mark.parametrize(
    ("stages", "exits", "message"),
    [
        ((), (), "the last stage must have an exit"),
        ((A, B), (), "the last stage must have an exit"),
        ((A, B), (Exit("a", P),), "the last stage must have an exit"),
        ((A, A), (Exit("a", P),), "name 'a' is used by two"),
        ((A, B), (Exit("b", A),), "name 'a' is used by two"),
        ((A, B), (Exit("a", P), Exit("b", P)), "name 'p' is used by two"),
        ((A, B), (Exit("z", P), Exit("b", Q)), "exit after 'z': the stages are a, b"),
        ((A, B), (Exit("b", P), Exit("a", Q)), r"exits after \['b', 'a'\] must follow"),
        ((A, B), (Exit("b", P), Exit("b", Q)), r"exits after \['b', 'b'\] must follow"),
    ],
)
def test_parts_that_do_not_fit(stages, exits, message):
    with pytest.raises(ValueError, match=message):
        staged(stages, exits)


def test_lists_are_taken_and_become_tuples():
    assert staged([A, B, C], [Exit("a", P), Exit("c", Q)]) == MODEL


def test_golden_answers_of_all_exits():
    # 2 * 7 after stage a, and 2 * 3 * 5 * 11 after stage c.
    assert all_logits(MODEL, PARAMS, X).tolist() == [[[14, 140]], [[330, 3300]]]
    features, logits = run(MODEL, PARAMS, X)
    assert features.tolist() == [[30, 300]]
    np.testing.assert_array_equal(logits, all_logits(MODEL, PARAMS, X))
    features, logits = run_stage(MODEL, 0, PARAMS, X)
    assert (features.tolist(), logits.tolist()) == ([[2, 20]], [[14, 140]])
    features, logits = run_stage(MODEL, 1, PARAMS, X)
    assert features.tolist() == [[3, 30]]
    assert logits is None


def test_a_slice_of_the_stages_is_a_model():
    tail = StagedModel(MODEL.stages[1:], MODEL.exits[1:])
    features, _ = run_stage(MODEL, 0, PARAMS, X)
    np.testing.assert_array_equal(all_logits(tail, PARAMS, features)[0, 0], [330, 3300])


def test_exits_and_owners():
    assert [exit_after(MODEL, i) for i in range(3)] == [Exit("a", P), None, Exit("c", Q)]
    assert [owned(MODEL, i) for i in range(3)] == [("a", "p"), ("b",), ("c", "q")]


def test_init_gives_every_part_a_key_of_its_own():
    params = init(MODEL, jax.random.key(0), jax.ShapeDtypeStruct((4, 2), jnp.float32))
    assert list(params) == ["a", "p", "b", "c", "q"]
    values = [float(part["w"]) for part in params.values()]
    assert len(set(values)) == 5
    assert all(2 <= value < 3 for value in values)
    again = init(MODEL, jax.random.key(0), jnp.ones((4, 2)))
    assert jax.tree.map(float, again) == jax.tree.map(float, params)


def test_every_part_draws_from_a_key_of_its_own_when_trained():
    zeros, key = jnp.zeros((1, 1)), jax.random.key(3)
    params = jax.tree.map(jnp.zeros_like, PARAMS)
    draws = []
    for i in range(3):
        features, logits = run_stage(MODEL, i, params, zeros, train=True, key=key)
        draws += [float(features[0, 0])] + ([] if logits is None else [float(logits[0, 0])])
    assert len(set(draws)) == 5
    trained = all_logits(MODEL, params, zeros, train=True, key=key)
    assert trained.ravel().tolist() == [draws[1], draws[4]]
    assert not all_logits(MODEL, params, zeros, key=key).any()
