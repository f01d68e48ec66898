import json
import shlex
import subprocess
import sys
import types

import pytest

from eejax import data
from eejax.experiment import commands
from eejax.experiment.cli import main

SOURCE = '''
import dataclasses
import os
import signal


@dataclasses.dataclass
class Config:
    rounds: int = 3
    """Rounds between edge and cloud."""
    act: str = "finish"


def get_config(arg=None):
    if arg not in (None, "tiny"):
        raise ValueError(f"unknown argument {arg!r}; choose from tiny")
    return Config(rounds=1) if arg else Config()


def run(config, context):
    if config.act == "message":
        raise ValueError("topology has no [edge]")
    if config.act == "bug":
        int("not a number")
    if config.act == "library":
        import numpy
        numpy.zeros(3).reshape(2)
    if config.act == "missing":
        open("nowhere.toml")
    if config.act == "keyboard":
        raise KeyboardInterrupt
    if config.act in ("SIGTERM", "SIGINT"):
        os.kill(os.getpid(), getattr(signal, config.act))
        context.stop.check(saved=7)
    context.workdir.write_json("summary.json", {"rounds": config.rounds, "resume": context.resume})
    return {}
'''


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EEJAX_TRACEBACK", raising=False)
    path = tmp_path / "life cycle.py"
    path.write_text(SOURCE)
    return path.name


def summary(root):
    return json.loads((root / "summary.json").read_text())


def code(*argv):
    """Exit code, whether returned or raised."""
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code


def test_run_in_a_folder_of_its_own_and_resume_the_newest(config, tmp_path, capsys):
    assert code("run", config, "--config.rounds=5") == 0
    (root,) = (tmp_path / "runs" / "life_cycle").iterdir()
    assert summary(root) == {"rounds": 5, "resume": False}
    assert str(root.relative_to(tmp_path)) in capsys.readouterr().out
    assert code("run", config, "--resume", "--config.rounds=5") == 0
    assert summary(root) == {"rounds": 5, "resume": True}
    assert code("run", f"{config}:tiny") == 0
    assert len(list((tmp_path / "runs").glob("life_cycle*"))) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], "unknown argument 'rnu'; did you mean 'run'?"),
        (["data", "improt"], "unknown argument 'improt'; did you mean 'import'?"),
        (["methods", "cotrian"], "unknown argument 'cotrian'; did you mean 'cotrain'?"),
        (["methods", "cotrain", "--al"], "unknown argument '--al'"),
        (["run"], "CONFIG is missing, such as"),
        (["run", "@", "--resme"], "unknown argument '--resme'; did you mean '--resume'?"),
        (["run", "life.py"], "no config file 'life.py'; did you mean life cycle.py?"),
        (["run", "@:tinny"], "@:tinny: unknown argument 'tinny'; choose from tiny"),
        (["run", "@", "--config.ruonds=3"], "--config.rounds INT"),
        (["run", "@", "--config.rounds=x"], "invalid literal for int"),
        (["run", "@", "extra"], "Unrecognized options: extra"),
        (["run", "@", "--resume"], "no run in runs/life_cycle to resume"),
        (["run", "@", "--workdir", "."], "is not empty; add --resume"),
        (["run", "@", "--workdir", ".", "--resume"], "is no run folder"),
        (["run", "@", "--workdir", "@"], "is a file"),
        (["run", "@", "--config.act=message"], "eejax: topology has no [edge]"),
        (["run", "@", "--config.act=missing"], "No such file or directory: 'nowhere.toml'"),
        (["report", "nowhere"], "no run folder 'nowhere'"),
    ],
)
def test_what_the_user_can_put_right_is_a_line_and_code_2(config, capsys, argv, words):
    assert code(*(word.replace("@", config) for word in argv)) == 2
    error = capsys.readouterr().err
    assert words.replace("@", config) in error
    assert "Traceback" not in error


@pytest.mark.parametrize("act", ["bug", "library"])
def test_bugs_are_not_hidden(config, act):
    with pytest.raises(ValueError, match=r"invalid literal|cannot reshape"):
        main(["run", config, f"--config.act={act}"])


def test_the_source_of_a_message_can_be_seen(config, monkeypatch):
    monkeypatch.setenv("EEJAX_TRACEBACK", "1")
    with pytest.raises(ValueError, match="topology has no"):
        main(["run", config, "--config.act=message"])


