"""The table of published claims: what is fitted, what is predicted, and what does not show."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/bench/published.py"


@pytest.fixture(scope="module")
def published():
    spec = importlib.util.spec_from_file_location("published", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_fit_by_hand(published):
    """10 FLOP and 6 bytes take twice as long as 4 FLOP and 1 byte when 10 + 6 r = 2 (4 + r)."""
    slow, fast = published.Cost(1, 6), published.Cost(4, 1)
    assert published.fit(2, slow, fast) == 7 / 4
    assert published.seconds(slow, 7 / 4) == 2 * published.seconds(fast, 7 / 4)


def test_a_layer_by_hand(published):
    """Megatron: two all-reduces of T h each way, and that of attention again."""
    shape = published.Shape(64, 256, 4, 4, seq=8, layers=1, causal=True)
    cost = published.layer_cost("1d", (4,), shape, 32)
    assert cost.flop == 4 * (24 * 64**2 + 4 * 8 * 64) * 32 / 4
    assert cost.nbytes == 2 * 5 * 2 * 3 / 4 * 32 * 64
    free = published.layer_cost("1d", (4,), shape, 32, training=False)
    assert free.flop == cost.flop / 4
    assert free.nbytes == 2 * 2 * 2 * 3 / 4 * 32 * 64


def test_one_bandwidth_a_tier_predicts_what_it_was_not_fitted_to(published):
    rows = {row[0]: row for row in published.tensor_rows(64, 3072, 16, 512)}
    assert rows["Optimus (2-D) against 1-D, training"][2:4] == ("1.48", "fitted")
    assert rows["... inference"][1:4] == ("1.78 times as fast", "1.77", "yes")
    assert rows["... 4 GPUs"][1:4] == ("86.5 % of linear", "87.4 %", "yes")
    assert rows["... 2 GPUs"][1:4] == ("90.7 % of linear", "94.6 %", "yes")
    assert rows["Tesseract (2.5-D) against 1-D"][1:4] == ("1.38 times as fast", "1.46", "yes")


def test_advantages_that_do_not_show(published):
    rows = published.tensor_rows(64, 3072, 16, 512)
    at = next(i for i, row in enumerate(rows) if row[0].startswith("Tesseract"))
    assert rows[at + 1][1:4] == ("1.53 times as fast", "0.99", "no")
    assert rows[at + 2][2:4] == ("1.07", "in part")
    assert rows[at + 3][1:4] == ("2.32 times as fast", "1.60", "in part")
    assert rows[at + 4][1:4] == ("1.57 times as fast", "1.08", "in part")


@pytest.mark.parametrize(("scheme", "grids"), [("1d", [(4,), (8,)]), ("2d", [(2, 2), (4, 2)])])
def test_activation_memory_of_2d_falls_as_one_over_the_devices(published, scheme, grids):
    """As the compiler allocates it; that of 1-D does not fall at all."""
    whole = 4 * 512 * 64
    for grid in grids:
        devices = 1 if scheme == "1d" else grid[0] * grid[1]
        assert published.measured_bytes(scheme, grid) == whole / devices


def test_pipelines(published):
    rows = published.pipeline_rows()
    assert rows[0][2:4] == ("6.56 on 8 stages, M = 32", "in part")  # 8 * 32 / 39.
    assert rows[1][3:] == ("no", "15.8 % idle at S = 4, M = 16")
    assert rows[2][2].startswith("1.74 ")  # 1.75 = 7 / 4 in the limit.
    assert rows[3][3:] == ("yes", "89 % fewer for VGG-16 on 15 + 1 devices")


def test_verdicts(published):
    assert [published.verdict(1.5, x) for x in (2, 1.36, 1.34, 1.03, 1.01, 0.5)] == [
        "yes", "yes", "in part", "in part", "no", "no",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_script_prints_a_table_and_refuses_other_numbers_of_devices():
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT)}

    def run(*args):
        return subprocess.run(
            [sys.executable, str(SCRIPT), *args],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )

    rows = json.loads(run("--json").stdout)
    assert len(rows) == 17
    assert rows[5]["bytes, memory, schedule"].endswith("fake devices: 4 and 8 times")
    assert "must be a square and a cube, such as 64, got 8" in run("--devices", "8").stderr
