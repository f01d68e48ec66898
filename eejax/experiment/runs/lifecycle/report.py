"""What the life-cycle run shows at its end."""

from typing import Any

from eejax import tiers
from eejax.experiment.figures import Bars, Lines
from eejax.experiment.report import Report, Section
from eejax.experiment.runs.lifecycle.setup import Setting
from eejax.experiment.tables import Table, si

MODES = ("centralised", "local", "collaborative")


def summarise(results: dict[str, Any], ledger: tiers.Ledger) -> dict[str, Any]:
    """Flattens results into what ``summary.json`` holds.

    Args:
      results: of all steps.
      ledger: every transfer.

    Returns:
      ``{"cotrain/accuracy_exit3": 0.97, ...}``: numbers and strings only.
    """
    flat = {}
    for name in ("cotrain", "central", "alone"):
        for i, accuracy in enumerate(results[name]["accuracy"], 1):
            flat[f"{name}/accuracy_exit{i}"] = accuracy
    flat["cotrain/modelled_s"] = results["cotrain"]["modelled_s"]
    flat["cotrain/modelled_j"] = results["cotrain"]["modelled_j"]
    flat["cotrain/gap_to_central"] = (
        results["central"]["accuracy"][-1] - results["cotrain"]["accuracy"][-1]
    )
    plan = results["plan"]
    flat["plan/best"] = plan["best"]
    flat["plan/deployed"] = ",".join(map(str, plan["deployed"]))
    for i, threshold in enumerate(plan["calibration"]["thresholds"], 1):
        flat[f"plan/threshold_exit{i}"] = threshold
    for kind, exits in (("plans", ""), ("plans_without_exits", "/without_exits")):
        for row in plan[kind]:
            for name, cost in row["costs"].items():
                flat[f"plan/{row['name']}{exits}/modelled_{name}"] = cost
    for name in ("before", "drifted", "after"):
        flat |= _infer_numbers(name, results[name])
    for name, found in results["drifted"]["detectors"].items():
        flat[f"drift/{name}/delay"] = found["delay"]
        flat[f"drift/{name}/false_alarm"] = found["false_alarm"]
    for mode in MODES:
        update = results["updates"][mode]
        sent = tiers.ledger.from_rows(update["ledger"])
        for name in ("accuracy_new", "accuracy_old", "recovered", "forgetting"):
            flat[f"update/{mode}/{name}"] = update[name]
        for world in ("new", "old"):
            for i, accuracy in enumerate(update[f"exits_{world}"], 1):
                flat[f"update/{mode}/accuracy_{world}_exit{i}"] = accuracy
        flat[f"update/{mode}/bytes"] = tiers.total_bytes(sent)
        for kind, count in tiers.by_kind(sent).items():
            flat[f"update/{mode}/bytes_{kind}"] = count
    for (source, target), count in tiers.by_link(ledger).items():
        flat[f"traffic/{source}-{target}/bytes"] = count
    for kind, count in tiers.by_kind(ledger).items():
        flat[f"traffic/bytes_{kind}"] = count
    return flat


def _infer_numbers(name: str, found: dict[str, Any]) -> dict[str, Any]:
    flat = {f"{name}/{key}": value for key, value in found.items() if isinstance(value, float)}
    for i, (share, accuracy) in enumerate(
        zip(found["exit_fractions"], found["accuracy_by_exit"]), 1
    ):
        flat[f"{name}/leaves_exit{i}"] = share
        flat[f"{name}/accuracy_exit{i}"] = accuracy
    for source, target, nbytes in found["link_bytes"]:
        flat[f"{name}/{source}-{target}/bytes_per_sample"] = nbytes
    return flat


