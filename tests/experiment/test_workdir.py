import json
import math
import os
import subprocess
import sys

import pytest

from eejax.experiment import workdir
from eejax.experiment.workdir import RunDir, launched_root, new_root, newest_root, open_run_dir


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("name", ["", ".", "/etc/x", "../x", "a/../../x", "a/.."])
def test_paths_that_leave_the_folder_are_refused(run, name):
    with pytest.raises(ValueError, match=r"must be a relative path without '\.\.'"):
        run.path(name)


def test_links_that_leave_the_folder_are_refused(run, tmp_path):
    (run.root / "out").symlink_to(tmp_path)
    (run.root / "summary.json").symlink_to(tmp_path / "victim")
    for name in ("out", "out/x", "summary.json"):
        with pytest.raises(ValueError, match="leads out of the run folder"):
            run.write_text(name, "x")
    assert os.listdir(tmp_path) == ["run"]


def test_a_run_folder_behind_a_link_works(run, tmp_path):
    (tmp_path / "alias").symlink_to(run.root)
    with open_run_dir(tmp_path / "alias", resume=True) as alias:
        alias.write_text("plots/a.txt", "x")
    assert (run.root / "plots" / "a.txt").read_text() == "x"


def test_a_killed_write_leaves_the_old_file(run, monkeypatch):
    run.write_json("summary.json", {"accuracy": 0.5})

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(workdir, "replace_durable", crash)
    with pytest.raises(KeyboardInterrupt):
        run.write_json("summary.json", {"accuracy": 0.9})
    assert json.loads((run.root / "summary.json").read_text()) == {"accuracy": 0.5}
    monkeypatch.undo()
    run.write_json("summary.json", {"accuracy": 0.9, "spread": math.nan})
    assert json.loads((run.root / "summary.json").read_text()) == {"accuracy": 0.9, "spread": None}
    assert os.listdir(run.root) == ["summary.json"]


def test_a_fresh_run_needs_an_empty_folder(tmp_path):
    with open_run_dir(tmp_path / "a" / "b") as run:
        run.write_text("x", "")
    with (
        pytest.raises(FileExistsError, match=r"not empty; add --resume .* --workdir"),
        open_run_dir(run.root),
    ):
        pass
    with open_run_dir(run.root, resume=True):
        pass
    with (
        pytest.raises(FileExistsError, match="is a file"),
        open_run_dir(run.root / "x", resume=True),
    ):
        pass


def test_a_killed_start_does_not_block_the_folder(tmp_path):
    with open_run_dir(tmp_path):
        pass
    assert os.listdir(tmp_path) == [workdir.LOCK]
    with open_run_dir(tmp_path):
        pass


def test_only_one_process_writes(tmp_path):
    program = (
        "import sys; from eejax.experiment.workdir import open_run_dir\n"
        "with open_run_dir(sys.argv[1], resume=True): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with other:
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(BlockingIOError, match="another process is writing in run folder"),
            open_run_dir(tmp_path, resume=True),
        ):
            pass
        other.kill()
    with open_run_dir(tmp_path, resume=True):
        pass


def test_a_restarted_run_has_the_folder_of_its_launch(tmp_path, monkeypatch):
    monkeypatch.delenv("EEJAX_STARTED", raising=False)
    assert launched_root("lifecycle", tmp_path).parent == tmp_path / "lifecycle"
    monkeypatch.setenv("EEJAX_STARTED", "2026-01-02_03-04-05_77")
    for _ in range(2):
        root = launched_root("lifecycle", tmp_path)
        assert root == tmp_path / "lifecycle" / "2026-01-02_03-04-05_77"
        root.mkdir(parents=True, exist_ok=True)


def test_new_and_newest_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*lifecycle to resume"):
        newest_root("lifecycle", tmp_path)
    roots = []
    for _ in range(3):
        roots.append(new_root("lifecycle", tmp_path))
        roots[-1].mkdir(parents=True)
    assert len(set(roots)) == 3
    assert newest_root("lifecycle", tmp_path) == roots[-1]
