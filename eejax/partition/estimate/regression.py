"""Neurosurgeon's estimate: one regression for each type of layer."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from eejax.names import suggest
from eejax.partition.estimate.errors import Errors, errors, held_out
from eejax.partition.graph import LayerGraph

Form = Literal["linear", "log-linear", "best"]


class KindFit(NamedTuple):
    """The regression of one type of layer.

    Attributes:
      form: ``"linear"``, ``y = w0 + w x``, or ``"log-linear"``, ``log y = w0 + w log(1 + x)``.
      weights: ``[1 + features]``.
      errors: on held-out samples.
    """

    form: str
    weights: np.ndarray
    errors: Errors


Regression = dict[str, KindFit]
"""By the type of the layer."""


def features_of(graph: LayerGraph) -> np.ndarray:
    """Takes the features that a graph holds.

    Args:
      graph: a graph.

    Returns:
      FLOP, bytes moved and bytes of parameters, ``[layers, 3]``.
    """
    return np.array([layer[1:] for layer in graph.layers], float)


def fit_regression(
    kinds: Sequence[str],
    features: Any,
    seconds: Any,
    *,
    form: Form = "best",
    folds: int = 5,
    seed: int = 0,
) -> Regression:
    """Fits seconds to features, by least squares for each type of layer.

    Neurosurgeon takes the size of the input and ``(filter / stride)^2 * filters`` for convolutions,
    input and output sizes for products and pooling, and the number of elements for activations,
    and gives each type a linear or a logarithmic form. A feature that a type does not have is 0.

    Args:
      kinds: type of each sample.
      features: ``[samples, features]``, >= 0.
      seconds: measured, ``[samples]``, > 0.
      form: of all types; ``"best"`` takes for each the one with the smaller median error on
        held-out samples, which makes that error slightly too good.
      folds: parts of the cross-validation that gives the errors; the fit itself takes all samples.
      seed: of the division into parts.

    Returns:
      The regression of each type, with its held-out errors.

    Raises:
      ValueError: an argument has a wrong shape or value, or a type fewer samples than folds.

    References:
      Kang et al., Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge, 2017.

    Example:
      >>> sizes = np.arange(1.0, 21.0)[:, None]
      >>> regression = fit_regression(["conv"] * 20, sizes, 3 + 2 * sizes[:, 0])
      >>> regression["conv"].form, regression["conv"].weights.round(6).tolist()
      ('linear', [3.0, 2.0])
      >>> predict_regression(regression, ["conv"], [[100.0]]).round(6).tolist()
      [203.0]
    """
    features, seconds = _checked(kinds, features), np.asarray(seconds, float)
    if form not in get_args(Form):
        raise ValueError(
            f"form {form!r} is none of {', '.join(get_args(Form))}{suggest(form, get_args(Form))}"
        )
    if seconds.shape != (len(kinds),) or not ((seconds > 0) & (seconds < np.inf)).all():
        raise ValueError(f"seconds must be {len(kinds)} numbers > 0 [samples]")
    regression = {}
    for kind, count in sorted(Counter(kinds).items()):
        if not 2 <= folds <= count:
            raise ValueError(
                f"{kind!r} has {count} samples; folds must be in [2, {count}]: {folds}"
            )
        rows = np.array([k == kind for k in kinds])
        x, y = features[rows], seconds[rows]
        fits = []
        for each in ("linear", "log-linear") if form == "best" else (form,):
            guess = held_out(
                lambda x, y, each=each: _fit(each, x, y),
                lambda weights, x, each=each: _predict(each, weights, x),
                x,
                y,
                folds,
                seed,
            )
            fits.append(KindFit(each, _fit(each, x, y), errors(guess, y)))
        regression[kind] = min(fits, key=lambda fit: fit.errors.median)
    return regression


def predict_regression(regression: Regression, kinds: Sequence[str], features: Any) -> np.ndarray:
    """Estimates the seconds of layers.

    For pricing, one column a tier: ``np.stack([predict_regression(r, kinds, x) for r in by_tier],
    1)``.

    Args:
      regression: of one device.
      kinds: type of each layer.
      features: ``[layers, features]``, as fitted.

    Returns:
      Seconds ``[layers]``, >= 0.

    Raises:
      ValueError: a type was not fitted (names all with their numbers), or a shape is wrong.
    """
    features = _checked(kinds, features)
    unknown = Counter(kind for kind in kinds if kind not in regression)
    if unknown:
        names = ", ".join(f"{kind} ({count})" for kind, count in sorted(unknown.items()))
        raise ValueError(f"kinds without a fit: {names}; fitted are {', '.join(regression)}")
    out = np.empty(len(kinds))
    for kind in set(kinds):
        rows = np.array([k == kind for k in kinds])
        fit = regression[kind]
        if len(fit.weights) != features.shape[1] + 1:
            raise ValueError(
                f"features must be [layers, {len(fit.weights) - 1}], got {features.shape}"
            )
        out[rows] = _predict(fit.form, fit.weights, features[rows])
    return out


def _checked(kinds: Sequence[str], features: Any) -> np.ndarray:
    features = np.asarray(features, float)
    if features.ndim != 2 or len(features) != len(kinds) or not len(kinds):
        raise ValueError(f"features must be [{len(kinds)}, features], got {features.shape}")
    if not ((features >= 0) & (features < np.inf)).all():
        raise ValueError("features must be finite and >= 0")
    return features


def _design(form: str, x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(x)), x if form == "linear" else np.log1p(x)])


def _fit(form: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    design = _design(form, x)
    scale = np.abs(design).max(0)  # FLOP and strides differ by many orders of magnitude.
    scale[scale == 0] = 1
    target = y if form == "linear" else np.log(y)
    return np.linalg.lstsq(design / scale, target)[0] / scale


def _predict(form: str, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = _design(form, x) @ weights
    return np.maximum(y, 0) if form == "linear" else np.exp(y)
