import numpy as np
import pytest

from eejax.data import (
    blur,
    contrast,
    drift,
    drift_from_name,
    invert,
    load,
    noise,
    occlude,
    rotate,
    translate,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
NONE = {
    "blur": 0,
    "contrast": 1,
    "invert": 0,
    "noise": 0,
    "occlude": 0,
    "rotate": 0,
    "translate": 0,
}
SOME = {
    "blur": 1.5, "contrast": 0.5, "invert": 1, "noise": 20, "occlude": 3, "rotate": 30,
    "translate": 2.5,
}  # fmt: skip


def image(*rows):
    return np.array(rows, np.uint8)[None, ..., None]


def rows(images):
    return images[0, ..., 0].tolist()


def test_the_tables_hold_every_drift():
    assert list(NONE) == list(SOME) == list(drift._DRIFTS)


@pytest.mark.parametrize("name", NONE)
def test_no_severity_is_the_identity(name):
    same = drift_from_name(name, NONE[name])(IMAGES)
    np.testing.assert_array_equal(same, IMAGES, strict=True)
    assert not np.shares_memory(same, IMAGES)


@pytest.mark.parametrize("name", SOME)
def test_drift_is_deterministic_pure_and_keeps_shape_and_dtype(name):
    before = IMAGES.copy()
    first, again = (drift_from_name(name, SOME[name], seed=3)(IMAGES) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(IMAGES, before)
    assert (first.shape, first.dtype) == (IMAGES.shape, np.uint8)
    assert (first != IMAGES).any()
    other = drift_from_name(name, SOME[name], seed=4)(IMAGES)
    assert (other != first).any() == (name in ("noise", "occlude"))


@pytest.mark.parametrize("name", SOME)
def test_images_do_not_touch_each_other(name):
    """Drift of many images is that of the first one alone."""
    drifted = drift_from_name(name, SOME[name])
    np.testing.assert_array_equal(drifted(IMAGES)[:1], drifted(IMAGES[:1]))


@pytest.mark.parametrize("quarters", [-3, -1, 1, 2, 3, 4])
@pytest.mark.parametrize("side", [7, 8])
def test_quarter_turns_are_exact(quarters, side):
    images = IMAGES[:, :side, :side]
    np.testing.assert_array_equal(rotate(images, 90 * quarters), np.rot90(images, quarters, (1, 2)))


def test_rotate_by_45_degrees():
    # The centre stays; a corner comes from sqrt(2) away, outside: black.
    turned = rotate(image([0, 0, 0], [0, 200, 100], [0, 0, 0]), 45)
    assert turned[0, 1, 1, 0] == 200
    assert turned[0, [0, 0, 2, 2], [0, 2, 0, 2], 0].tolist() == [0] * 4
    # Half of the turn up: the pixel to the right is now up and to the right.
    assert turned[0, 0, 1, 0] == turned[0, 1, 2, 0] > turned[0, 2, 1, 0] == turned[0, 1, 0, 0]


def test_translate_by_hand():
    corner = image([10, 20, 0], [30, 40, 0], [0, 0, 0])
    assert rows(translate(corner, 1)) == [[0, 0, 0], [0, 10, 20], [0, 30, 40]]
    assert rows(translate(corner, -1)) == [[40, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert rows(translate(image([0, 0, 0], [0, 100, 0], [0, 0, 0]), 0.5)) == [
        [0, 0, 0], [0, 25, 25], [0, 25, 25],
    ]  # fmt: skip


def test_blur_by_hand():
    # exp(-k^2 / 2) over its sum for k = -4..4: 0.3991, 0.2420, 0.0540, 0.0044.
    line = np.zeros((1, 9, 9, 1), np.uint8)
    line[0, :, 4] = 250
    blurred = blur(line, 1.0)
    assert blurred[0, 4, :, 0].tolist() == [0, 1, 13, 60, 100, 60, 13, 1, 0]
    assert (blurred == blurred[:, :1]).all()


def test_noise_has_the_given_deviation():
    grey = np.full((50, 28, 28, 1), 128, np.uint8)
    difference = noise(grey, 20).astype(float) - 128
    assert difference.mean() == pytest.approx(0, abs=0.5)
    assert difference.std() == pytest.approx(20, rel=0.02)
    # Clipped, not wrapped round: half of the noise on black is gone.
    black = noise(np.zeros_like(grey), 20)
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert black.max() < 128


def test_contrast_by_hand():
    # Mean 100.
    assert rows(contrast(image([60, 140]), 0.5)) == [[80, 120]]
    assert rows(contrast(image([60, 140]), 0)) == [[100, 100]]
    assert rows(contrast(image([60, 140]), 3)) == [[0, 220]]
    assert rows(contrast(image([10, 190]), 2)) == [[0, 255]]


def test_occlude_covers_a_square_inside_each_image():
    white = np.full((200, 8, 8, 2), 255, np.uint8)
    covered = occlude(white, 3) == 0
    assert (covered[..., 0] == covered[..., 1]).all()
    assert (covered[..., 0].sum((1, 2)) == 9).all()
    assert (covered[..., 0].any(2).sum(1) == 3).all()
    assert covered[..., 0].any(0).all()  # Every pixel can be hit.
    assert (occlude(white, 8.0) == 0).all()


def test_invert_by_hand():
    assert rows(invert(image([0, 100, 255]))) == [[255, 155, 0]]
    assert rows(invert(image([0, 100, 255]), 0.1)) == [[26, 106, 230]]


def test_drift_changes_what_a_simple_classifier_says():
    """Nearest class mean on real digits: the harder the drift, the more it errs."""
    train, test = load("digits"), load("digits", "test")
    means = np.array([train.images[train.labels == c].mean(0).ravel() for c in range(10)])

    def accuracy(images):
        distance = ((images.reshape(len(images), 1, -1) - means[None].astype(float)) ** 2).sum(-1)
        return (distance.argmin(1) == test.labels).mean()

    accuracies = [accuracy(rotate(test.images, degrees)) for degrees in (0, 20, 40, 60)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.85
    assert accuracies[-1] < 0.4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drift_from_name("rotation", 1), "'rotation' is none of blur, .*mean 'rotate'"),
        (
            lambda: drift_from_name("noise", -1),
            r"severity of noise must be .* in \[0, inf\]; got -1",
        ),
        (lambda: drift_from_name("rotate", np.nan), "severity of rotate must be .* got nan"),
        (lambda: drift_from_name("blur", np.inf), "severity of blur must be finite"),
        (lambda: blur(IMAGES, -1), "sd must be >= 0; got -1"),
        (lambda: noise(IMAGES, float("nan")), "sd must be >= 0; got nan"),
        (lambda: contrast(IMAGES, -0.5), "factor must be >= 0; got -0.5"),
        (lambda: occlude(IMAGES, 9), "pixels must be a whole number from 0 to 8; got 9"),
        (lambda: occlude(IMAGES, 2.5), "pixels must be a whole number from 0 to 8; got 2.5"),
        (lambda: invert(IMAGES, 1.5), r"amount must be in \[0, 1\]; got 1.5"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
