"""The contracts: their fields in order, and defaults that do nothing."""

import inspect
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import core

FIELDS = {
    "Stage": ("name", "init", "apply"),
    "Exit": ("after", "head"),
    "StagedModel": ("stages", "exits"),
    "Codec": ("init", "encode", "decode", "nbytes"),
    "FederatedAlgorithm": (
        *("init", "client_init", "local_update", "server_update", "broadcast"),
        *("upload", "weighting", "every_round", "by_steps"),
    ),
    "ExitRule": ("init", "decide"),
    "Knowledge": ("logits", "features", "prototypes", "class_mask"),
    "Distiller": ("init", "apply"),
    "Continual": ("init", "loss_term", "transform", "after_step", "after_task", "batch"),
    "DriftDetector": ("init", "update"),
    "Compressor": ("init", "apply", "update", "export"),
    "Peft": ("init", "join"),
}


def contracts():
    return {
        name: value
        for name, value in vars(core).items()
        if inspect.isclass(value) and value.__module__ == core.__name__
    }


def test_every_contract_is_listed_here():
    assert contracts().keys() == FIELDS.keys()


@pytest.mark.parametrize("name", FIELDS)
def test_contracts_are_plain_tuples_with_documented_fields(name):
    contract = contracts()[name]
    assert contract.__bases__ == (tuple,)
    assert contract._fields == FIELDS[name]
    for field in contract._fields:
        assert re.search(rf"\b{field}\b", contract.__doc__)
    # No methods: functions over a contract live in the rooms.
    own = {name for name, value in vars(contract).items() if inspect.isfunction(value)}
    assert own <= {"__new__", "_replace", "_asdict", "__repr__", "__getnewargs__", "__replace__"}


def test_kinds_are_those_of_the_survey():
    assert core.KINDS == ("data", "information", "knowledge")
    assert typing.get_args(core.Kind) == core.KINDS


def test_only_what_may_be_left_out_has_a_default():
    defaults = {name: set(contract._field_defaults) for name, contract in contracts().items()}
    optional = {name: fields for name, fields in defaults.items() if fields}
    assert optional == {
        "FederatedAlgorithm": {"upload", "weighting", "every_round", "by_steps"},
        "Knowledge": {*FIELDS["Knowledge"]},
        "Continual": {*FIELDS["Continual"]},
    }


def test_continual_does_nothing_by_default():
    remedy, params = core.Continual(), {"w": jnp.arange(3.0)}
    state = remedy.init(params)
    assert state == ()
    assert remedy.loss_term(state, params, {"image": 1}, {"logits": 2}) == 0
    grads = {"w": jnp.ones(3)}
    assert remedy.transform(state, grads) is grads
    assert remedy.after_step(state, params, params, grads) is state
    assert remedy.after_task(state, params, []) is state
    batch = {"image": jnp.zeros(2)}
    assert remedy.batch(state, batch, jax.random.key(0)) == (state, batch)


def test_continual_without_remedy_runs_under_jit_and_scan():
    remedy = core.Continual()

    def loss(params, batch):
        return (params * batch).sum() + remedy.loss_term((), params, batch, None)

    def step(carry, batch):
        params, state, key = carry
        key, sub = jax.random.split(key)
        state, batch = remedy.batch(state, batch, sub)
        grads = remedy.transform(state, jax.grad(loss)(params, batch))
        new = params - grads
        return (new, remedy.after_step(state, params, new, grads), key), None

    carry = (jnp.zeros(2), remedy.init(jnp.zeros(2)), jax.random.key(0))
    (params, state, _), _ = jax.jit(lambda c, x: jax.lax.scan(step, c, x))(carry, jnp.ones((3, 2)))
    np.testing.assert_array_equal(params, [-3, -3])
    assert state == ()


def test_knowledge_is_a_tree_of_what_was_given():
    assert jax.tree.leaves(core.Knowledge()) == []
    knowledge = core.Knowledge(logits=jnp.zeros((2, 3)), features=(jnp.ones(4), jnp.ones(5)))
    assert [x.shape for x in jax.tree.leaves(knowledge)] == [(2, 3), (4,), (5,)]
    doubled = jax.jit(lambda k: jax.tree.map(lambda x: 2 * x, k))(knowledge)
    assert isinstance(doubled, core.Knowledge)
    assert doubled.prototypes is None


def test_a_cut_is_a_slice_of_the_stages():
    def stage(name, factor):
        def apply(params, x, *, train=False, key=None):
            del train, key
            return x * factor + params

        return core.Stage(name, lambda key, x: jnp.zeros(()), apply)

    stages = tuple(stage(name, factor) for name, factor in (("end", 2), ("edge", 3), ("cloud", 5)))
    model = core.StagedModel(stages, (core.Exit("cloud", stage("head", 7)),))
    params = {"end": 1.0, "edge": 1.0, "cloud": 1.0, "head": 0.0}

    def run(part, x):
        for piece in part:
            x = piece.apply(params[piece.name], x)
        return x

    for cut in range(4):
        assert run(model.stages[cut:], run(model.stages[:cut], 1.0)) == 51
    assert model.exits[-1].head.apply(0.0, 51) == 357
