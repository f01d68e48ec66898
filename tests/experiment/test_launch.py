"""The launcher with workers that do not use JAX: what it sets, watches, ends and restarts."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from eejax.experiment.launch import ATTEMPT, launch

DEADLINE_S, ALARM_S = 30, 60


def run(code, processes=2, **options):
    lines = []
    options = {"deadline_s": DEADLINE_S, "write": lines.append} | options
    return launch([sys.executable, "-c", code], processes, **options), "".join(lines)


def alive(pid):
    try:
        # A zombie is dead, too.
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, seconds=10):
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture(autouse=True)
def deadline():
    """Ends a test in which the launcher itself hangs."""

    def late(signum, frame):
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(ALARM_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")


def test_every_process_gets_its_place_and_a_prefix():
    names = ("EEJAX_PROCESS_ID", "EEJAX_PROCESSES", "EEJAX_COORDINATOR", "EEJAX_ATTEMPT",
             "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")  # fmt: skip
    code, out = run(
        f"import os, sys; print(*map(os.environ.get, {names})); print('[Gloo] Rank 0 hello');"
        "sys.stderr.write('last words without an end')",
        processes=3,
        devices_per_process=4,
    )
    assert code == 0
    lines = sorted(out.splitlines())
    said = [line for line in lines if "words" not in line]
    ports = {line.split()[3] for line in said}
    assert len(ports) == 1
    port = ports.pop()
    assert port.startswith("127.0.0.1:")
    assert said == [f"[{i}] {i} 3 {port} 0 cpu 4" for i in range(3)]
    assert [f"[{i}] last words without an end" in lines for i in range(3)] == [True] * 3


@needs_proc
def test_all_end_with_the_first_that_fails():
    began = time.monotonic()
    code, out = run(
        "import os, sys, time; print('pid', os.getpid());"
        "time.sleep(0.3); sys.exit(7) if os.environ['EEJAX_PROCESS_ID'] == '1' else time.sleep(60)",
        processes=3,
    )
    assert code == 7
    assert time.monotonic() - began < 10
    assert "launch: process 1 failed with exit code 7" in out
    pids = [int(line.split()[-1]) for line in out.splitlines() if " pid " in line]
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)


@needs_proc
def test_deaf_processes_and_their_children_are_killed():
    # The child ignores SIGTERM, and so does its own child, which holds the pipe.
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True);"
    code, out = run(
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {deaf + 'time.sleep(60)'!r}])\n"
        "print('pid', child.pid)\n"
        f"{deaf}\n"
        "time.sleep(1.5)\n"
        "os.kill(os.getpid(), 9) if os.environ['EEJAX_PROCESS_ID'] == '0' else time.sleep(60)",
        grace_s=0.3,
    )
    assert code == 128 + signal.SIGKILL
    assert "launch: process 0 was ended by SIGKILL" in out
    pid = next(int(line.split()[-1]) for line in out.splitlines() if line.startswith("[1] pid"))
    assert gone(pid)


def test_restarts_until_it_works():
    worker = f"import os, sys; print('try'); sys.exit(5 - int(os.environ['{ATTEMPT}']))"
    code, out = run(worker, processes=1, restarts=5)
    assert (code, out.count("[0] try")) == (0, 6)
    assert "launch: exit code 4; restart 2 of 5" in out
    code, out = run(worker, processes=1, restarts=2)
    assert (code, out.count("[0] try")) == (3, 3)


def test_all_attempts_of_a_launch_have_one_name():
    worker = (
        "import os, sys; print(os.environ['EEJAX_STARTED']);"
        f"sys.exit(os.environ['{ATTEMPT}'] == '0')"
    )
    code, out = run(worker, processes=1, restarts=1)
    said = [line.split()[1] for line in out.splitlines() if line.startswith("[0]")]
    assert (code, len(said), len(set(said))) == (0, 2, 1)
    assert said[0].endswith(f"_{os.getpid()}")


@pytest.mark.parametrize(
    ("process", "end", "expected", "ended"),
    [
        (1, "os.kill(os.getpid(), 9)", 0, 2),  # Killed: the others go on.
        (1, "sys.exit(3)", 3, 0),  # An error, which the others would meet, too.
        (0, "os.kill(os.getpid(), 9)", 128 + signal.SIGKILL, 0),  # The coordinator.
    ],
)
def test_elastic_processes_go_on_without_a_killed_one(process, end, expected, ended):
    code, out = run(
        "import os, sys, time; assert os.environ['EEJAX_ELASTIC'] == '1'\n"
        f"if os.environ['EEJAX_PROCESS_ID'] == '{process}': {end}\n"
        "time.sleep(1); print('the end')",
        processes=3,
        elastic=True,
    )
    assert (code, out.count("the end")) == (expected, ended), out
    assert ("launch: going on without it" in out) == (expected == 0)


def test_the_deadline_ends_all_and_is_not_restarted():
    began = time.monotonic()
    code, out = run("import time; time.sleep(60)", deadline_s=0.5, restarts=3)
    assert code == 124
    assert time.monotonic() - began < 10
    assert "restart" not in out


# Saves and leaves on the first signal, as a run does.
POLITE = """
import signal, sys, time
def handle(signum, frame):
    print('saving'); time.sleep(0.3); print('saved'); sys.exit(128 + signum)
for each in (2, 15): signal.signal(each, handle)
print('ready')
time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_and_not_restarted(signum):
    ready, lines = [], []

    def write(line):
        lines.append(line)
        ready.extend([1] * ("ready" in line))
        if len(ready) == 2:
            ready.append(1)
            os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    code, _ = run(POLITE, write=write, restarts=3)
    out = "".join(lines)
    assert code == 128 + signum
    assert out.count("] saved\n") == 2, out
    assert out.count("saving") == 2
    assert "restart" not in out
    assert signal.getsignal(signum) is before


def test_a_second_signal_kills():
    deaf = "import signal, time; signal.signal(2, lambda *_: print('no'));print('ready')"
    loop = "\nwhile True: time.sleep(1)"

    def write(line):
        if "ready" in line or "no" in line:
            os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    code, _ = run(deaf + loop, processes=1, write=write, grace_s=60)
    assert code == 128 + signal.SIGINT
    assert time.monotonic() - began < 20


@needs_proc
def test_workers_follow_a_killed_launcher():
    worker = (
        "import os, threading, time\n"
        "from eejax.cotrain.multihost import processes\n"
        "threading.Thread(target=processes._follow, args=(int(os.environ['EEJAX_LAUNCHER']),),"
        " daemon=True).start()\n"
        "print('pid', os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    script = (
        "import sys; from eejax.experiment.launch import launch;"
        f"launch([sys.executable, '-c', {worker!r}], 1)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(DEADLINE_S, launcher.kill)
    timer.start()
    with launcher.stdout as lines:
        pid = int(next(lines).split()[-1])
        assert alive(pid)
        launcher.kill()
        launcher.wait()
    timer.cancel()
    assert gone(pid)


def test_what_cannot_be_started_is_refused():
    with pytest.raises(FileNotFoundError, match="no_such_program"):
        launch(["no_such_program"], 2, deadline_s=5)
    for wrong, message in (
        ({"processes": 0}, "processes must be at least 1, is 0"),
        ({"devices_per_process": 0}, "devices_per_process must be at least 1"),
        ({"restarts": -1}, "restarts must be at least 0"),
        ({"deadline_s": 0}, "deadline_s must be above 0"),
        ({"command": "echo hello"}, "command must be a list"),
    ):
        with pytest.raises(ValueError, match=message):
            launch(**{"command": ["true"], "processes": 1} | wrong)
