import dataclasses
import json
import sys

import pytest

from eejax.experiment.config import check_same, config_name, load_config, to_json

SOURCE = '''
import dataclasses
from typing import Literal


@dataclasses.dataclass
class Sgd:
    rate: float = 0.1
    """Learning rate."""


@dataclasses.dataclass
class Config:
    rounds: int = 10
    """Rounds between edge and cloud."""
    widths: tuple[int, ...] = (8, 16)
    codec: Literal["identity", "cast"] = "identity"
    replay: bool = False
    name: str | None = None
    sgd: Sgd = dataclasses.field(default_factory=Sgd)


def get_config(arg=None):
    if arg not in (None, "tiny"):
        raise ValueError(f"unknown argument {arg!r}; choose from tiny")
    return Config(rounds=2) if arg else Config()


def run(config, context):
    return {"rounds": config.rounds}
'''


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lifecycle.py"
    path.write_text(SOURCE)
    return path


def test_loads_config_and_run(path):
    config, run = load_config(str(path))
    assert dataclasses.asdict(config)["sgd"] == {"rate": 0.1}
    assert run(config, None) == {"rounds": 10}
    assert load_config(f"{path}:tiny")[0].rounds == 2
    assert "lifecycle" not in sys.modules


def test_overrides_reach_every_kind_of_field(path):
    overrides = ["--config.rounds=3", "--config.sgd.rate=0.5", "--config.widths", "4", "2",
                 "--config.codec=cast", "--config.replay=True", "--config.name=None"]  # fmt: skip
    config, _ = load_config(f"{path}:tiny", overrides)
    assert (config.rounds, config.sgd.rate, config.widths) == (3, 0.5, (4, 2))
    assert (config.codec, config.replay, config.name) == ("cast", True, None)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.ruonds=3", ["--config.ruonds", "Perhaps you meant", "--config.rounds INT"]),
        ("--config.rounds=x", ["--config.rounds", "'x'", "Rounds between edge and cloud"]),
        ("--config.rounds=1.5", ["--config.rounds", "'1.5'"]),
        ("--config.codec=zip", ["'zip'", "'identity', 'cast'"]),
        ("--config.replay=maybe", ["--config.replay", "maybe"]),
        ("--config.sgd=1", ["--config.sgd=1"]),
    ],
)
def test_wrong_overrides_are_named_with_exit_code_2(path, capsys, override, words):
    with pytest.raises(SystemExit) as stop:
        load_config(str(path), [override])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error


def test_help_lists_fields_with_docs_and_present_defaults(path, capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(f"{path}:tiny", ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "Rounds between edge and cloud. (default: 2)" in text
    assert "--config.sgd.rate FLOAT" in text


def test_a_missing_file_names_the_nearest(path):
    with pytest.raises(FileNotFoundError, match=r"lifecylce.py'; did you mean .*lifecycle.py\?"):
        load_config(str(path.with_name("lifecylce.py")))
    with pytest.raises(FileNotFoundError, match=r"did you mean .*lifecycle.py\?"):
        load_config(str(path.with_suffix("")))
    with pytest.raises(FileNotFoundError, match="no config file"):
        load_config(str(path.parent / "nowhere" / "lifecycle.py"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "defines no function 'get_config'"),
        ("def get_config(arg=None): ...", "defines no function 'run'"),
        ("run = lambda config, context: {}\ndef get_config(arg=None): return {}", "no dataclass"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, source, message):
    path = tmp_path / "x.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message):
        load_config(str(path))
    with pytest.raises(ValueError, match=r"must end in \.py"):
        load_config(str(path.rename(tmp_path / "x.txt")))


def test_an_unknown_argument_shows_what_the_config_allows(path):
    with pytest.raises(ValueError, match=r"lifecycle.py:tinny: unknown .* choose from tiny"):
        load_config(f"{path}:tinny")


def test_names_are_safe_in_paths():
    assert config_name("a/b.py:../x y") == "b-.._x_y"


def test_json_keeps_order_and_comes_back(path):
    config, _ = load_config(str(path))
    text = to_json(config)
    assert list(json.loads(text)) == [field.name for field in dataclasses.fields(config)]
    check_same(text, config)


def test_json_refuses_what_it_cannot_hold(path):
    config, _ = load_config(str(path))
    config.sgd.rate = float("inf")
    with pytest.raises(ValueError, match=r"'sgd\.rate' is inf"):
        to_json(config)
    config.sgd.rate, config.name = 0.1, path
    with pytest.raises(ValueError, match="'name' is of type PosixPath"):
        to_json(config)


def test_resuming_under_another_config_names_the_fields(path):
    stored = to_json(load_config(str(path))[0])
    other, _ = load_config(str(path), ["--config.rounds=3", "--config.widths", "8"])
    with pytest.raises(ValueError, match=r"rounds was 10 and is 3; widths\.1 was 16 and is absent"):
        check_same(stored, other)
    other.rounds, other.widths = 10, ()
    with pytest.raises(ValueError, match=r"widths was absent and is \[\]; widths\.0 was 8"):
        check_same(stored, other)
    with pytest.raises(ValueError, match=r"config\.json of the run is damaged"):
        check_same(stored[:-5], other)