def make_report(
    setting: Setting, results: dict[str, Any], ledger: tiers.Ledger, timing: dict[str, Any]
) -> Report:
    """Writes the report.

    Args:
      setting: what never changes.
      results: of all steps.
      ledger: every transfer.
      timing: what was measured by the clock.

    Returns:
      The report.
    """
    before, drifted, after = (results[name] for name in ("before", "drifted", "after"))
    update = results["updates"]["collaborative"]
    sent = {m: _bytes(results["updates"][m]) for m in MODES}
    summary = (
        f"Trained together by {setting.ends} end devices, the model answers "
        f"{_percent(before['accuracy'])} of the test samples correctly, and "
        f"{_percent(before['exit_fractions'][0])} of them never leave the end device. "
        f"{setting.config.drift.kind.capitalize()} ({setting.config.drift.severity:g}) takes the "
        f"system down to {_percent(drifted['accuracy'])}; the collaborative update brings it back "
        f"to {_percent(after['accuracy'])} and sends {si(sent['collaborative'], 'B')}, where "
        f"sending all data up takes {si(sent['centralised'], 'B')}. It wins back "
        f"{_percent(update['recovered'])} of what the drift cost. Seconds, joules "
        "and bytes are modelled, if nothing else is said."
    )
    sections = (
        _system(setting),
        _training(setting, results),
        _planning(results["plan"]),
        _inference(setting, results, timing),
        _drift(setting, results),
        _updating(results),
        _traffic(ledger),
    )
    return Report("The life cycle of one model", summary, sections)


def _system(setting: Setting) -> Section:
    rows = []
    for tier in setting.topology.tiers:
        devices = tier.devices
        for name in dict.fromkeys(devices.name):
            mine = devices.name == name
            flops = devices.flops_per_s[mine]
            speed = si(flops.min(), "FLOP/s")
            if flops.max() > flops.min():
                speed += f" to {si(flops.max(), 'FLOP/s')}"
            link = "–" if tier.links is None else tier.links.name[mine][0]
            rows.append([tier.name, int(mine.sum()), name, speed,
                         si(devices.memory_bytes[mine][0], "B"), link])  # fmt: skip
    table = Table(
        "The modelled system.", ["tier", "nodes", "device", "speed", "memory", "link up"], rows
    )
    devices = [f"device {e + 1}" for e in range(setting.ends)]
    figure = Bars(
        f"Training samples of each end device by class ({setting.config.data.partition}).",
        "samples",
        devices,
        {str(name): counts.tolist() for name, counts in zip(setting.classes, setting.counts.T)},
        stacked=True,
        horizontal=True,
    )
    text = (
        f"{setting.config.data.name}: {int(setting.past.index.counts.sum())} samples at the "
        f"devices before the drift and {int(setting.new.index.counts.sum())} after it to learn "
        f"from, {len(setting.new_validation['y'])} more to choose thresholds by; in the cloud "
        f"{len(setting.validation['y'])} for validation and {len(setting.memory['y'])} to replay; "
        f"{len(setting.test['y'])} to test."
    )
    return Section("The system and its data", text, (table,), (figure,))


def _training(setting: Setting, results: dict[str, Any]) -> Section:
    config, cotrain = setting.config.cotrain, results["cotrain"]
    history = list(zip(*cotrain["history"]))
    central = list(zip(*results["central"]["history"]))
    series = {
        f"exit {i}": (list(history[0]), list(accuracy)) for i, accuracy in enumerate(history[1:], 1)
    }
    series[f"exit {len(history) - 1}, trained centrally"] = (list(central[0]), list(central[-1]))
    rows = [
        [label, *results[name]["accuracy"]]
        for name, label in (
            ("cotrain", "co-trained (hierarchical FedAvg)"),
            ("central", "trained centrally on all samples"),
            ("alone", "each device alone (mean)"),
        )
    ]
    exits = [f"exit {i}" for i in range(1, len(history))]
    table = Table("Test accuracy after training, when all samples reach every exit.",
                  ["training", *exits], rows)  # fmt: skip
    text = (
        f"{config.rounds} rounds of the cloud; edges average every {config.k1} local steps, the "
        f"cloud every {config.k1 * config.k2}. On the modelled system this takes "
        f"{si(cotrain['modelled_s'], 's')} and {si(cotrain['modelled_j'], 'J')}. "
        "The central baseline sees as many samples; each device alone takes as many steps. Whether "
        "training fits the memory of a device is not modelled."
    )
    figure = Lines(
        "Test accuracy over the rounds, by exit.", "rounds of the cloud", "accuracy", series
    )
    return Section("Co-training", text, (table,), (figure,))


