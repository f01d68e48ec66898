"""Every config can be read, says what it is for, and has a tiny form that some test runs."""

from pathlib import Path

import pytest

from eejax.experiment.config import load_config, to_json

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
EVERY = pytest.mark.parametrize(
    "path", CONFIGS, ids=[str(p.relative_to(ROOT / "configs")) for p in CONFIGS]
)


@EVERY
def test_a_config_is_complete(path):
    whole, run = load_config(str(path))
    tiny, _ = load_config(f"{path}:tiny")
    assert callable(run)
    assert type(whole) is type(tiny)
    assert to_json(whole) != to_json(tiny)
    with pytest.raises(ValueError, match="is none of"):
        load_config(f"{path}:tinny")


@EVERY
def test_a_config_says_what_to_type(path):
    assert f"eejax run {path.relative_to(ROOT)}" in path.read_text().split('"""')[1]


@EVERY
def test_the_tiny_form_runs_in_some_test(path):
    tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    assert path.name in tests
