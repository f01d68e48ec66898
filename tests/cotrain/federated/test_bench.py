"""The bench of federated rounds runs, and the competitors do the same work."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

BENCH = pathlib.Path(__file__).parents[3] / "scripts/bench"


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        for name in ("federated_work", "federated_ours", "federated"):
            patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module("federated")


def test_engine_and_scan_train_the_same(bench, capsys):
    bench.NEEDS["torch"] = ("no_such_module",)
    how = "--tiny --models cnn --peers torch --devices --crowd-cohort 0 --turns 1 --seconds 0"
    bench.main([*how.split(), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["absent"] == ["torch"]
    (row,) = found["models"]
    assert row["norm"]["scan"] == pytest.approx(row["norm"]["eejax"], rel=1e-5)
    assert row["norm"]["scan"] != pytest.approx(first_norm(bench, "cnn"), rel=1e-4)
    assert set(row["cpu"]) == {"scan"}
    assert row["cpu"]["scan"]["median"] > 0
    bench.show(found)
    shown = capsys.readouterr().out
    assert "not installed: torch" in shown
    assert "cnn    scan" in shown


def test_crowds_keep_states(bench):
    tiny = bench.fw.TINY["mnist"]
    run_round, norm = bench.ours.crowd(20, 4, keeps=1024, seed=0, pool=tiny)
    assert norm() == 0  # Logistic regression starts from zeros.
    run_round(0)
    assert norm() > 0


def first_norm(bench, model):
    shape = bench.fw.TINY[bench.fw.MODELS[model]]
    return bench.ours.norm_of(bench.fw.init_params(model, shape.image))


def test_work_is_one_epoch_of_each_client_of_the_cohort(bench):
    shape = bench.fw.TINY["mnist"]
    cohorts, picks = bench.ours.record(shape, 3, seed=0)
    assert cohorts.shape == (3, shape.cohort)
    for cohort, clients in zip(cohorts, picks):
        assert len(set(cohort.tolist())) == shape.cohort
        for client, rows in zip(cohort, clients):
            own = np.arange(client * shape.samples, (client + 1) * shape.samples)
            assert sorted(rows.ravel().tolist()) == own.tolist()


@pytest.mark.parametrize(
    ("model", "size"), [("cnn", 105_866), ("mlp", 199_210), ("lr", 7_850), ("cifar", 1_626_442)]
)
def test_models_have_the_sizes_of_the_reference(bench, model, size):
    params = bench.fw.init_params(model, bench.fw.SHAPES[bench.fw.MODELS[model]].image)
    assert sum(kernel.size + bias.size for kernel, bias in params) == size


def test_files_keep_the_work(bench, tmp_path):
    shape = bench.fw.TINY["mnist"]
    work = bench.fw.make_work("lr", shape, np.zeros((1, 2)), np.zeros((1, 2, 2, 4)))
    bench.fw.save(tmp_path, work)
    read = bench.fw.load(tmp_path)
    assert read.shape == shape
    np.testing.assert_array_equal(read.x, work.x)
    np.testing.assert_array_equal(read.params[0][0], work.params[0][0])


def test_ratios_are_of_the_same_turn(bench):
    turns = {
        "eejax": [{"cpu": 1.0}, {"cpu": 10.0}, {"cpu": 1.0}],
        "scan": [{"cpu": 2.0}, {"cpu": 20.0}, {"cpu": 4.0}],
    }
    found = bench.ratios(turns, "eejax", "cpu")
    assert found == {"scan": {"median": 2.0, "quartiles": [2.0, 3.0]}}


def test_a_competitor_that_fails_says_why(bench, tmp_path):
    with pytest.raises(RuntimeError, match=r"work\.json"):
        bench.Competitor(sys.executable, "federated_ours.py", "scan", tmp_path, [0])
