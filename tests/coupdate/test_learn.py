"""The training loop against a plain Python loop, and its hooks one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from eejax import trees
from eejax.core import Continual
from eejax.coupdate import empty_memory, from_data, learn, replay
from eejax.data import client_batches
from eejax.tiers import make_mesh

N, BATCH, CLASSES = 24, 5, 3


def make_data(seed=0, n=N):
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=n)
    x = rng.normal(size=(n, 4)) + 2 * np.eye(CLASSES, 4)[y]
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    w = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((4, 8), (8, CLASSES))]
    return {"body": {"w": w[0]}, "head": {"w": w[1], "b": np.zeros(CLASSES, np.float32)}}


def loss_fn(params, batch, key):
    del key
    h = jax.nn.relu(batch["x"] @ params["body"]["w"])
    logits = h @ params["head"]["w"] + params["head"]["b"][None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()
    accuracy = (logits.argmax(-1) == batch["y"]).mean()
    return loss, {"accuracy": accuracy, "logits": logits}


# Shared, as each learner compiles its own programs.
OPTIMISERS = {"sgd": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(0.01)}
LEARNERS = {name: learn(loss_fn, tx) for name, tx in OPTIMISERS.items()}
LOSS_AND_GRADIENT = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def key(seed=7):
    return jax.random.key(seed)


def assert_near(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def python_loop(params, tx, data, steps, count):
    @jax.jit
    def step(params, opt_state, row):
        batch = {name: jnp.asarray(x)[row] for name, x in data.items()}
        (loss, outputs), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, None)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, (outputs["accuracy"], loss)

    shuffle, _ = jax.random.split(key())
    batches = jax.jit(client_batches, static_argnums=(4, 5))
    opt_state, history = tx.init(params), []
    for row in batches(shuffle, jnp.arange(N, dtype=jnp.int32), count, 0, steps, BATCH):
        params, opt_state, metrics = step(params, opt_state, row)
        history.append(metrics)
    accuracy, loss = np.mean(history, axis=0)
    return params, opt_state, {"accuracy": accuracy, "loss": loss}


@pytest.mark.parametrize("count", [N, 7])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_run_equals_a_plain_loop(name, count):
    learner, tx = LEARNERS[name], OPTIMISERS[name]
    state = learner.init(make_params())
    state, metrics = learner.run(state, make_data(), key(), steps=12, batch=BATCH, count=count)
    params, opt_state, expected = python_loop(make_params(), tx, make_data(), 12, count)
    assert_near(state.params, params)
    assert_near(state.opt_state, opt_state)
    assert_near(metrics, expected)
    assert state.step == 12
    assert metrics["loss"] < LOSS_AND_GRADIENT(make_params(), make_data(), None)[0][0]


def test_a_remedy_that_does_nothing_is_plain_training():
    remedied = learn(loss_fn, OPTIMISERS["sgd"], Continual())
    ends = [
        learner.run(learner.init(make_params()), make_data(), key(), steps=12, batch=BATCH)
        for learner in (LEARNERS["sgd"], remedied)
    ]
    assert trees.sha256(ends[0]) == trees.sha256(ends[1])


def test_padding_is_never_read():
    learner, data = LEARNERS["sgd"], make_data()
    spoilt = {name: x.copy() for name, x in data.items()}
    spoilt["x"][10:], spoilt["y"][10:] = np.nan, -1
    ends = [
        learner.run(learner.init(make_params()), d, key(), steps=12, batch=BATCH, count=10)
        for d in (data, spoilt)
    ]
    assert trees.sha256(ends[0]) == trees.sha256(ends[1])


def test_it_resumes_where_it_stopped():
    learner = LEARNERS["adam"]
    whole, _ = learner.run(learner.init(make_params()), make_data(), key(), steps=12, batch=BATCH)
    state = learner.init(make_params())
    for _ in range(3):
        state, _ = learner.run(state, make_data(), key(), steps=4, batch=BATCH)
    assert_near(state, whole)


def test_every_sample_is_visited_in_an_epoch():
    seen = []

    def spy(params, batch, key):
        jax.debug.callback(lambda y: seen.append(np.asarray(y)), batch["y"], ordered=True)
        return params["w"] * batch["y"].sum(), {}

    learner = learn(spy, optax.sgd(0.0))
    data = {"y": jnp.arange(20.0)}
    learner.run(learner.init({"w": jnp.zeros(())}), data, key(), steps=8, batch=5)
    jax.effects_barrier()
    for epoch in (seen[:4], seen[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(20))
    assert not np.array_equal(seen[:4], seen[4:])


def test_one_program_serves_all_runs_of_the_same_shape():
    traces = []

    def traced(params, batch, key):
        traces.append(1)
        return loss_fn(params, batch, key)

    learner = learn(traced, optax.sgd(0.1))
    state = learner.init(make_params())
    for seed, count in enumerate((None, 7, jnp.asarray(3), 0)):
        data = make_data(seed)
        state, _ = learner.run(state, data, key(seed), steps=2, batch=BATCH, count=count)
    assert len(traces) == 1


def test_many_nodes_equal_single_ones():
    """Four nodes on two devices, with different amounts of data; one has none."""
    remedy = replay(empty_memory(make_data(), 6, key(1)), k=2)
    learner = learn(loss_fn, optax.adam(0.01), remedy)
    counts = [N, 9, 0, 2]
    nodes = [make_data(seed) for seed in range(4)]
    keys = jax.random.split(key(), 4)
    states = [
        learner.init(make_params(seed))._replace(
            continual=from_data(make_data(9 + seed), 6, key(seed))
        )
        for seed in range(4)
    ]

    def stack(*trees_):
        return jax.tree.map(lambda *xs: jnp.stack(xs), *trees_)

    run = functools.partial(learner.run, steps=4, batch=BATCH)
    sharded = jax.shard_map(
        jax.vmap(lambda s, d, k, c: run(s, d, k, count=c)),
        mesh=make_mesh((2,), ("end",)),
        in_specs=PartitionSpec("end"),
        out_specs=PartitionSpec("end"),
    )
    many, metrics = jax.device_get(
        jax.jit(sharded)(stack(*states), stack(*nodes), keys, jnp.array(counts))
    )
    for i in range(4):
        idle = trees.sha256(states[i][:2])
        single, expected = run(states[i], nodes[i], keys[i], count=counts[i])
        assert_near(jax.tree.map(lambda x, i=i: x[i], (many[:2], metrics)), (single[:2], expected))
        if counts[i] == 0:
            assert trees.sha256(single[:2]) == idle
            assert single.step == 0
            assert all(np.isnan(x) for x in expected.values())
        else:
            assert all(np.isfinite(x) for x in expected.values())


def test_frozen_parameters_stay_equal_to_the_bit_and_cost_nothing():
    # Weight decay would move them even without a gradient.
    learner = learn(loss_fn, optax.adamw(0.05, weight_decay=0.1), trainable=["head"])
    before = make_params()
    state = learner.init(before)
    assert trees.size(state.opt_state) == 2 * trees.size(before["head"]) + 1
    state, _ = learner.run(state, make_data(), key(), steps=5, batch=BATCH)
    assert state.params.keys() == before.keys()
    assert trees.sha256(state.params["body"]) == trees.sha256(before["body"])
    assert not np.array_equal(state.params["head"]["w"], before["head"]["w"])

    def head_loss(head, batch, key):
        return loss_fn({**before, **head}, batch, key)

    alone = learn(head_loss, optax.adamw(0.05, weight_decay=0.1))
    end, _ = alone.run(
        alone.init({"head": before["head"]}), make_data(), key(), steps=5, batch=BATCH
    )
    assert_near(end.params["head"], state.params["head"])


def test_hooks_run_in_the_order_of_the_contract_on_the_trainable_part():
    calls = []

    def note(name, *dicts):
        calls.append((name, *map(sorted, dicts)))

    def init(params):
        note("init", params)
        return {"moved": jnp.zeros(()), "ref": params}

    def batch(state, batch, key):
        note("batch", batch)
        return state, {**batch, "x": batch["x"] + 1}

    def loss_term(state, params, batch, outputs):
        note("loss_term", params, outputs)
        return 0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    def transform(state, grads):
        note("transform", grads)
        return jax.tree.map(lambda g: 2 * g, grads)

    def path(task_grads, old, new):
        leaves = zip(*map(jax.tree.leaves, (task_grads, old, new)))
        return sum(jnp.vdot(g, b - a) for g, a, b in leaves)

    def after_step(state, old, new, task_grads):
        note("after_step", old, new, task_grads)
        return {**state, "moved": state["moved"] + path(task_grads, old, new)}

    def after_task(state, params, data):
        note("after_task", params, data)
        return {**state, "ref": params}

    remedy = Continual(init, loss_term, transform, after_step, after_task, batch)
    learner = learn(loss_fn, optax.sgd(0.1), remedy, trainable={"head"})
    state = learner.init(make_params())
    data = make_data(n=BATCH)
    state, metrics = learner.run(state, data, key(), steps=1, batch=BATCH)
    assert calls == [
        ("init", ["head"]),
        ("batch", ["x", "y"]),
        ("loss_term", ["head"], ["accuracy", "logits"]),
        ("transform", ["head"]),
        ("after_step", ["head"], ["head"], ["head"]),
    ]
    # One step by hand; the batch is a permutation of all samples.
    params = make_params()
    shifted = {**data, "x": data["x"] + 1}
    (loss, _), grads = jax.device_get(LOSS_AND_GRADIENT(params, shifted, None))
    penalty = 0.5 * sum(np.sum(x**2) for x in jax.tree.leaves(params["head"]))
    expected = jax.tree.map(lambda p, g: p - 0.1 * 2 * (g + p), params["head"], grads["head"])
    assert_near(state.params["head"], expected)
    np.testing.assert_allclose(metrics["loss"], loss + penalty, rtol=1e-5)
    # `after_step` gets the gradient of the task alone.
    moved = path(grads["head"], params["head"], expected)
    np.testing.assert_allclose(state.continual["moved"], moved, rtol=1e-4)
    state = learner.after_task(state, data)
    assert calls[-1] == ("after_task", ["head"], ["x", "y"])
    assert_near(state.continual["ref"], {"head": expected})
    # The reference is now the parameters themselves: donating both must not clash.
    learner.run(state, data, key(), steps=1, batch=BATCH)


def test_the_loss_term_may_read_the_outputs():
    """As learning without forgetting does: the gradient flows through them."""
    remedy = Continual(loss_term=lambda state, params, batch, outputs: outputs["logits"].sum())
    learner = learn(loss_fn, optax.sgd(1.0), remedy)
    data = make_data(n=BATCH)
    state, _ = learner.run(learner.init(make_params()), data, key(), steps=1, batch=BATCH)

    @jax.jit
    @jax.grad
    def gradient(params):
        loss, outputs = loss_fn(params, data, None)
        return loss + outputs["logits"].sum()

    params = make_params()
    expected = jax.tree.map(np.subtract, params, jax.device_get(gradient(params)))
    assert_near(state.params, expected, rtol=1e-4)


def test_replay_keeps_a_task_that_plain_training_forgets():
    """Two tasks with opposite inputs; the memory holds some of the first."""
    first = make_data(0, 60)
    second = {**make_data(1, 60)}
    second = {"x": -second["x"], "y": (second["y"] + 1) % CLASSES}
    tx = optax.adam(0.02)

    def accuracy_on_the_first(remedy):
        learner = learn(loss_fn, tx, remedy)
        state = learner.init(make_params())
        for data in (first, second):
            state, _ = learner.run(state, data, key(), steps=150, batch=12)
            state = learner.after_task(state, data)
        return float(LOSS_AND_GRADIENT(state.params, first, None)[0][1]["accuracy"])

    forgetful = accuracy_on_the_first(None)
    replayed = accuracy_on_the_first(replay(empty_memory(first, 20, key(3)), k=12))
    assert replayed > forgetful + 0.15


def test_callers_keep_their_arrays():
    params, memory = make_params(), from_data(make_data(), 4, key())
    learner = learn(loss_fn, optax.sgd(0.1), replay(memory, k=2))
    for _ in range(2):
        learner.run(learner.init(params), make_data(), key(), steps=1, batch=BATCH)
    assert trees.sha256(params) == trees.sha256(make_params())
    assert not memory.samples["x"].is_deleted()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"data": {"x": jnp.zeros((3, 4)), "y": jnp.zeros(2)}}, r"data: .* length, got \[2, 3\]"),
    ],
)
def test_errors_name_the_argument(change, message):
    learner = learn(loss_fn, optax.sgd(0.1))
    arguments = {"data": make_data(), "steps": 1, "batch": 2, **change}
    with pytest.raises(ValueError, match=message):
        learner.run(learner.init(make_params()), arguments.pop("data"), key(), **arguments)


def test_a_misspelt_trainable_name_is_an_error():
    with pytest.raises(ValueError, match=r"trainable 'haed' is none of body, head; .* 'head'"):
        learn(loss_fn, optax.sgd(0.1), trainable=["haed"]).init(make_params())
