"""The contract of every robust rule: trees, permutations, absent and broken clients, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import (
    bulyan,
    fltrust,
    krum,
    mean,
    median,
    multi_krum,
    norm_bound,
    trimmed_mean,
)

CLIENTS, F = 11, 2


def root(broadcast, key):
    del broadcast, key
    return {"w": jnp.full((2, 3), 0.5), "b": (jnp.ones(4),)}


RULES = {
    "mean": mean(),
    "krum": krum(CLIENTS, F),
    "multi_krum": multi_krum(CLIENTS, F),
    "trimmed_mean": trimmed_mean(CLIENTS, F),
    "median": median(CLIENTS, F),
    "bulyan": bulyan(CLIENTS, F),
    "fltrust": fltrust(root),
    "norm_bound": norm_bound(1.5),
    "norm_bound_median": norm_bound(),
}
EVERY = pytest.mark.parametrize("name", RULES)
ROBUST = pytest.mark.parametrize("name", [name for name in RULES if name != "mean"])
BOUNDED = [krum, multi_krum, trimmed_mean, median, bulyan]
RUN = {name: jax.jit(rule.aggregate) for name, rule in RULES.items()}


def make_uploads(seed=0, n=CLIENTS):
    rng = np.random.default_rng(seed)
    return {
        "w": (1 + 0.3 * rng.normal(size=(n, 2, 3))).astype(np.float32),
        "b": ((2 + 0.3 * rng.normal(size=(n, 4))).astype(np.float32),),
    }


def aggregate(name, uploads, weights):
    rule = RULES[name]
    state = rule.prepare(rule.init(jax.tree.map(lambda x: x[0], uploads)), None, None)
    return jax.tree.map(np.asarray, RUN[name](state, uploads, np.asarray(weights, np.float32))[1])


def assert_near(a, b, rtol=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-6), a, b)


@EVERY
def test_upload_is_shaped_as_one_client_s(name):
    uploads = make_uploads()
    upload = aggregate(name, uploads, np.ones(CLIENTS))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), upload)
    assert shapes == jax.tree.map(lambda x: (x.shape[1:], x.dtype), uploads)


@EVERY
def test_order_of_clients_changes_nothing(name):
    uploads, order = make_uploads(), np.random.default_rng(1).permutation(CLIENTS)
    weights = np.arange(CLIENTS)  # One is absent.
    assert_near(
        aggregate(name, jax.tree.map(lambda x: x[order], uploads), weights[order]),
        aggregate(name, uploads, weights),
    )


@EVERY
def test_equal_uploads_give_that_upload(name):
    uploads = jax.tree.map(lambda x: np.repeat(x[:1], CLIENTS, 0), make_uploads())
    one = jax.tree.map(lambda x: x[0], uploads)
    upload = aggregate(name, uploads, np.ones(CLIENTS))
    if name in ("norm_bound", "fltrust"):  # Cut to a length, or brought to the server's.
        length = 1.5 if name == "norm_bound" else np.sqrt(6 * 0.25 + 4)
        norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(one)))
        one = jax.tree.map(lambda x: x * np.float32(length / norm), one)
    assert_near(upload, one)


@EVERY
@pytest.mark.parametrize("junk", [0.0, 1e30, np.nan, np.inf])
def test_what_an_absent_client_holds_changes_nothing(name, junk):
    uploads, weights = make_uploads(), np.arange(CLIENTS)
    other = jax.tree.map(np.copy, uploads)
    other["w"][0], other["b"][0][0] = junk, junk
    assert_near(aggregate(name, other, weights), aggregate(name, uploads, weights), rtol=0)


@EVERY
def test_a_present_client_with_nan_counts_as_absent(name):
    uploads, weights = make_uploads(), np.ones(CLIENTS)
    uploads["w"][3, 1, 1] = np.nan
    upload = aggregate(name, uploads, weights)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(upload))


@ROBUST
def test_two_of_eleven_adversaries_change_little(name):
    honest = make_uploads()
    uploads = jax.tree.map(np.copy, honest)
    for x in jax.tree.leaves(uploads):
        x[4], x[7] = -100, -90
    rows = np.delete(np.arange(CLIENTS), [4, 7])
    good = jax.tree.map(lambda x: x[rows].mean(0), honest)
    upload = aggregate(name, uploads, np.ones(CLIENTS))
    a, b = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (upload, good))
    # Norms are bounded by some, so directions are compared.
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9
    bad = aggregate("mean", uploads, np.ones(CLIENTS))
    assert np.vdot(np.concatenate([x.ravel() for x in jax.tree.leaves(bad)]), b) < 0


@EVERY
def test_nobody_there_gives_zero(name):
    upload = aggregate(name, make_uploads(), np.zeros(CLIENTS))
    assert_near(upload, jax.tree.map(np.zeros_like, upload), rtol=0)


@pytest.mark.parametrize(("name", "least"), [("krum", 7), ("bulyan", 11), ("median", 5)])
def test_too_few_present_for_the_guarantee_change_nothing(name, least):
    for here in (least - 1, least):
        weights = np.arange(CLIENTS) < here
        upload = aggregate(name, make_uploads(), weights)
        assert any(x.any() for x in jax.tree.leaves(upload)) == (here >= least)


def test_a_client_found_out_is_one_adversary_less():
    """Seven clients of which two are found out are five with none left, enough for Krum."""
    uploads, weights = make_uploads(), np.arange(CLIENTS) < 7
    uploads["w"][:2] = np.nan
    assert aggregate("krum", uploads, weights)["w"].any()


@pytest.mark.parametrize("make", BOUNDED)
def test_breakdown_is_refused_when_made(make):
    times, more = {krum: (2, 3), multi_krum: (2, 3), bulyan: (4, 3)}.get(make, (2, 1))
    for f in (0, 1, 3):
        make(times * f + more, f)
        with pytest.raises(ValueError, match=rf"needs clients >= {times} f \+ {more} = "):
            make(times * f + more - 1, f)
    with pytest.raises(ValueError, match="f must be at least 0"):
        make(11, -1)


def test_other_numbers_of_clients_are_refused():
    with pytest.raises(ValueError, match="made for 11 clients"):
        RULES["krum"].aggregate((), make_uploads(n=10), np.ones(10))
