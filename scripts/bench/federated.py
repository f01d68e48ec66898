"""Times federated rounds as ratios, all in one run on this machine.

The work: 100 clients of 400 synthetic 28 x 28 images with labels by Dirichlet(0.3), 10 clients a
round, one epoch of 20 steps of 20 samples, SGD; a CNN of 106 thousand parameters, a perceptron of
199 thousand (``mlp``), and logistic regression (``lr``). ``cifar`` is bound by convolutions: 50
clients a round of 5 steps of 10 images of 32 x 32 x 3, 1.63 million parameters.

Against the engine of eejax run a scan written by hand with no framework, which is told its batches,
and torch, pfl, fedjax and Flower where they are installed (``--python`` names an interpreter that
has them). Competitors are processes on one core that take turns, a few rounds each. They train the
same clients on the same batches from the same model; ``norm`` of the model that results must agree
(Flower draws its own). Ratios are medians over the turns of processor seconds, and of wall seconds,
divided by those of eejax in the same turn, with quartiles: above 1, eejax is faster.

``devices`` is the speed-up of two host devices on two cores over one device on one, or on both
cores; by wall seconds, so it needs an idle machine. On a busy one, look at the processor seconds of
two over those of one: 2 divided by them is the speed-up that an idle machine can give at most.
``clients`` is the time of a round of 100 clients out of 100,000 over that of 100 out of 1,000, also
when each keeps a state of 1 kB.

  python scripts/bench/federated.py [--models cnn mlp lr cifar] [--peers torch pfl fedjax flower]
                                    [--python PYTHON] [--turns 7] [--seconds 1] [--json]
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import federated_ours as ours
import federated_work as fw
import numpy as np

HERE = pathlib.Path(__file__).parent
NEEDS = {"torch": ("torch",), "pfl": ("pfl", "torch"), "fedjax": ("fedjax",),
         "flower": ("flwr", "ray", "torch")}  # fmt: skip
MOST, WARM, SEED = 60, 2, 0  # Rounds of a turn at most, rounds before the first; key of the run.


class Competitor:
    """A process that does rounds when told to."""

    def __init__(self, python, script, name, folder, cores, **options):
        """Starts the process and waits until it has read its work."""
        command = [python, str(HERE / script), name, str(folder), "--cores", *map(str, cores)]
        command += [f"--{key}={value}" for key, value in options.items()]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.answer()

    def answer(self):
        """Reads one line."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            last = self.log.read()[-2000:]
            self.close()
            raise RuntimeError(f"{' '.join(self.process.args)} ended:\n{last}")
        return json.loads(line)

    def run(self, rounds):
        """Seconds of some rounds: ``{"wall", "cpu", "norm"}``."""
        self.process.stdin.write(f"{rounds}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def installed(python, peers):
    """Which peers an interpreter has."""
    names = sorted({module for peer in peers for module in NEEDS[peer]})
    code = f"from importlib.util import find_spec as f; print([n for n in {names} if f(n)])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return [peer for peer in peers if all(repr(module) in found for module in NEEDS[peer])]


def race(competitors, turns, rounds):
    """Lets competitors take turns: ``{name: [{"wall", "cpu", "norm"} by turn]}``."""
    results = {name: [] for name in competitors}
    for turn in range(turns):
        for name in list(competitors)[:: -1 if turn % 2 else 1]:
            results[name].append(competitors[name].run(rounds))
    return results


def race_of(commands, turns, seconds, most=MOST):
    """Starts competitors, has each compile, and lets them take turns of about some seconds.

    Args:
      commands: arguments of `Competitor` by name; the first tells how many rounds a turn has.
      turns: of each.
      seconds: processor time of a turn of the first.
      most: rounds of a turn.

    Returns:
      Rounds of a turn, and the results of `race`.
    """
    with contextlib.ExitStack() as stack:
        competitors = {}
        for name, (arguments, options) in commands.items():
            competitors[name] = stack.enter_context(
                contextlib.closing(Competitor(*arguments, **options))
            )
        for _ in range(WARM):
            last = [competitor.run(1) for competitor in competitors.values()]
        rounds = int(np.clip(seconds / max(last[0]["cpu"], 1e-9), 1, most))
        return rounds, race(competitors, turns, rounds)


def spread(values):
    """Median and quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75)).tolist()
    return {"median": middle, "quartiles": [low, high]}


def ratios(results, base, clock):
    """How much longer the others take than ``base``, turn by turn."""
    return {
        name: spread([a[clock] / b[clock] for a, b in zip(found, results[base])])
        for name, found in results.items()
        if name != base
    }


def compare(model, shape, peers, python, core, turns, seconds):
    """One model on one core: eejax against the hand-written scan and the peers."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        cohorts, picks = ours.record(shape, WARM + MOST * turns, SEED)
        fw.save(folder, fw.make_work(model, shape, cohorts, picks))
        rest = (folder, [core])
        commands = {
            name: ((sys.executable, "federated_ours.py", name, *rest), {"seed": SEED})
            for name in ("eejax", "scan")
        }
        commands |= {name: ((python, "federated_peers.py", name, *rest), {}) for name in peers}
        rounds, results = race_of(commands, turns, seconds)
    return {
        "model": model,
        "rounds": rounds,
        "norm": {name: found[-1]["norm"] for name, found in results.items()},
        "ms": {
            name: min(turn["cpu"] for turn in found) / rounds * 1e3
            for name, found in results.items()
        },
        "cpu": ratios(results, "eejax", "cpu"),
        "wall": ratios(results, "eejax", "wall"),
        "busy": statistics.median(turn["wall"] / turn["cpu"] for turn in results["eejax"]),
    }


def devices(model, shape, cores, turns, seconds):
    """Speed-up of two host devices over one, by wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        cohorts, picks = ours.record(shape, 1, SEED)
        fw.save(folder, fw.make_work(model, shape, cohorts, picks))
        ways = {"two": (cores, 2), "one": (cores[:1], 1), "one on both": (cores, 1)}
        commands = {
            name: (
                (sys.executable, "federated_ours.py", "eejax", folder, on),
                {"devices": number, "seed": SEED},
            )
            for name, (on, number) in ways.items()
        }
        rounds, results = race_of(commands, turns, seconds)
    # The least of the turns: two cores at once are seldom left alone on a shared machine.
    least = {name: min(turn["wall"] for turn in found) for name, found in results.items()}
    return {
        "model": model,
        "rounds": rounds,
        "norm": {name: found[-1]["norm"] for name, found in results.items()},
        "wall": ratios(results, "two", "wall"),
        "least": {name: t / least["two"] for name, t in least.items() if name != "two"},
        "cpu": ratios(results, "one", "cpu")["two"],
    }


def crowds(few, many, cohort, keeps, core, turns, seconds):
    """Time of a round with many clients over that with few, cohorts being alike."""
    commands = {
        name: (
            (sys.executable, "federated_ours.py", "crowd", "-", [core]),
            {"clients": clients, "cohort": cohort, "keeps": keeps},
        )
        for name, clients in (("few", few), ("many", many))
    }
    rounds, results = race_of(commands, turns, seconds)
    return {
        "clients": [few, many],
        "cohort": cohort,
        "bytes": keeps,
        "rounds": rounds,
        "cpu": ratios(results, "few", "cpu")["many"],
        "wall": ratios(results, "few", "wall")["many"],
    }


def show(result):
    """Prints the tables."""

    def cell(found):
        low, high = found["quartiles"]
        return f"{found['median']:.2f} ({low:.2f}-{high:.2f})"

    if result["models"]:
        print("one core; seconds of others / seconds of eejax, median (quartiles)")
        print(f"{'':7}{'':9}{'CPU':>20}{'wall':>20}{'norm':>12}")
    for row in result["models"]:
        for name, norm in row["norm"].items():
            both = ("1", "1")
            if name != "eejax":
                both = cell(row["cpu"][name]), cell(row["wall"][name])
            print(f"{row['model']:7}{name:9}{both[0]:>20}{both[1]:>20}{norm:12.4f}")
    if result["absent"]:
        print("not installed:", ", ".join(result["absent"]))
    for row in result["devices"]:
        found = ", ".join(
            f"{row['least'][name]:.2f} times {name} (turns: {cell(row['wall'][name])})"
            for name in row["wall"]
        )
        print(f"two devices, {row['model']}: {found}; CPU of two / one {cell(row['cpu'])}")
    for row in result["crowds"]:
        few, many = row["clients"]
        print(
            f"{many:,} / {few:,} clients, {row['cohort']} a round, {row['bytes']} bytes kept by "
            f"each: CPU {cell(row['cpu'])}, wall {cell(row['wall'])}"
        )


def main(argv=None):
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=list(fw.MODELS), default=list(fw.MODELS))
    parser.add_argument("--peers", nargs="*", choices=list(NEEDS), default=list(NEEDS))
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--devices", nargs="*", choices=list(fw.MODELS), default=["cnn", "mlp"])
    parser.add_argument("--crowds", type=int, nargs=2, metavar=("FEW", "MANY"),
                        default=[1000, 100_000])  # fmt: skip
    parser.add_argument("--crowd-cohort", type=int, default=100, help="0 leaves crowds out")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn of eejax")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    shapes = fw.TINY if args.tiny else fw.SHAPES
    cores = sorted(os.sched_getaffinity(0))[-2:] if hasattr(os, "sched_getaffinity") else [0]
    peers, turns = installed(args.python, args.peers), (args.turns, args.seconds)
    result = {
        "absent": [peer for peer in args.peers if peer not in peers],
        "models": [
            compare(model, shapes[fw.MODELS[model]], peers, args.python, cores[-1], *turns)
            for model in args.models
        ],
        "devices": [
            devices(model, shapes[fw.MODELS[model]], cores, *turns)
            for model in args.devices
            if len(cores) == 2
        ],
        "crowds": [
            crowds(*args.crowds, args.crowd_cohort, keeps, cores[-1], *turns)
            for keeps in (0, 1024)
            if args.crowd_cohort
        ],
    }
    if args.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
