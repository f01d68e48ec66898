"""The drift that spoils co-inference, and who notices it."""

from typing import Any

import numpy as np

from eejax import coinfer, coupdate
from eejax.core import DriftDetector
from eejax.experiment.runs.lifecycle.infer import co_infer, scalars
from eejax.experiment.runs.lifecycle.setup import Setting
from eejax.experiment.steps import RunState
from eejax.names import suggest


def check(setting: Setting) -> None:
    """Refuses wrong detectors before anything is trained.

    Args:
      setting: what never changes.

    Raises:
      ValueError: as `make_detector`.
    """
    for name in setting.config.drift.detectors:
        make_detector(setting, name)


def drift_step(setting: Setting):
    """Makes the step in which the world changes and the detectors watch.

    The test samples pass in order, first as they were and then drifted. Detectors of scores see the
    first exit of every sample; `ddm` sees whether an answer was wrong, where somebody checks.
    """
    config = setting.config.drift

    def step(state: RunState, write) -> tuple[RunState, str]:
        plan = state.results["plan"]
        params = state.arrays["federated"].server.params
        results, ledger = co_infer(
            setting, coupdate.as_paths(params, setting.ends), setting.drifted,
            plan["calibration"]["thresholds"], plan["deployed"], state.ledger,
        )  # fmt: skip
        stream = _stream(setting, params, plan["calibration"]["thresholds"])
        rng = np.random.default_rng([setting.config.seed, 1])
        checked = rng.random(len(stream["error"])) < config.label_share
        results["detectors"] = {
            name: _watch(setting, name, plan["calibration"], stream, checked)
            for name in config.detectors
        }
        for name, found in results["detectors"].items():
            write(0, {"detector": name, **found})
        alarms = [n for n, d in results["detectors"].items() if d["delay"] is not None]
        write(0, scalars(results))
        note = f"accuracy {results['accuracy']:.3f}, alarm by {', '.join(alarms) or 'nobody'}"
        return RunState(state.arrays, state.results | {"drifted": results}, ledger), note

    return step


def _stream(setting, params, thresholds) -> dict[str, np.ndarray]:
    """Scores of the first exit and errors of the system, old world first."""
    full = coinfer.make_full(setting.model, coinfer.normalised_entropy(thresholds))
    scores, errors = [], []
    for samples in (setting.test, setting.drifted):
        logits, eta = full(params, samples["x"])
        answer = coinfer.at_exit(logits.argmax(-1), coinfer.leave_at(eta, thresholds))
        scores.append(eta[0])
        errors.append((answer != samples["y"]).astype(int))
    return {"score": np.concatenate(scores), "error": np.concatenate(errors)}


def _watch(setting, name, calibration, stream, checked) -> dict[str, Any]:
    """Shows the stream to one detector and tells how many samples it took to notice."""
    detector, needs_labels = make_detector(setting, name)
    reference = calibration["errors" if needs_labels else "first_exit_scores"]
    values = stream["error"][checked] if needs_labels else stream["score"]
    position = np.flatnonzero(checked) if needs_labels else np.arange(len(values))
    state = detector.init(np.asarray(reference))
    _, metrics = detector.update(state, values)
    start = len(setting.test["y"])
    at = int(position[int(metrics["seen"]) - 1]) if metrics["alarm"] else None
    return {
        "sees": "labels" if needs_labels else "scores",
        "false_alarm": at is not None and at < start,
        "delay": at - start + 1 if at is not None and at >= start else None,
    }


def make_detector(setting: Setting, name: str) -> tuple[DriftDetector, bool]:
    """Makes the detector that a config names.

    Args:
      setting: what never changes.
      name: kswin, page_hinkley or ddm.

    Returns:
      The detector, and whether it needs labels.

    Raises:
      ValueError: the name is unknown, or labels are needed and nobody gives any.
    """
    config = setting.config.drift
    known = {
        "kswin": lambda: (coupdate.kswin(window=config.window), False),
        "page_hinkley": lambda: (coupdate.page_hinkley(), False),
        "ddm": lambda: (coupdate.ddm(), True),
    }
    if name not in known:
        hint = suggest(name, known)
        raise ValueError(f"drift.detectors: {name!r} is none of {', '.join(known)}{hint}")
    detector, needs_labels = known[name]()
    if needs_labels and not config.label_share > 0:
        raise ValueError(f"drift.detectors: {name} needs labels, but drift.label_share is 0")
    return detector, needs_labels
