"""PipeDream and 2BW equal a plain simulation in which every stage has its delay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain.pipeline import (
    asynchronous,
    equal,
    fused,
    gpipe,
    interleaved,
    one_f_one_b,
    pipedream,
    stack,
    unstack,
    weight_versions,
)
from eejax.tiers import make_mesh

H, S, M = 6, 4, 24


def stage_fn(p, x):
    return x + jnp.tanh(x @ p["w1"]) @ p["w2"]


def loss_fn(y, t):
    return jnp.mean((y - t) ** 2)


STAGES = equal(stage_fn, loss_fn)


def layers():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 3, jnp.float32)  # noqa: E731
    return [{"w1": draw(H, 2 * H), "w2": draw(2 * H, H)} for _ in range(S)]


def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(M, 8, H)).astype(np.float32)
    return x, np.roll(x, 1, -1)


@jax.jit
def serial(params, x, t):
    def loss(params):
        y = x
        for p in params:
            y = stage_fn(p, y)
        return loss_fn(y, t)

    return jax.value_and_grad(loss)(params)


def simulate(tx, delay, group=1):
    """Update u takes the gradient at the weights of ``delay(s)`` updates before, stage by stage."""
    history = [[p] for p in layers()]
    states, losses = [tx.init(p) for p in layers()], []
    x, t = data()
    update = jax.jit(tx.update)
    for u in range(M // group):
        used = [history[s][max(0, u - delay(s))] for s in range(S)]
        results = [serial(used, x[m], t[m]) for m in range(u * group, (u + 1) * group)]
        losses += [float(loss) for loss, _ in results]
        mean = jax.tree.map(lambda *g: sum(g) / group, *(grads for _, grads in results))
        for s in range(S):
            updates, states[s] = update(mean[s], states[s], history[s][-1])
            history[s].append(optax.apply_updates(history[s][-1], updates))
    return [versions[-1] for versions in history], losses


@pytest.mark.parametrize(
    ("schedule", "delay", "options", "copies"),
    [
        (pipedream(S, M), lambda s: S - 1 - s, {}, 1),
        (fused(S, M), lambda s: 2 * (S - 1 - s), {"remat": False}, 1),
        (pipedream(S, M), lambda s: 1, {"group": S, "double_buffered": True}, 2),
    ],
    ids=["pipedream", "fused_no_remat", "2bw_two_copies"],
)
def test_equals_a_simulation_with_a_delay_for_each_stage(schedule, delay, options, copies):
    tx = optax.adam(0.02)
    mesh = make_mesh((copies, S), ("dp", "stage"))
    start, run = asynchronous(STAGES, tx, schedule, mesh, grad_axes=("dp",), **options)
    state, metrics = jax.jit(run)(start(stack(layers(), schedule)), *data())
    params, losses = simulate(tx, delay, options.get("group", 1))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(unstack(state.params)), jax.tree.leaves(params)):
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)
    assert losses[-1] < 0.8 * losses[0]
    # The state continues: counters of the optimiser have advanced once an update.
    counts = jax.tree.leaves(state.opt_state)[0]
    np.testing.assert_array_equal(counts, np.full((1, S), M // options.get("group", 1)))


def test_synchronous_when_an_update_takes_all_microbatches():
    """The special case: one update at the end uses what all computed at the first weights."""
    schedule, tx = one_f_one_b(S, M), optax.sgd(0.1)
    start, run = asynchronous(STAGES, tx, schedule, make_mesh((S,), ("stage",)), group=M)
    state, _ = jax.jit(run)(start(stack(layers(), schedule)), *data())
    params, _ = simulate(tx, lambda s: 0, group=M)
    for a, b in zip(jax.tree.leaves(unstack(state.params)), jax.tree.leaves(params)):
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_versions_of_pipedream(stages):
    versions = weight_versions(pipedream(stages, 24))
    m, s = np.meshgrid(np.arange(24), np.arange(stages), indexing="ij")
    np.testing.assert_array_equal(versions.used, np.maximum(m - (stages - 1 - s), 0))
    assert versions.slots.tolist() == [stages - s for s in range(stages)]


def test_versions_of_other_schedules():
    assert weight_versions(fused(4, 24)).slots.tolist() == [7, 5, 3, 1]
    # GPipe computes all with the first weights, and so keeps them beside the newest.
    assert weight_versions(gpipe(4, 8)).slots.tolist() == [2, 2, 2, 2]
    for stages in (1, 2, 4):
        double = weight_versions(pipedream(stages, 24), group=4, double_buffered=True)
        assert double.slots.tolist() == [2] * stages
        expected = np.maximum(np.arange(24) // 4 - 1, 0)
        np.testing.assert_array_equal(double.used, np.tile(expected[:, None], stages))


def test_slots_hold_what_is_read():
    """Replays the slots with numbers of versions in them."""
    schedule = pipedream(4, 12)
    versions = weight_versions(schedule)
    read, reread, newest, new = versions.tables
    for s in range(4):
        ring, version = {0: 0}, 0
        for t in range(schedule.ticks):
            if (m := schedule.forward[t, s]) >= 0:
                assert ring[read[t, s]] == versions.used[m, s]
            if (m := schedule.backward[t, s]) >= 0:
                assert ring[reread[t, s]] == versions.used[m, s]
                assert ring[newest[t, s]] == version
                version += 1
                ring[new[t, s]] = version
        assert ring[versions.final[s]] == version == 12


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: weight_versions(interleaved(2, 2)), "'interleaved' must have 1 chunk, got 2"),
        (lambda: weight_versions(pipedream(4, 24), 5), "divide the 24 micro-batches, got 5"),
        (
            lambda: weight_versions(pipedream(4, 24), 2, double_buffered=True),
            "group must be at least the 4 stages for double buffering, got 2",
        ),
        (
            lambda: asynchronous(STAGES, None, pipedream(4, 8), make_mesh((2,), ("stage",))),
            "has 4 stages, but mesh axis 'stage' 2 devices",
        ),
    ],
)
def test_errors(run, message):
    with pytest.raises(ValueError, match=message):
        run()
