"""The bench of the partitioners runs, and all methods agree on small graphs."""

import json
import pathlib
import runpy

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts/bench/partition.py"


@pytest.fixture(scope="module")
def bench():
    return runpy.run_path(str(SCRIPT))


def test_rows_hold_seconds_and_ratios(bench, capsys):
    sizes = ("--nodes", "40", "--traced", "5", "--models", "squeezenet1_1", "--most-milp", "40")
    bench["main"]([*sizes, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["graph"] for row in found["rows"]] == [
        "squeezenet1_1", "random", "random*", "blocks*"
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["dads/qdmp"] == row["dads"] / row["qdmp"]
        assert row["milp/plan"] > 0
        assert ("networkx/plan" in row) == found["networkx"]
    assert found["traced"][0]["layers"] == 5
    bench["main"](["--nodes", "20", "--traced", "--models", "--most-milp", "0"])
    assert "blocks*" in capsys.readouterr().out


def test_blocks_join_in_one_layer(bench):
    graph = bench["blocks_dag"](100, width=10)
    for tensor in graph.tensors[1:]:
        end = (tensor.producer // 10 + 1) * 10
        assert all(i <= end for i in tensor.consumers)
    assert bench["random_dag"](30) == bench["random_dag"](30)
