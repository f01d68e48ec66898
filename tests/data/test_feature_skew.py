import numpy as np
import pytest

from eejax.data import (
    FeatureSkew,
    feature_skew_from_name,
    iid,
    noise_skew,
    rotation_skew,
    skew_features,
    writer_skew,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 1)).astype(np.uint8)
NAMES = ("rotation:30", "noise:25", "writer:1")


def hand(slant=0.0, thickness=0.0, brightness=0.0):
    """The writer with these numbers."""
    skew = writer_skew(1, 0)
    for name, value in zip(("slant", "thickness", "brightness"), (slant, thickness, brightness)):
        skew.parameters[name][0] = value
    return lambda image: skew.apply(np.array(image, np.uint8)[None, ..., None], 0)[0, ..., 0]


@pytest.mark.parametrize("name", NAMES)
def test_every_client_sees_its_own_samples_its_own_way(name):
    skew = feature_skew_from_name(name)(3, 5)
    rows = iid(np.zeros(30), 3, 0)
    before = IMAGES.copy()
    seen = skew_features(IMAGES, rows, skew)
    assert (seen.dtype, seen.shape) == (np.uint8, IMAGES.shape)
    np.testing.assert_array_equal(IMAGES, before)
    for client, row in enumerate(rows):
        np.testing.assert_array_equal(seen[row], skew.apply(IMAGES[row], client))
    assert len({skew.apply(IMAGES, client).tobytes() for client in range(3)}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name):
    make = feature_skew_from_name(name)
    seen = [make(4, seed).apply(IMAGES, 3).tobytes() for seed in range(8)]
    assert make(4, 0).apply(IMAGES, 3).tobytes() == seen[0]
    assert len(set(seen)) > 2


def test_samples_of_nobody_stay():
    seen = skew_features(IMAGES, [np.array([3]), np.array([5])], noise_skew(2, 0))
    changed = (seen != IMAGES).any((1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [5]  # The first client has no noise.


def test_rotation_deals_angles_evenly():
    skew = rotation_skew(10, 0)
    values, counts = np.unique(skew.parameters["degrees"], return_counts=True)
    assert values.tolist() == [0, 90, 180, 270]
    assert sorted(counts) == [2, 2, 3, 3]
    for client, degrees in enumerate(skew.parameters["degrees"]):
        wanted = np.rot90(IMAGES, round(degrees / 90), axes=(1, 2))
        np.testing.assert_array_equal(skew.apply(IMAGES, client), wanted)
    assert sorted(feature_skew_from_name("rotation:45")(3, 0).parameters["degrees"]) == [-45, 0, 45]


def test_noise_rises_from_none():
    grey = np.full((40, 20, 20, 1), 128, np.uint8)
    skew = noise_skew(3, 0, sd=20)
    assert skew.parameters["sd"].tolist() == [0, 10, 20]
    sds = [(skew.apply(grey, client) - 128.0).std() for client in range(3)]
    np.testing.assert_allclose(sds, [0, 10, 20], rtol=0.02)


def test_writers_are_within_their_limits_and_near_for_a_small_amount():
    hands = writer_skew(1000, 0, amount=0.5).parameters
    for name, top in (("slant", 12.5), ("thickness", 0.3), ("brightness", 0.2)):
        assert top * 0.98 < np.abs(hands[name]).max() <= top
        assert abs(hands[name].mean()) < top / 10
    near = writer_skew(1, 0, amount=1e-6).apply(IMAGES, 0)
    np.testing.assert_array_equal(near, IMAGES)


def test_slant_by_hand():
    """At 45 degrees each row moves one pixel more than the one below: a line leans to the right."""
    column = [[0, 9, 0], [0, 9, 0], [0, 9, 0]]
    assert hand(slant=45)(column).tolist() == [[0, 0, 9], [0, 9, 0], [9, 0, 0]]
    assert hand(slant=-45)(column).tolist() == [[9, 0, 0], [0, 9, 0], [0, 0, 9]]
    half = np.degrees(np.arctan(0.5))
    assert hand(slant=half)([[0, 8, 0], [0, 8, 0], [0, 8, 0]]).tolist() == [
        [0, 4, 4], [0, 8, 0], [4, 4, 0]]  # fmt: skip


def test_thickness_and_brightness_by_hand():
    dot = [[0, 0, 0], [0, 100, 0], [0, 0, 0]]
    assert hand(thickness=0.5)(dot).tolist() == [[0, 50, 0], [50, 100, 50], [0, 50, 0]]
    assert hand(thickness=-0.2)(dot)[1].tolist() == [0, 80, 0]
    assert hand(brightness=0.4)([[100, 200]]).tolist() == [[140, 255]]
    assert hand(brightness=-0.4)([[100, 200]]).tolist() == [[60, 120]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotation_skew(0, 0), "clients must be at least 1; got 0"),
        (lambda: rotation_skew(3, 0, []), r"angles must be a list .*; got \[\]"),
        (lambda: noise_skew(1, 0), "clients must be at least 2; got 1"),
        (lambda: noise_skew(3, 0, sd=0), "sd must be positive and finite; got 0"),
        (lambda: writer_skew(3, 0, amount=1.1), r"amount must be in \(0, 1\]; got 1.1"),
        (lambda: skew_features(IMAGES / 255, [[0]] * 3, noise_skew(3, 0)), "images must be uint8"),
        (lambda: skew_features(IMAGES, [[0]] * 2, noise_skew(3, 0)), "of 2 clients, but .* of 3"),
        (lambda: feature_skew_from_name("nois:3"), "none of .*; did you mean 'noise:SD'"),
        (lambda: feature_skew_from_name("noise"), "none of .*; did you mean 'noise:SD'"),
        (lambda: feature_skew_from_name("noise:x"), "feature skew 'noise:x': could not convert"),
        (lambda: feature_skew_from_name("rotation:0"), "must be positive and finite; got 0.0"),
        (lambda: feature_skew_from_name("writer:2"), r"'writer:2': amount must be in \(0, 1\]"),
        (lambda: feature_skew_from_name(""), "is none of rotation:DEGREES, noise:SD, writer:AMOU"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_own_skews_are_functions():
    """What a user writes by hand needs no more than the tuple."""
    flip = FeatureSkew({"flip": np.array([0, 1])}, lambda x, client: x[:, :, :: 1 - 2 * client])
    seen = skew_features(IMAGES, [np.array([0]), np.array([1])], flip)
    np.testing.assert_array_equal(seen[:2], [IMAGES[0], IMAGES[1, :, ::-1]])
