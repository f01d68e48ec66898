"""What each command of ``eejax`` does: from parsed arguments to an exit code.

Heavy imports are inside the functions, so that ``eejax --help`` answers at once.
"""

import argparse
import importlib
import inspect
import json
import os
import re
import shlex
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eejax.experiment.user_errors import answer, complain, unknown_argument

ROOMS = (
    "tiers", "wire", "models", "data", "partition", "transfer", "protect", "cotrain.federated",
    "cotrain.personal", "cotrain.skew", "cotrain.decentralised", "cotrain.tensor",
    "cotrain.pipeline", "cotrain.replica", "cotrain.multihost", "coinfer", "coupdate",
)  # fmt: skip

_PICTURES = (".png", ".svg", ".pdf")


def run(args: argparse.Namespace) -> int:
    """Runs an experiment, alone or as one of several processes."""
    if args.help:
        args.run_parser.print_help()
        if args.config is None:
            return 0
        args.overrides = ["--help"]
    elif args.config is None:
        args.run_parser.error("CONFIG is missing, such as configs/lifecycle_mnist.py")
    else:
        options = ["--workdir", "--resume", "--tensorboard", "--quiet"]
        for word in args.overrides:
            if word.startswith("--") and not word.startswith("--config."):
                unknown_argument(args.run_parser, word, options)

    if "EEJAX_PROCESSES" not in os.environ:
        return _run_config(args)

    from eejax.cotrain.multihost import end_on_error, initialize_from_env, is_elastic

    if is_elastic():
        raise ValueError("`eejax run` cannot go on with fewer processes: use --restarts instead of "
                         "--elastic")  # fmt: skip
    # Peers must not wait for one that has failed, be it the user's mistake or a bug.
    with end_on_error():
        try:
            initialize_from_env()
            return _run_config(args)
        except Exception as error:
            sys.exit(answer(error))


def _run_config(args: argparse.Namespace) -> int:
    from eejax.cotrain.multihost import is_first
    from eejax.experiment.config import config_name, load_config
    from eejax.experiment.context import open_context
    from eejax.experiment.signals import Interrupted
    from eejax.experiment.workdir import launched_root, newest_root

    config, run = load_config(args.config, args.overrides)
    name = config_name(args.config)
    root = args.workdir or (newest_root if args.resume and is_first() else launched_root)(name)
    # A restart of `eejax launch` goes on where the processes before it were.
    resume = args.resume or os.environ.get("EEJAX_ATTEMPT", "0") != "0"
    try:
        with open_context(
            config, root, resume=resume, tensorboard=args.tensorboard, quiet=args.quiet
        ) as context:
            context.progress.say(f"run folder: {root}")
            run(config, context)
    except Interrupted as stop:
        saved = "nothing saved yet" if stop.saved is None else f"saved step {stop.saved}"
        again = ["eejax", "run", args.config, "--workdir", str(root), "--resume", *args.overrides]
        if is_first():
            complain(f"{stop}; {saved}; go on with: {shlex.join(again)}")
        return 128 + stop.signum
    return 0


def data(args: argparse.Namespace) -> int:
    """Lists, prepares, imports or partitions data sets."""
    from eejax import data

    console = Console(highlight=False)
    if args.action == "list":
        console.print(data.list_datasets(args.data_dir))
    elif args.action == "prepare":
        console.print(data.prepare(args.name, args.data_dir))
    elif args.action == "partition":
        console.print(_partition_data(args))
    else:
        console.print(data.import_set(args.name, args.directory, args.data_dir))
    return 0


def _partition_data(args: argparse.Namespace) -> str:
    from eejax import data

    if args.plot and args.plot.suffix not in _PICTURES:
        raise ValueError(f"--plot must end in one of {', '.join(_PICTURES)}, got {args.plot}")
    source = data.load(args.name, args.split, args.data_dir)
    made = data.make_partition(
        args.partitioner, source.labels, args.clients, args.seed, source.groups, args.features
    )
    sizes, written = [len(row) for row in made.indices], []
    if args.out:
        data.save_partition(args.out, made)
        written.append(args.out)
    if args.plot:
        counts = data.label_distribution(source.labels, made.indices, len(source.info.classes))
        axes = data.plot_label_distribution(counts, source.info.classes)
        axes.set_title(f"{args.name}, {args.partitioner}, seed {args.seed}")
        axes.figure.savefig(args.plot)
        written.append(args.plot)
    about = (
        f"{args.name}, {args.split}, by {args.partitioner}, seed {args.seed}: {len(sizes)} clients "
        f"of {min(sizes):,} to {max(sizes):,} samples, {sum(sizes):,} in all"
    )
    return "\n".join([about, *(f"written: {path}" for path in written)])