@pytest.mark.parametrize(("act", "expected"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stopped_run_says_how_to_go_on(config, tmp_path, capsys, act, expected):
    argv = ["run", config, "--workdir", "run 1", f"--config.act={act}"]
    assert code(*argv) == expected
    error = capsys.readouterr().err.strip()
    start, _, command = error.partition("; go on with: ")
    assert start == f"eejax: stopped by {act}; saved step 7"
    assert shlex.split(command) == ["eejax", *argv[:-1], "--resume", argv[-1]]
    # The command is accepted: same folder, same fields.
    assert code(*shlex.split(command)[1:]) == expected


def test_ctrl_c_outside_of_a_safe_point(config, capsys):
    assert code("run", config, "--config.act=keyboard") == 130
    assert "interrupted" in capsys.readouterr().err


def test_resume_refuses_a_changed_config(config, capsys):
    assert code("run", config, "--workdir", "r") == 0
    assert code("run", config, "--workdir", "r", "--resume", "--config.rounds=9") == 2
    assert "rounds was 3 and is 9" in capsys.readouterr().err


def test_help_of_the_program_and_of_a_config(config, capsys):
    assert code("--help") == 0
    assert "examples:" in capsys.readouterr().out
    assert code("run", "--help") == 0
    assert "--workdir DIR" in capsys.readouterr().out
    assert code("run", f"{config}:tiny", "--help") == 0
    text = capsys.readouterr().out
    assert "--workdir DIR" in text
    assert "Rounds between edge and cloud. (default: 1)" in text


def test_help_does_not_load_jax():
    program = (
        "import sys; from eejax.experiment.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE).returncode == 0


def test_report_prints_where_it_is(tmp_path, monkeypatch, capsys):
    fake = types.ModuleType("eejax.experiment.report")
    fake.write_report = lambda run_dir: run_dir / "report.html"
    monkeypatch.setitem(sys.modules, "eejax.experiment.report", fake)
    assert code("report", str(tmp_path)) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")


def ewc(strength):
    """Keeps weights near the old ones [params].

    References:
      Kirkpatrick et al, `Overcoming catastrophic
      forgetting`, 2017.

    Returns:
      A Continual.
    """


def test_methods_lists_functions_with_their_papers(monkeypatch, capsys):
    room = types.ModuleType("eejax.coupdate")
    room.ewc, room.Ewc, room.__all__ = ewc, type, ["ewc", "Ewc"]
    monkeypatch.setitem(sys.modules, "eejax.coupdate", room)
    monkeypatch.setenv("COLUMNS", "150")
    assert code("methods", "coupdate") == 0
    text = capsys.readouterr().out
    assert "Keeps weights near the old ones [params]." in text
    assert "Kirkpatrick et al, `Overcoming catastrophic forgetting`, 2017." in text
    assert "Ewc" not in text


def test_a_method_without_a_paper_has_an_empty_reference():
    assert commands._paper("One line.\n\nReturns:\n  x") == ""


def test_a_run_cannot_lose_processes(config, monkeypatch, capsys):
    monkeypatch.setenv("EEJAX_PROCESSES", "2")
    monkeypatch.setenv("EEJAX_ELASTIC", "1")
    assert code("run", config) == 2
    assert "`eejax run` cannot go on with fewer processes" in capsys.readouterr().err


def test_launch_starts_processes_and_gives_their_exit_code(capfd):
    program = "import os, sys; print(os.environ['EEJAX_PROCESS_ID']); sys.exit(3)"
    code = main(
        ["launch", "--processes", "1", "--deadline", "60", "--", sys.executable, "-c", program]
    )
    assert code == 3
    assert "[0] 0" in capfd.readouterr().out
    assert main(["launch", "--processes", "0", "--", "true"]) == 2
    assert "processes" in capfd.readouterr().err


MODELS = """
import jax
import jax.numpy as jnp


def mlp():
    def apply(params, x):
        for w in params.values():
            x = jnp.tanh(x @ w)
        return x

    params = {f"layer{i}": jax.ShapeDtypeStruct((64, 64), "float32") for i in range(6)}
    return apply, params, jnp.ones((1, 64))
"""


def test_partition_prints_tables_or_json_and_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ("--model", "squeezenet1_1", "--granularity", "block", "--solver", "exact")
    chain = ("--topology", "phone,wifi,cloud_gpu")
    assert code("partition", *model, *chain, "--html", "plan.html") == 0
    out = capsys.readouterr().out
    for words in ("Where the time goes", "all-cloud", "Where the best placement changes"):
        assert words in out
    assert (tmp_path / "plan.html").read_text().count("<svg") == 3
    assert code("partition", *model, *chain, "--json", "--features", "int8") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["granularity"].startswith("block of")
    (plan,) = found["plans"]
    assert plan.keys() >= {"solver", "assignment", "latency_s", "energy_j", "bytes", "solve_s"}
    assert set(found["baselines"]) == {"all-end", "all-cloud"}
    assert code("partition", "--model", "resnet18", "--objective", "latnecy") == 2
    assert "did you mean 'latency'" in capsys.readouterr().err
    assert code("partition", "--model", "nowhere:mlp") == 2
    assert "there is no module 'nowhere'" in capsys.readouterr().err
    assert code("partition") == 2


def test_a_partition_of_data_is_a_picture_and_a_file_that_can_be_made_again(tmp_path, capsys):
    for name in ("a", "b"):
        assert main(["data", "partition", "digits", "dirichlet:0.3", "--clients", "5", "--split",
                     "train[:100]", "--out", str(tmp_path / f"{name}.json"), "--plot",
                     str(tmp_path / f"{name}.svg"), "--features", "rotation:45"]) == 0  # fmt: skip
        assert "5 clients of" in capsys.readouterr().out
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "<svg" in (tmp_path / "a.svg").read_text()
    made = data.load_partition(tmp_path / "a.json", data.load("digits", "train[:100]").labels)
    assert (len(made.indices), made.features) == (5, "rotation:45")
    assert main(["data", "partition", "digits", "iid", "--plot", "clients.xyz"]) == 2
    assert "--plot must end in one of .png, .svg, .pdf, got clients.xyz" in capsys.readouterr().err


def test_a_profile_of_this_machine_plans(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "zoo_of_mine.py").write_text(MODELS)
    profile = ("profile", "zoo_of_mine:mlp", "--repeats", "2")
    assert code(*profile, "--out", "mlp.json", "--name", "bench") == 0
    assert "sum / one program" in capsys.readouterr().out
    data = json.loads((tmp_path / "mlp.json").read_text())
    assert [row["name"] for row in data["layers"]] == [f"layer{i}" for i in range(6)]
    assert all(row["seconds"]["bench"] > 0 for row in data["layers"])
    assert code("partition", "--model", "mlp.json", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "a roofline fitted to these layers" in found["costs"]
    assert found["baselines"]["all-end"]["latency_s"] > 0
    assert code("partition", "--model", "mlp.json", "--measured-on", "phone") == 0
    assert "scaled by rooflines from bench" in " ".join(capsys.readouterr().out.split())
    assert code("partition", "--model", "mlp.json", "--measured-on", "phon") == 2
    assert "did you mean 'phone'" in capsys.readouterr().err
    assert code(*profile, "--out", "mlp.toml") == 2
    assert "must end in .json" in capsys.readouterr().err
    assert code(*profile, "--granularity", "block", "--input", "uint9") == 2
    assert "did you mean 'uint8'" in capsys.readouterr().err
    assert code("profile", "net.onnx") == 2
    assert "nothing can be run" in capsys.readouterr().err


def test_a_profiled_device_stands_in_a_topology(tmp_path, monkeypatch, capsys):
    import importlib

    measure = importlib.import_module("eejax.partition.measure")
    monkeypatch.setattr(measure, "_SIDE", 64)
    monkeypatch.setattr(measure, "_SWEEP", 2**16)
    monkeypatch.chdir(tmp_path)
    device = ("profile", "device", "--idle-w", "5", "--busy-w", "20", "--repeats", "2")
    assert code(*device, "--name", "laptop", "--out", "laptop.toml") == 0
    assert "flops_per_s = " in capsys.readouterr().out
    model = ("partition", "--model", "tiny_yolov2", "--solver", "exact", "--json")
    assert code(*model, "--topology", "laptop.toml,wifi,cloud_gpu") == 0
    assert json.loads(capsys.readouterr().out)["plans"]
    assert code("profile", "device") == 2
    assert "--idle-w and --busy-w are missing" in capsys.readouterr().err
    assert code(*device, "--out", "laptop.txt") == 2
    assert "must end in .toml or .json" in capsys.readouterr().err


def test_methods_lists_the_networks_of_the_zoo(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert code("methods", "models") == 0
    out = capsys.readouterr().out
    assert "resnet18" in out
    assert "11,689,512 parameters" in out
