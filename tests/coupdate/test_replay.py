"""The reservoir is uniform, and replay mixes it into batches of one shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from eejax import trees
from eejax.coupdate import empty_memory, from_data, remember, replay

ROWS, CAPACITY = 30, 5  # Few shapes, as each compiles anew.


def numbered(start, stop):
    i = np.arange(start, stop, dtype=np.int32)
    return {"x": np.stack([i, -i], axis=1).astype(np.float32), "y": i}


def key(seed=0):
    return jax.random.key(seed)


def padded(data):
    """``(data [ROWS, ...], count)``; what pads it must never be seen."""
    count = len(data["y"])
    fill = {"x": np.full((ROWS - count, 2), np.nan, np.float32), "y": np.full(ROWS - count, -1)}
    return {
        name: np.concatenate([x, fill[name].astype(x.dtype)]) for name, x in data.items()
    }, count


def offer(memory, data, key):
    data, count = padded(data)
    return remember(memory, data, key, count=count)


def one_by_one(samples, seen, data, key):
    """Algorithm R as it is written: one sample after the other, with the same draws."""
    samples = {name: np.array(x) for name, x in samples.items()}
    drawn = jax.random.randint(key, (ROWS,), 0, seen + jnp.arange(ROWS) + 1)
    for i in range(len(data["y"])):
        row = seen + i if seen + i < CAPACITY else drawn[i]
        if row < CAPACITY:
            for name, x in data.items():
                samples[name][row] = x[i]
    return samples


def test_remember_equals_algorithm_r_one_by_one():
    memory, seen = empty_memory(numbered(0, 1), CAPACITY, key()), 0
    for seed, (start, stop) in enumerate([(0, 3), (3, 33), (33, 33), (33, 60)]):
        data = numbered(start, stop)
        expected = one_by_one(memory.samples, seen, data, key(seed))
        memory, seen = offer(memory, data, key(seed)), stop
        jax.tree.map(np.testing.assert_array_equal, memory.samples, expected)
        assert memory.seen == stop
    assert (memory.samples["y"] >= 33).any()
    assert len(set(memory.samples["y"].tolist())) == CAPACITY


def test_every_sample_is_kept_with_the_same_probability():
    """Chi-square over 2,000 reservoirs of 5 out of 30, offered in three parts."""

    def kept(key):
        keys = jax.random.split(key, 3)
        memory = empty_memory(numbered(0, 1), CAPACITY, key)
        for part, k in zip([(0, 4), (4, 17), (17, 30)], keys):
            memory = offer(memory, numbered(*part), k)
        return memory.samples["y"]

    kept = np.asarray(jax.jit(jax.vmap(kept))(jax.random.split(key(2), 2000)))
    counts = np.bincount(kept.ravel(), minlength=30)
    # Within one reservoir samples are distinct, which makes the statistic smaller by 25 / 29.
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum() / (25 / 29)
    assert 0.001 < stats.chi2(29).sf(statistic) < 0.999


def test_a_memory_of_data():
    memory = from_data(numbered(0, ROWS), CAPACITY, key(1))
    assert memory.seen == ROWS
    np.testing.assert_array_equal(memory.samples["x"][:, 0], memory.samples["y"])
    np.testing.assert_array_equal(memory.samples["x"][:, 1], -memory.samples["y"])
    assert len(set(memory.samples["y"].tolist())) == CAPACITY
    data, count = padded(numbered(0, 3))
    memory = from_data(data, CAPACITY, key(1), count=count)
    assert memory.seen == 3
    np.testing.assert_array_equal(memory.samples["y"], [0, 1, 2, 0, 0])


def test_a_batch_has_its_own_samples_and_k_of_the_memory():
    memory = offer(empty_memory(numbered(0, 1), CAPACITY, key()), numbered(0, 3), key(4))
    remedy = replay(memory, k=200)
    batch = jax.jit(remedy.batch)
    state, mixed = batch(remedy.init(None), numbered(100, 104), key(5))
    jax.tree.map(np.testing.assert_array_equal, state[:2], memory[:2])
    np.testing.assert_array_equal(mixed["y"][:4], np.arange(100, 104))
    # Only filled rows, and all of them equally.
    counts = np.bincount(mixed["y"][4:])
    assert counts.size == 3
    assert stats.chisquare(counts).pvalue > 0.001
    np.testing.assert_array_equal(mixed["x"][:, 0], mixed["y"])
    _, other = batch(state, numbered(100, 104), key(6))
    assert not np.array_equal(mixed["y"], other["y"])


def test_an_empty_memory_repeats_the_batch():
    remedy = replay(empty_memory(numbered(0, 1), CAPACITY, key()), k=60)
    _, mixed = jax.jit(remedy.batch)(remedy.init(None), numbered(100, 104), key(5))
    assert mixed["x"].shape == (64, 2)
    assert set(mixed["y"].tolist()) == {100, 101, 102, 103}
    np.testing.assert_array_equal(mixed["x"][:, 0], mixed["y"])


def test_after_a_task_its_data_are_remembered_with_a_fresh_key():
    remedy = replay(empty_memory(numbered(0, 1), CAPACITY, key()), k=1)
    states = [remedy.init(None)]
    for _ in range(2):
        states.append(remedy.after_task(states[-1], None, numbered(0, ROWS)))
    assert [int(state.seen) for state in states] == [0, ROWS, 2 * ROWS]
    assert len({tuple(jax.random.key_data(state.key).tolist()) for state in states}) == 3


def test_remember_is_pure_and_follows_its_key():
    memory = offer(empty_memory(numbered(0, 1), CAPACITY, key()), numbered(0, 9), key(7))
    before = trees.sha256(memory[:2])
    ends = [offer(memory, numbered(9, 30), key(seed)) for seed in (8, 8, 9)]
    digests = [trees.sha256(end[:2]) for end in ends]
    assert digests[0] == digests[1] != digests[2]
    assert trees.sha256(memory[:2]) == before


def test_images_stay_bytes():
    memory = from_data({"x": np.ones((ROWS, 4, 4, 1), np.uint8)}, CAPACITY, key())
    assert memory.samples["x"].dtype == jnp.uint8
    assert memory.samples["x"].shape == (CAPACITY, 4, 4, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: empty_memory(numbered(0, 1), 0, key()), "capacity must be at least 1, got 0"),
        (lambda m: replay(m, k=0), "k must be at least 1, got 0"),
        (lambda m: remember(m, {"y": np.arange(3)}, key()), "field 'x': .* got None"),
        (
            lambda m: replay(m, 1).batch(
                m, {**numbered(0, 2), "y": np.zeros(2, np.float32)}, key()
            ),
            r"field 'y': the memory holds .*int32'\), got \(\(\), 'float32'\)",
        ),
        (
            lambda m: replay(m, 1).batch(m, {**numbered(0, 2), "z": np.zeros(2)}, key()),
            r"field 'z': the memory holds .* None, got",
        ),
    ],
)
def test_errors_name_the_field(call, message):
    with pytest.raises(ValueError, match=message):
        call(empty_memory(numbered(0, 1), CAPACITY, key()))
