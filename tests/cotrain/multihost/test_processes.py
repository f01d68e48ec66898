import os
import subprocess
import sys

import jax
import pytest

from eejax.cotrain.multihost import end_on_error, initialize_from_env

PLACE = {
    "EEJAX_PROCESSES": "2",
    "EEJAX_PROCESS_ID": "1",
    "EEJAX_COORDINATOR": "127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EEJAX_PROCESSES", "two", "EEJAX_PROCESSES must be a whole number >= 1, is 'two'"),
        ("EEJAX_PROCESSES", "AUTO", "EEJAX_PROCESSES must be a whole number >= 1, is 'AUTO'"),
        ("EEJAX_PROCESSES", "0", "EEJAX_PROCESSES must be a whole number >= 1"),
        ("EEJAX_PROCESS_ID", None, "EEJAX_PROCESS_ID must be a whole number >= 0, is None"),
        ("EEJAX_PROCESS_ID", "2", "EEJAX_PROCESS_ID must be below EEJAX_PROCESSES=2, is 2"),
        ("EEJAX_COORDINATOR", None, "EEJAX_COORDINATOR must be host:port, is None"),
        ("EEJAX_COORDINATOR", "here:", "EEJAX_COORDINATOR must be host:port, is 'here:'"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value, message):
    for each, good in PLACE.items():
        monkeypatch.setenv(each, good)
    monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=message):
        initialize_from_env()


def script(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EEJAX_")}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("environment", [{}, {"EEJAX_PROCESSES": "auto"}])
def test_without_a_cluster_a_process_is_alone_and_errors_are_ordinary(environment):
    done = script(
        "from eejax.cotrain.multihost import *\n"
        "print(initialize_from_env(), any_process(True))\n"
        "try:\n"
        "  with end_on_error(): raise ValueError('as usual')\n"
        "except ValueError as error: print(error)\n",
        **environment,
    )
    assert (done.returncode, done.stdout) == (0, "False True\nas usual\n"), done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a bad batch"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(9), 9),
        (SystemExit("in words"), 1),
    ],
)
def test_an_error_among_peers_ends_the_process_at_once(monkeypatch, error, code):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with end_on_error():
        raise error
    assert left == [code]


def test_an_orderly_exit_among_peers_is_left_to_jax(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"left with {code}"))
    with pytest.raises(SystemExit), end_on_error():
        raise SystemExit(0)
