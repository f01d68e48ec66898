"""FAug: seeds, the generator's moments, and who generates what."""

import chex
import jax
import numpy as np
import optax
import pytest

from eejax.cotrain.federated import fedavg, flat, place, replicate, rows_of
from eejax.cotrain.skew import draw_seeds, faug, fit_generator, generate, price_faug
from eejax.data import load, pack, shards
from eejax.tiers import by_kind, three_tier

LABELS = np.repeat(np.arange(3), 40)


def blobs():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 5, 0], [5, 0, 0, 0], [0, 5, 0, 2]], float)
    return {"x": (centres[LABELS] + rng.normal(size=(120, 4))).astype(np.float32), "y": LABELS}


INDEX = pack([np.arange(20), np.arange(20, 50), np.arange(110, 120), []])
GENERATOR = fit_generator(blobs()["x"], LABELS, classes=3)


def test_every_client_uploads_a_few_of_each_of_its_classes():
    uploads = draw_seeds(INDEX, LABELS, seeds=4, seed=0)
    assert uploads.counts.tolist() == [4, 8, 4, 0]
    for own, sent, n in zip(INDEX.table, uploads.table, uploads.counts):
        assert set(sent[:n].tolist()) <= set(own.tolist())
        assert len(set(sent[:n].tolist())) == n


@pytest.mark.parametrize("shrinkage", [0.0, 1.0])
def test_the_generator_has_the_moments_of_the_seeds(shrinkage):
    x = blobs()["x"]
    generator = fit_generator(x, LABELS, 3, components=4, shrinkage=shrinkage)
    generator = generator._replace(low=np.float32(-99), high=np.float32(99))
    drawn = generate(generator, np.repeat(np.arange(3), 20000), np.random.default_rng(0))
    pooled = np.mean([np.cov(x[c == LABELS].T, bias=True) for c in range(3)], 0)
    for c in range(3):
        own = np.cov(x[c == LABELS].T, bias=True)
        made = drawn[c * 20000 : (c + 1) * 20000]
        np.testing.assert_allclose(made.mean(0), x[c == LABELS].mean(0), atol=0.05)
        expected = pooled if shrinkage else own
        np.testing.assert_allclose(np.cov(made.T), expected, atol=0.08)


def test_samples_stay_within_the_range_of_the_seeds():
    drawn = generate(GENERATOR, np.repeat(2, 5000), np.random.default_rng(0))
    x = blobs()["x"]
    assert drawn.min() == x.min()
    assert drawn.max() == x.max()


def test_clients_fill_up_what_they_lack():
    """Jeong et al.: until every client's data are IID by label."""
    data = blobs()
    grown, index = faug(data, INDEX, GENERATOR, seed=0)
    np.testing.assert_array_equal(grown["x"][:120], data["x"])
    n = 120
    for own, count, row, total in zip(*INDEX, *index):
        have = [int((LABELS[own[:count]] == c).sum()) for c in range(3)]
        lack = [max(have) - h for h in have]
        assert row[:count].tolist() == own[:count].tolist()
        assert row[count:total].tolist() == list(range(n, n + sum(lack)))
        got = grown["y"][row[:total]]
        assert np.bincount(got, minlength=3).tolist() == [max(have)] * 3
        n += sum(lack)
    assert n == len(grown["y"]) == len(grown["x"])


def test_level_0_is_fedavg_and_half_fills_up_to_half():
    data = blobs()
    same, index = faug(data, INDEX, GENERATOR, seed=0, level=0.0)
    chex.assert_trees_all_equal((same, index), (data, INDEX))
    _, index = faug(data, INDEX, GENERATOR, seed=0, level=0.5)
    assert index.counts.tolist() == [20 + 20, 30 + 10, 10 + 10, 0]


def test_classes_without_a_seed_are_not_generated():
    keep = LABELS != 1
    generator = fit_generator(blobs()["x"][keep], LABELS[keep], classes=3)
    grown, index = faug(blobs(), INDEX, generator, seed=0)
    assert (grown["y"][120:] != 1).all()
    assert index.counts.tolist() == [40, 20 + 10 + 20, 20, 0]
    chex.assert_tree_all_finite(grown)


def test_raw_seeds_go_up_and_the_generator_comes_down():
    data = blobs() | {"y": LABELS.astype(np.int32)}
    uploads = draw_seeds(INDEX, LABELS, seeds=4, seed=0)
    k, d = GENERATOR.basis.shape
    floats = d + k * d + 3 * k + 3 * k * k + 2
    assert by_kind(price_faug(uploads, GENERATOR, data)) == {
        "data": 16 * (16 + 4), "information": 4 * 4 * floats, "knowledge": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_generator(np.ones((1, 2)), [0], 1), "two seeds are needed"),
        (lambda: faug(blobs(), INDEX, GENERATOR, 0, level=2.0), r"level must be in \[0, 1\]"),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_it_helps_under_two_classes_a_client(fleet):
    """Digits, 10 clients, softmax regression, 5 rounds of 20 steps, 8 seeds a class and client."""
    train, test = load("digits"), load("digits", "test")
    flatten = [s.images.reshape(len(s.labels), -1).astype(np.float32) / 255 for s in (train, test)]
    data = {"x": flatten[0], "y": train.labels}
    index = pack(shards(train.labels, 10, seed=0))
    uploads = draw_seeds(index, train.labels, 8, seed=0)
    seeds = np.concatenate([row[:n] for row, n in zip(*uploads)])
    generator = fit_generator(data["x"][seeds], train.labels[seeds], classes=10)
    mesh = jax.make_mesh((1, 1), ("edge", "end"))
    engine = flat(fedavg(fleet.grad_fn, optax.sgd(0.5)), mesh, steps=20, batch=10)
    accuracy = []
    for case, own in ((data, index), faug(data, index, generator, seed=0)):
        rows = place(mesh, rows_of(three_tier(10, 1), own))
        params = {"kernel": np.zeros((64, 10), "f4"), "bias": np.zeros(10, "f4")}
        state = engine.init(params, rows)
        state, _ = engine.run(state, rows, replicate(mesh, case), jax.random.key(0), rounds=5)
        logits = flatten[1] @ np.asarray(state.server.params["kernel"])
        logits += np.asarray(state.server.params["bias"])
        accuracy.append((logits.argmax(1) == test.labels).mean())
    assert accuracy[1] > accuracy[0] + 0.03
