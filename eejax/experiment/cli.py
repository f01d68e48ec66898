"""The command line ``eejax``.

Whatever the user can put right (a misspelt field, missing data, a folder in use) is one line on
standard error and exit code 2; an error inside eejax is a traceback and exit code 1. A run stopped
by a signal exits with 128 plus its number, as shells expect.
"""

import argparse
import dis
import importlib
import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eejax.names import suggest

ROOMS = (
    "tiers", "wire", "models", "data", "partition", "transfer", "cotrain.federated",
    "cotrain.tensor", "cotrain.pipeline", "cotrain.replica", "cotrain.multihost", "coinfer",
    "coupdate",
)  # fmt: skip

COMMANDS = {
    "run": (),
    "data": ("list", "prepare", "import"),
    "report": (),
    "methods": (*ROOMS, "cotrain"),
    "launch": (),
    "parallel": ("plan", "inspect"),
    "partition": (),
    "profile": (),
}

EXAMPLES = """\
examples:
  eejax run configs/lifecycle_mnist.py:tiny          the whole life cycle in seconds
  eejax run configs/lifecycle_mnist.py --help        every field of a config
  eejax run configs/lifecycle_mnist.py --config.seed=1 --workdir runs/seed1
  eejax run configs/lifecycle_mnist.py --resume      goes on with the newest run
  eejax data import fashion_mnist ~/idx_files        files downloaded by hand
  eejax report runs/seed1                            writes report.html again
  eejax methods cotrain                              what there is to train with
  eejax parallel plan configs/parallel/language_model.py
  eejax partition --model resnet18 --topology wifi   where to cut it, by all solvers
  eejax partition --model net.onnx --topology phone,lte_4g,cloud_gpu --html plan.html
  eejax profile resnet18 --out resnet18.json         its layers, measured on this machine
  eejax launch --processes 2 --devices-per-process 4 -- \\
      eejax run configs/parallel/language_model.py   one run over two processes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: arguments; those of the process if None.

    Returns:
      The exit code.

    Raises:
      SystemExit: after ``--help``, and with code 2 for arguments that cannot be parsed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    _suggest(parser, argv)
    args, args.overrides = parser.parse_known_args(argv)
    if args.overrides and args.command not in (_run, _parallel):
        parser.error(f"unknown argument {args.overrides[0]!r}")
    try:
        return args.command(args)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _answer(error)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="eejax",
        description="End-edge-cloud collaborative deep learning in JAX.",
        epilog=EXAMPLES + "\nEEJAX_TRACEBACK=1 shows where an error message comes from.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable, text: str, **kwargs) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=formatter, allow_abbrev=False,
            **kwargs,
        )  # fmt: skip
        sub.set_defaults(command=command)
        return sub

    run = add(
        "run",
        _run,
        "Runs an experiment.",
        add_help=False,
        usage="eejax run [-h] CONFIG [--workdir DIR] [--resume] [--tensorboard] [--quiet]\n"
        "                 [--config.FIELD=VALUE ...]",
        epilog="`eejax run CONFIG --help` lists the fields of a config.\n"
        "After a kill, `--resume` with the same CONFIG and fields ends bit-identical\n"
        "to an unbroken run.\n"
        "On every host of a TPU pod or cluster, EEJAX_PROCESSES=auto makes them one run.",
    )
    run.add_argument("config", metavar="CONFIG", nargs="?", help="path/x.py, or path/x.py:tiny")
    run.add_argument("--workdir", type=Path, metavar="DIR",
                     help="run folder (default: runs/<config>/<date and time>)")  # fmt: skip
    run.add_argument("--resume", action="store_true",
                     help="go on with the run in DIR, or with the newest of CONFIG")  # fmt: skip
    run.add_argument("--tensorboard", action="store_true", help="write TensorBoard events too")
    run.add_argument("--quiet", action="store_true", help="show no progress")
    run.add_argument("-h", "--help", action="store_true", dest="help",
                     help="show this help, and with a CONFIG its fields")  # fmt: skip
    run.set_defaults(run_parser=run)

    data = add("data", _data, "Lists, prepares or imports data sets.")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of data sets")
    actions.add_parser("list", parents=[place], help="data sets that can be loaded now")
    prepare = actions.add_parser("prepare", parents=[place], help="download and prepare with TFDS")
    prepare.add_argument("name", metavar="NAME", help="TFDS name, such as fashion_mnist")
    imports = actions.add_parser("import", parents=[place], help="take in IDX files")
    imports.add_argument("name", metavar="NAME", help="name to load the set by")
    imports.add_argument("directory", type=Path, metavar="DIR", help="folder of the four files")

    report = add("report", _report, "Writes report.html of a run again.")
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")

    methods = add("methods", _methods, "Lists what each room offers, with its paper.")
    methods.add_argument("room", metavar="ROOM", nargs="?", choices=COMMANDS["methods"],
                         help=", ".join(ROOMS))  # fmt: skip

    launch = add(
        "launch",
        _launch,
        "Runs a command in several local CPU processes, and ends all when one fails.",
        usage="eejax launch --processes N [--devices-per-process K] [--restarts R]\n"
        "                    [--elastic] [--deadline SECONDS] -- COMMAND ...",
        epilog="The command is `eejax run CONFIG`, or a program that joins its peers by\n"
        "eejax.cotrain.multihost.initialize_from_env, such as\n"
        "`python -m eejax.experiment.runs.multihost_digits --help` does.",
    )
    launch.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    launch.add_argument("--devices-per-process", type=int, default=1, metavar="K",
                        help="CPU devices of each (default: 1)")  # fmt: skip
    launch.add_argument("--restarts", type=int, default=0, metavar="R",
                        help="how often to start all again after a failure")  # fmt: skip
    launch.add_argument("--elastic", action="store_true",
                        help="experimental: go on without killed processes")  # fmt: skip
    launch.add_argument("--deadline", type=float, metavar="SECONDS", help="for the whole run")
    launch.add_argument("command_line", nargs=argparse.REMAINDER, metavar="COMMAND",
                        help="program and arguments, after --")  # fmt: skip

    parallel = add("parallel", _parallel, "Plans and inspects parallel training.")
    views = parallel.add_subparsers(dest="view", metavar="ACTION", required=True)
    for view, text in (
        ("plan", "which layouts the devices allow, with modelled time, bytes and memory"),
        ("inspect", "what the compiled step sends and holds, and who waits for whom"),
    ):
        sub = views.add_parser(view, help=text, description=f"Tells {text}.", allow_abbrev=False)
        sub.add_argument("config", metavar="CONFIG", help="such as configs/parallel/x.py:tiny")
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        if view == "plan":
            sub.add_argument("--most", type=int, default=12, metavar="N", help="layouts to show")
        else:
            sub.add_argument("--picture", type=Path, metavar="FILE",
                             help="draw the schedule, as .png or .svg")  # fmt: skip
    _add_partition(add)
    return parser


def _add_partition(add: Callable[..., argparse.ArgumentParser]) -> None:
    models = "name of `eejax methods models`, or module:function, which gives (apply, params, x)"
    plan = add(
        "partition",
        _partition,
        "Plans where to cut a model between tiers.",
        epilog="Costs are modelled: FLOP and bytes of the layers on rooflines of the devices, or\n"
        "the seconds of a profile. `eejax methods partition` lists what else there is.",
    )
    plan.add_argument("--model", required=True, help=f"x.onnx, a profile x.json, {models}")
    plan.add_argument("--topology", default="wifi", metavar="SYSTEM",
                      help="preset of the link of end devices, x.toml, or a chain such as "
                      "phone,wifi,edge_server,wan,cloud_gpu (default: wifi)")  # fmt: skip
    plan.add_argument("--objective", default="latency", metavar="NAME",
                      help="latency, worst_latency, energy, end_energy, money, bytes or pipeline "
                      "(default: latency)")  # fmt: skip
    plan.add_argument("--solver", default="all", metavar="NAME", help="a solver (default: all)")
    plan.add_argument("--features", default="float32", metavar="DTYPE",
                      help="of what crosses links, by its bytes: float32, bf16, int8")  # fmt: skip
    plan.add_argument("--measured-on", default="", metavar="DEVICE",
                      help="device of a profile: preset or file (default: fitted)")  # fmt: skip
    plan.add_argument("--json", action="store_true", help="print JSON instead of tables")
    plan.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures")

    profile = add(
        "profile",
        _profile,
        "Measures this machine, or the layers of a model on it.",
        usage="eejax profile device --idle-w W --busy-w W [--name NAME] [--out FILE]\n"
        "       eejax profile MODEL [--name NAME] [--out FILE] [--granularity WHAT]",
        epilog='A device file stands in a topology as `device = {file = "laptop.toml"}`.',
    )
    profile.add_argument("model", metavar="MODEL", help=f"device, or a {models}")
    profile.add_argument("--name", default="this_machine", help="of this machine")
    profile.add_argument("--idle-w", type=float, metavar="W", help="its power at rest, for device")
    profile.add_argument("--busy-w", type=float, metavar="W", help="its power under full load")
    profile.add_argument("--out", type=Path, metavar="FILE",
                         help="x.toml or x.json for device, x.json for a model")  # fmt: skip
    profile.add_argument("--repeats", type=int, default=20, metavar="N",
                         help="timed rounds (default: 20)")  # fmt: skip
    for sub in (plan, profile):
        sub.add_argument("--granularity", default="operator", metavar="WHAT",
                         help="a layer: operator, layer (ONNX), block, depth:K")  # fmt: skip
        sub.add_argument("--input", default="uint8", metavar="DTYPE",
                         help="of raw images: uint8 or float32 (default: uint8)")  # fmt: skip
        sub.add_argument("--side", type=int, default=0, metavar="PIXELS",
                         help="of images of the zoo (default: as published)")  # fmt: skip


def _run(args: argparse.Namespace) -> int:
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
                _unknown(args.run_parser, word, options)

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
            sys.exit(_answer(error))


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
            _complain(f"{stop}; {saved}; go on with: {shlex.join(again)}")
        return 128 + stop.signum
    return 0


def _data(args: argparse.Namespace) -> int:
    from eejax import data

    console = Console(highlight=False)
    if args.action == "list":
        console.print(data.list_datasets(args.data_dir))
    elif args.action == "prepare":
        console.print(data.prepare(args.name, args.data_dir))
    else:
        console.print(data.import_idx(args.name, args.directory, args.data_dir))
    return 0


def _report(args: argparse.Namespace) -> int:
    if not args.run_dir.is_dir():
        raise FileNotFoundError(f"no run folder {str(args.run_dir)!r}")
    from eejax.experiment.report import write_report

    print(write_report(args.run_dir))
    return 0


def _launch(args: argparse.Namespace) -> int:
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


def _parallel(args: argparse.Namespace) -> int:
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


def _partition(args: argparse.Namespace) -> int:
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


def _profile(args: argparse.Namespace) -> int:
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


def _methods(args: argparse.Namespace) -> int:
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


def _answer(error: Exception) -> int:
    """Tells the user what to put right, and gives the exit code; raises what is a bug."""
    if os.environ.get("EEJAX_TRACEBACK") == "1" or not _is_for_user(error):
        raise error
    _complain(str(error))
    return 2


def _is_for_user(error: Exception) -> bool:
    """Tells a message to the user from a bug.

    An error of the file system is the user's, and so is one that eejax or a config file raises by
    a ``raise`` statement of its own. A ValueError that comes out of a library is a bug.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | ImportError):
        return False
    innermost = error.__traceback__
    while innermost.tb_next:
        innermost = innermost.tb_next
    frame = innermost.tb_frame
    ours = frame.f_globals.get("__name__", "").startswith(("eejax.", "eejax_config_"))
    return ours and frame.f_code.co_code[innermost.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _suggest(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Names the nearest command for a misspelt one, which argparse does not."""
    if argv and not argv[0].startswith("-"):
        if argv[0] not in COMMANDS:
            _unknown(parser, argv[0], list(COMMANDS))
        choices = COMMANDS[argv[0]]
        if choices and argv[1:] and not argv[1].startswith("-") and argv[1] not in choices:
            _unknown(parser, argv[1], choices)


def _unknown(parser: argparse.ArgumentParser, word: str, choices: Sequence[str]) -> None:
    hint = suggest(word.partition("=")[0], choices) or f"; choose from {', '.join(choices)}"
    parser.error(f"unknown argument {word!r}{hint}")


def _complain(message: str) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]eejax:[/] {escape(message)}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