def report(args: argparse.Namespace) -> int:
    """Writes the report of a run again."""
    if not args.run_dir.is_dir():
        raise FileNotFoundError(f"no run folder {str(args.run_dir)!r}")
    from eejax.experiment.report import write_report

    print(write_report(args.run_dir))
    return 0


def launch(args: argparse.Namespace) -> int:
    """Runs a command in several processes."""
    from eejax.experiment.launch import launch

    command = args.command_line[1:] if args.command_line[:1] == ["--"] else args.command_line
    return launch(
        command,
        args.processes,
        devices_per_process=args.devices_per_process,
        restarts=args.restarts,
        elastic=args.elastic,
        deadline_s=args.deadline,
    )


def parallel(args: argparse.Namespace) -> int:
    """Plans or inspects parallel training."""
    from eejax.experiment.config import load_config
    from eejax.experiment.runs import parallel
    from eejax.experiment.runs.parallel.show import show_inspection, show_plan

    config, _ = load_config(args.config, args.overrides)
    if not isinstance(config, parallel.Parallel):
        raise ValueError(f"{args.config} is no config of parallel training; see configs/parallel")
    console = Console(highlight=False)
    if args.view == "plan":
        show_plan(console, parallel.plan_layouts(config), args.most, args.json)
    else:
        show_inspection(console, parallel.inspect_step(config), config, args.json, args.picture)
    return 0


def partition(args: argparse.Namespace) -> int:
    """Plans where to cut a model."""
    from dataclasses import asdict

    from eejax.experiment.report import print_report, to_html
    from eejax.experiment.runs.partition import Partition, planned
    from eejax.experiment.workdir import finite

    _import_from_here()
    names = ("model", "topology", "objective", "solver", "granularity", "input", "features", "side",
             "measured_on")  # fmt: skip
    config = Partition(**{name: getattr(args, name) for name in names})
    summary, report = planned(config)
    if args.html is not None:
        args.html.write_text(to_html(report, asdict(config)), encoding="utf-8")
    if args.json:
        print(json.dumps(finite(summary), indent=2))
        return 0
    console = Console(highlight=False)
    print_report(console, report)
    if args.html is not None:
        console.print(f"\npage: {args.html}", markup=False)
    return 0


def profile(args: argparse.Namespace) -> int:
    """Measures this machine, or a model on it."""
    console = Console(highlight=False)
    if args.model == "device":
        from eejax.partition import measure_device, write_device

        if args.idle_w is None or args.busy_w is None:
            raise ValueError("--idle-w and --busy-w are missing: power cannot be measured here")
        suffix = args.out.suffix if args.out else ".toml"
        if suffix not in (".toml", ".json"):
            raise ValueError(f"--out of a device must end in .toml or .json, got {args.out}")
        device = measure_device(
            args.name, idle_w=args.idle_w, busy_w=args.busy_w, repeats=args.repeats
        )
        for name, value in vars(device).items():
            console.print(f"{name} = {value if isinstance(value, str) else f'{value:.4g}'}",
                          markup=False)  # fmt: skip
        if args.out is not None:
            write_device(device, args.out)
        return 0

    from eejax.experiment.runs.partition import Partition, measured_tables, profile_model
    from eejax.experiment.tables import table_rich

    _import_from_here()
    if args.out is not None and args.out.suffix != ".json":
        raise ValueError(f"--out of a profile must end in .json, got {args.out}")
    config = Partition(
        model=args.model, granularity=args.granularity, input=args.input, side=args.side
    )
    measured = profile_model(config, args.name, args.repeats)
    for number, table in enumerate(measured_tables(measured), 1):
        console.print(table_rich(table, number, console))
    if args.out is not None:
        args.out.write_text(json.dumps(measured.profile, indent=2) + "\n", encoding="utf-8")
    return 0


def _import_from_here() -> None:
    """Lets module:function be in the working directory, as for ``python -m``."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def methods(args: argparse.Namespace) -> int:
    """Lists what each room offers."""
    table = Table("room", "name", "what it is", "reference")
    for room in (r for r in ROOMS if args.room in (None, r, r.partition(".")[0])):
        module = importlib.import_module(f"eejax.{room}")
        for name in getattr(module, "__all__", ()):
            function = getattr(module, name)
            if inspect.isfunction(function):
                text = inspect.getdoc(function) or ""
                table.add_row(room, name, escape(text.partition("\n")[0]), escape(_paper(text)))
        if room == "models":
            for name in module.zoo.NAMES:
                net = module.zoo.model(name)
                size = f"{net.published_parameters:,} parameters, input {net.example.shape}"
                table.add_row("models.zoo", name, f"Network: {size}.", escape(net.source))
    Console(highlight=False).print(table)
    return 0


def _paper(docstring: str) -> str:
    """Finds the section ``References:`` of a docstring, as one line."""
    found = re.search(r"^References:\n((?:[ \t]+\S.*\n?|\n)+)", docstring, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""
