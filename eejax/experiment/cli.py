"""The command line ``eejax``.

Whatever the user can put right (a misspelt field, missing data, a folder in use) is one line on
standard error and exit code 2; an error inside eejax is a traceback and exit code 1. A run stopped
by a signal exits with 128 plus its number, as shells expect.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from eejax.experiment import commands
from eejax.experiment.threads import spare_threads
from eejax.experiment.user_errors import answer, complain, unknown_argument

COMMANDS = {
    "run": (),
    "data": ("list", "prepare", "import", "partition"),
    "report": (),
    "methods": (*commands.ROOMS, "cotrain"),
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
  eejax data partition digits dirichlet:0.3 --plot clients.png --out clients.json
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
    if args.overrides and args.command not in (commands.run, commands.parallel):
        parser.error(f"unknown argument {args.overrides[0]!r}")
    devices = os.environ.get("JAX_NUM_CPU_DEVICES", "")
    spare_threads(int(devices) if devices.isdigit() else 1)
    try:
        return args.command(args)
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return answer(error)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="eejax",
        description="End-edge-cloud collaborative deep learning in JAX.",
        epilog=EXAMPLES + "\nEEJAX_TRACEBACK=1 shows where an error message comes from.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable, text: str, **kwargs) -> argparse.ArgumentParser:
        sub = choices.add_parser(
            name, help=text, description=text, formatter_class=formatter, allow_abbrev=False,
            **kwargs,
        )  # fmt: skip
        sub.set_defaults(command=command)
        return sub

    run = add(
        "run",
        commands.run,
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

    data = add("data", commands.data, "Lists, prepares, imports or partitions data sets.")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of data sets")
    actions.add_parser("list", parents=[place], help="data sets that can be loaded now")
    prepare = actions.add_parser("prepare", parents=[place], help="download and prepare with TFDS")
    prepare.add_argument("name", metavar="NAME", help="TFDS name, such as fashion_mnist")
    imports = actions.add_parser(
        "import", parents=[place], help="take in files: IDX, har, watch or 20newsgroups"
    )
    imports.add_argument("name", metavar="NAME", help="name to load the set by")
    imports.add_argument("directory", type=Path, metavar="PATH", help="their folder or archive")

    spread = actions.add_parser("partition", parents=[place], help="spread samples over clients")
    spread.add_argument("name", metavar="NAME", help="data set")
    spread.add_argument("partitioner", metavar="PARTITIONER",
                        help="such as dirichlet:0.5, shards:2, classes:2 or natural")  # fmt: skip
    spread.add_argument("--clients", type=int, default=10, metavar="N", help="how many (10)")
    spread.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    spread.add_argument("--split", default="train", metavar="SPLIT", help="such as train[:1000]")
    spread.add_argument("--features", default="", metavar="SKEW",
                        help="feature skew to note, such as rotation:45")  # fmt: skip
    spread.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON file, reproducible to the bit"
    )
    spread.add_argument("--plot", type=Path, metavar="FILE", help="picture, such as clients.png")

    report = add("report", commands.report, "Writes report.html of a run again.")
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")

    methods = add("methods", commands.methods, "Lists what each room offers, with its paper.")
    methods.add_argument("room", metavar="ROOM", nargs="?", choices=COMMANDS["methods"],
                         help=", ".join(commands.ROOMS))  # fmt: skip

    launch = add(
        "launch",
        commands.launch,
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

    parallel = add("parallel", commands.parallel, "Plans and inspects parallel training.")
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
        commands.partition,
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
        commands.profile,
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


def _suggest(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Names the nearest command for a misspelt one, which argparse does not."""
    if argv and not argv[0].startswith("-"):
        if argv[0] not in COMMANDS:
            unknown_argument(parser, argv[0], list(COMMANDS))
        choices = COMMANDS[argv[0]]
        if choices and argv[1:] and not argv[1].startswith("-") and argv[1] not in choices:
            unknown_argument(parser, argv[1], choices)


if __name__ == "__main__":
    sys.exit(main())
