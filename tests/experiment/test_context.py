import dataclasses
import json

import pytest

from eejax.experiment.context import open_context


@dataclasses.dataclass
class Config:
    rounds: int = 3


def test_the_config_is_stored_and_compared(tmp_path):
    with open_context(Config(), tmp_path / "run", quiet=True) as context:
        assert not context.resume
        assert context.stop.requested() is None
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"rounds": 3}
    with open_context(Config(), tmp_path / "run", resume=True) as context:
        assert context.resume
    with (
        pytest.raises(ValueError, match="rounds was 3 and is 4"),
        open_context(Config(4), tmp_path / "run", resume=True),
    ):
        pass


def test_resuming_before_anything_was_written_starts_anew(tmp_path, capsys):
    for root in (tmp_path / "missing", tmp_path):
        (tmp_path / ".tmp-config.json").write_text("{")
        if root == tmp_path:
            (tmp_path / "missing" / "config.json").unlink()
            (tmp_path / "missing" / ".lock").unlink()
            (tmp_path / "missing").rmdir()
        with open_context(Config(), root, resume=True):
            assert (root / "config.json").exists()
        assert "starting anew" in capsys.readouterr().out


def test_another_folder_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with (
        pytest.raises(ValueError, match=r"is no run folder: it has no config\.json"),
        open_context(Config(), tmp_path, resume=True),
    ):
        pass