def _planning(plan: dict[str, Any]) -> Section:
    full = {row["name"]: row["costs"] for row in plan["plans_without_exits"]}
    rows = []
    for row in plan["plans"]:
        cost = row["costs"]
        name = row["name"] + (" (deployed)" if row["assignment"] == plan["deployed"] else "")
        rows.append([
            name,
            si(cost["latency"], "s"),
            si(full[row["name"]]["latency"], "s"),
            si(cost["end_energy"], "J"),
            si(cost["energy"], "J"),
            si(cost["bytes"], "B"),
            "yes" if row["feasible"] else "no",
        ])  # fmt: skip
    best = next(i for i, row in enumerate(plan["plans"]) if row["name"] == plan["best"])
    table = Table(
        "Every placement of the stages, for one sample, best first; expected over the exits.",
        ["placement", "latency", "without exits", "energy, end", "energy, all", "bytes", "fits"],
        rows,
        best,
    )
    reasons = {row["why"] for row in plan["plans"] if row["why"]}
    text = (
        f"Granularity: {plan['graph']['granularity']}. Raw input is priced as uint8, features "
        "through their codec. Latency is the mean over the end devices, energy that of a sample; "
        "all is modelled."
    ) + ("" if not reasons else "\n\nWhat does not fit: " + "; ".join(sorted(reasons)) + ".")
    return Section("Planning", text, (table,))


def _inference(setting: Setting, results: dict[str, Any], timing: dict[str, Any]) -> Section:
    before, plan = results["before"], results["plan"]
    curve = before["curve"]
    full = {row["name"]: row["costs"]["latency"] for row in plan["plans_without_exits"]}
    final = before["accuracy_by_exit"][-1]
    points = {name: (latency, final) for name, latency in full.items() if name.startswith("all-")}
    points["calibrated"] = (before["latency"], before["accuracy"])
    points["oracle"] = (before["latency"], before["accuracy_oracle"])
    points["random exits"] = (before["latency"], before["accuracy_random_exit"])
    lines = Lines(
        "Accuracy against modelled latency as thresholds move, beside the whole model in one place "
        "and exits dealt out at random.",
        "latency",
        "accuracy",
        {"early exits": (curve["latency"], curve["accuracy"]),
         "random exits": (curve["latency"], curve["random"])},
        points,
        logx=True,
        xunit="s",
    )  # fmt: skip
    exits = [f"exit {i}" for i in range(1, len(before["exit_fractions"]) + 1)]
    names = {"before": "before", "drifted": "drifted", "after": "after the update"}
    bars = Bars("Where samples leave.", "share of the samples", exits,
                {label: results[n]["exit_fractions"] for n, label in names.items()})  # fmt: skip
    columns = ["", *names.values()]
    found = [results[name] for name in names]
    story = Bars("Accuracy before the drift, in it, and after the collaborative update.",
                 "accuracy", list(names.values()),
                 {"system": [f["accuracy"] for f in found],
                  **{name: [f["accuracy_by_exit"][i] for f in found]
                     for i, name in enumerate(exits)}})  # fmt: skip
    rows = [
        ["accuracy of the system", *(f["accuracy"] for f in found)],
        ["final exit for all samples", *(f["accuracy_by_exit"][-1] for f in found)],
        ["exits dealt out at random", *(f["accuracy_random_exit"] for f in found)],
        ["oracle exits (upper bound)", *(f["accuracy_oracle"] for f in found)],
        *(
            [f"leave at {name}", *(_percent(f["exit_fractions"][i]) for f in found)]
            for i, name in enumerate(exits)
        ),
        ["latency (modelled)", *(si(f["latency"], "s") for f in found)],
        ["energy of the end (modelled)", *(si(f["end_energy"], "J") for f in found)],
        ["energy of all (modelled)", *(si(f["energy"], "J") for f in found)],
        ["bytes of a sample, all links", *(si(f["bytes"], "B") for f in found)],
        *(
            [f"{source} to {target}", *(si(f["link_bytes"][i][2], "B") for f in found)]
            for i, (source, target, _) in enumerate(before["link_bytes"])
        ),
        ["FLOP saved, in hindsight", *(_percent(f["hindsight_saving"]) for f in found)],
        ["FLOP saved, as executed", *(_percent(f["executed_saving"]) for f in found)],
    ]
    table = Table("Co-inference before the drift, in it, and after the update.", columns, rows)
    text = (
        "Thresholds on normalised entropy were chosen on validation data to cost at most "
        f"{_percent(setting.config.coinfer.loss_allowed)} of accuracy: "
        f"{', '.join(f'{t:.3f}' for t in plan['calibration']['thresholds'])}. Execution goes stage "
        "by stage with the survivors packed together. Measured on this machine "
        f"({timing['devices']} device(s)): early exits take {timing['measured_ratio']:.2f} times "
        "as long as the model without its early exits."
    )
    return Section("Co-inference", text, (table,), (lines, story, bars))


def _drift(setting: Setting, results: dict[str, Any]) -> Section:
    rows = [
        [
            name,
            found["sees"],
            "yes" if found["false_alarm"] else "no",
            "no alarm" if found["delay"] is None else found["delay"],
        ]
        for name, found in results["drifted"]["detectors"].items()
    ]
    config = setting.config.drift
    table = Table("Who noticed.", ["detector", "sees", "false alarm", "samples until alarm"], rows)
    text = (
        f"The test samples pass in order, first as they were and then with {config.kind} "
        f"({config.severity:g}). Detectors see the normalised entropy of the first exit for every "
        f"sample, or whether the answer was wrong for the {_percent(config.label_share)} that "
        "somebody checks."
    )
    return Section("Drift", text, (table,))


def _updating(results: dict[str, Any]) -> Section:
    before, drifted = (results[name]["accuracy"] for name in ("before", "drifted"))
    rows = [["no update", drifted, before, _percent(0.0), 0.0, *(["0 B"] * 4)]]
    for mode in MODES:
        found = results["updates"][mode]
        sent = tiers.ledger.from_rows(found["ledger"])
        rows.append([
            mode, found["accuracy_new"], found["accuracy_old"],
            _percent(found["recovered"]), 100 * found["forgetting"],
            *(si(count, "B") for count in tiers.by_kind(sent).values()),
            si(tiers.total_bytes(sent), "B"),
        ])  # fmt: skip
    table = Table(
        "Three ways to update: accuracy of the system, early exits included.",
        ["update", "new world", "old world", "recovered", "forgetting, points",
         "data", "information", "knowledge", "all bytes"],
        rows,
    )  # fmt: skip
    exits = range(1, len(results["before"]["exit_fractions"]) + 1)
    figure = Bars(
        "Accuracy in the new world by exit.", "accuracy", [f"exit {i}" for i in exits],
        {"no update": results["drifted"]["accuracy_by_exit"]}
        | {mode: results["updates"][mode]["exits_new"] for mode in MODES},
    )  # fmt: skip
    text = (
        "Centralised: all new samples go up, the cloud retrains and sends parameters down. Local: "
        "every node retrains what it hosts on what it sees. Collaborative: the hardest samples go "
        "up, the cloud retrains with replay, sends parameters down, and teaches the exits of edge "
        "and end by soft labels. The system goes on with the last."
    )
    return Section("Co-updating", text, (table,), (figure,))


def _traffic(ledger: tiers.Ledger) -> Section:
    links = list(tiers.by_link(ledger))
    names = [f"{source} to {target}" for source, target in links]
    series = {
        kind: [tiers.total_bytes(ledger, *link, kind=kind) for link in links]
        for kind in tiers.by_kind(ledger)
    }
    figure = Bars("Traffic of the whole run by link and kind.", "bytes", names, series,
                  unit="B", horizontal=True, stacked=True)  # fmt: skip
    rows = [
        [f"{t.source} to {t.target}", t.kind, t.what, t.count, si(t.nbytes, "B"),
         si(t.nbytes * t.count, "B")]
        for t in sorted(ledger, key=lambda t: -t.nbytes * t.count)
    ]  # fmt: skip
    table = Table("All transfers.", ["link", "kind", "what", "messages", "each", "all"], rows)
    return Section("Traffic", "Exact bytes of the payloads, counted from shapes and codecs.",
                   (table,), (figure,))  # fmt: skip


def _bytes(update: dict[str, Any]) -> int:
    return tiers.total_bytes(tiers.ledger.from_rows(update["ledger"]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
