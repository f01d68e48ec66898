"""Partition runs: whatever a user names becomes plans, tables, figures and JSON."""

import json
import pathlib

import numpy as np
import pytest

from eejax import partition
from eejax.experiment.config import load_config
from eejax.experiment.context import open_context
from eejax.experiment.figures import Graph
from eejax.experiment.report import from_json, to_html, to_json
from eejax.experiment.runs.partition import (
    SOLVERS,
    Grid,
    Partition,
    Sweep,
    find_plans,
    grid,
    profile_model,
)
from eejax.experiment.runs.partition.crossing import alive
from eejax.experiment.runs.partition.show import as_json, report_of
from eejax.experiment.runs.partition.solve import switches
from eejax.models import zoo

FEW = Sweep(points=5)


def light(name):
    onnx = pytest.importorskip("onnx.backend.test")
    return str(pathlib.Path(onnx.__path__[0], "data", "light", f"light_{name}.onnx"))


def found_for(**fields):
    config = Partition(**{"sweep": FEW} | fields)
    return config, find_plans(config)


def test_json_holds_plans_and_baselines():
    config, found = found_for(model="tiny_yolov2", topology="lte_4g")
    value = json.loads(json.dumps(as_json(config, *found)))
    assert value["granularity"] == "operator with what follows it"
    layers = len(value["graph"]["layers"])
    assert {row["solver"] for row in value["plans"]} | set(value["refused"]) == set(SOLVERS)
    exact = {row["solver"]: row for row in value["plans"]}["exact"]
    for row in value["plans"]:
        assert len(row["assignment"]) == layers
        assert row["latency_s"] >= exact["latency_s"] * (1 - 1e-9)
        assert row["solve_s"] > 0
    assert list(value["baselines"]) == ["all-end", "all-edge", "all-cloud"]
    cloud = value["baselines"]["all-cloud"]
    assert cloud["bytes"]["end-edge"] == 416 * 416 * 3  # As uint8.
    assert set(cloud["assignment"]) == {"cloud"}


def test_a_chain_is_for_all_solvers_but_the_pipeline_for_one():
    _, (_, _, solved, *_) = found_for(model=light("bvlc_alexnet"))
    plans = {row.solver: row.plan for row in solved}
    best = partition.objective(plans["exact"], "latency")
    for name in ("min_cut", "milp", "exhaustive", "neurosurgeon", "jointdnn", "dads", "qdmp"):
        assert partition.objective(plans[name], "latency") == pytest.approx(best)
    assert plans["pipedream"] is None
    _, (_, _, solved, *_) = found_for(model=light("bvlc_alexnet"), objective="pipeline")
    assert solved[0].plan is not None
    assert {row.solver for row in solved if row.plan is not None} >= {"pipedream", "dads"}


def test_report_draws_the_graph_and_the_sweep_and_reads_back():
    config, found = found_for(model="squeezenet1_1", topology="lte_4g", granularity="depth:1")
    report = report_of(config, *found)
    assert from_json(to_json(report)) == from_json(to_json(report))
    page = to_html(report)
    assert page.count("<svg") == 3
    (figure,) = [f for s in report.sections for f in s.figures if isinstance(f, Graph)]
    assert len(figure.nodes) == len(found[0].graph.layers)
    assert set(figure.order) == {"end", "edge", "cloud"}


def test_features_and_granularity_change_what_crosses():
    _, (source, *_) = found_for(model="resnet18")
    _, (small, *_) = found_for(model="resnet18", features="int8")
    for a, b in zip(source.graph.tensors, small.graph.tensors):
        assert b.nbytes == (a.nbytes if a.producer < 0 else a.nbytes / 4)
    _, (blocks, *_) = found_for(model="resnet18", granularity="block")
    assert len(blocks.graph.layers) < len(source.graph.layers)


def test_a_function_of_a_module_is_a_model(monkeypatch, tmp_path):
    module = tmp_path / "my_models.py"
    module.write_text(
        "import jax.numpy as jnp\n"
        "def mlp():\n"
        "    apply = lambda p, x: jnp.tanh(x @ p['w1']) @ p['w2']\n"
        "    return apply, {'w1': jnp.ones((8, 4)), 'w2': jnp.ones((4, 2))}, jnp.ones((3, 8))\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _, (source, *_) = found_for(model="my_models:mlp")
    assert [layer.parameter_bytes for layer in source.graph.layers] == [128, 32]
    for name, message in (
        ("my_models:wrong", r"must give \(apply, params, example\)"),
        ("my_models:mpl", "did you mean 'mlp'"),
        ("my_models.py:mlp", "without .py"),
    ):
        with pytest.raises(ValueError, match=message):
            found_for(model=name)


def test_a_profile_gives_its_seconds(tmp_path):
    path = tmp_path / "p.json"
    layers = [
        {"name": n, "seconds": {"end": s, "edge": s / 10, "cloud": s / 100}, "parameter_bytes": 4}
        for n, s in (("a", 1.0), ("b", 2.0))
    ]
    tensors = [
        {"name": "x", "producer": None, "consumers": ["a"], "nbytes": 100},
        {"name": "u", "producer": "a", "consumers": ["b"], "nbytes": 100},
    ]
    head = {"format": "eejax-profile", "version": 1, "granularity": "layer", "source": "a test"}
    path.write_text(json.dumps(head | {"layers": layers, "tensors": tensors}))
    _, (source, _, solved, fixed, _) = found_for(model=str(path))
    assert source.note == "measured: a test"
    assert fixed[0].latency_s.mean() == pytest.approx(3.0)
    assert solved[0].plan.name == "all-cloud"


def test_switches_lie_between_points():
    _, (source, topology, *_) = found_for(model="tiny_yolov2", topology="lte_4g")
    from eejax.experiment.runs.partition.solve import over_bandwidth

    bps = np.geomspace(1e4, 1e9, 12)
    plans, fixed = over_bandwidth(source, topology, "latency", bps)
    changes = switches(plans, bps)
    assert changes
    assert plans[0].name == "all-end"
    for plan, row in zip(plans, fixed):
        least = min(partition.objective(p, "latency") for p in row)
        assert partition.objective(plan, "latency") <= least * (1 + 1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "resnet-18"}, "did you mean 'resnet18'"),
        ({"objective": "latnecy"}, "did you mean 'latency'"),
        ({"solver": "dad"}, "did you mean 'dads'"),
        ({"input": "int8"}, "input 'int8' is none of uint8, float32"),
        ({"granularity": "depth:0"}, "must be operator, block or depth:K"),
        ({"topology": "wify"}, "did you mean 'wifi'"),
        ({"solver": "neurosurgeon"}, "cuts chains only"),
        ({"sweep": Sweep(from_bps=0)}, "sweep.from_bps must be above 0"),
        ({"side": -1}, "side must be >= 0"),
        ({"model": "x.json", "side": 288}, "side is for networks of the zoo alone"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        found_for(**fields)


def test_all_names_of_the_zoo_are_known():
    assert Partition().model in zoo.NAMES


CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "partition"


def run_tiny(name, folder):
    config, run = load_config(f"{CONFIGS / name}:tiny")
    with open_context(config, folder, quiet=True) as context:
        found = run(config, context)
    assert json.loads((folder / "summary.json").read_text()).keys() == found.keys()
    assert "<svg" in (folder / "report.html").read_text()
    return config, found


def test_neurosurgeon_py_finds_the_best_cut_of_a_chain(tmp_path):
    config, found = run_tiny("neurosurgeon.py", tmp_path / "run")
    rows = {tuple(row[k] for k in ("case", "model", "objective")): row for row in found["rows"]}
    exact = grid.compare(Grid(**vars(config) | {"solver": "exact"}))
    for row in exact:
        mine = rows[row.case, row.model, row.objective]
        assert mine["best"] == pytest.approx(row.best)
        assert mine["best"] <= min(mine["end"], mine["cloud"]) * (1 + 1e-9)
    yolo = rows["input=uint8", "tiny_yolov2", "latency"]
    assert yolo["pays"]
    assert yolo["layers"] == (5, 4)
    assert not rows["input=uint8", "alexnet", "latency"]["pays"]
    # The larger the input, the more there is to gain over sending it.
    gain = {
        row["case"]: row["mean_gain"] for row in found["totals"] if row["objective"] == "latency"
    }
    assert gain["input=float32"] > 3 * gain["input=uint8"]


def test_no_gain_py_tells_what_makes_splitting_pay(tmp_path):
    config, found = run_tiny("no_gain.py", tmp_path / "run")
    pays = {
        row["case"]: row["splits_pay"] for row in found["totals"] if row["objective"] == "latency"
    }
    assert [pays[case] for case in config.cases] == [0, 2, 2]
    for row in found["rows"]:
        # AlexNet does not fit into 8 MB.
        assert (row["end"] is None) == ("memory_mb" in row["case"] and row["model"] == "alexnet")


def test_dads_bandwidth_py_moves_the_cut(tmp_path):
    _, found = run_tiny("dads_bandwidth.py", tmp_path / "run")
    assert [row["layers"] for row in found["switches"]] == ["5/4", "3/6", "0/9"]
    assert [row["solver"] for row in found["plans"]] == ["dads"]


def test_tiny_yolov2_py_saves_917_percent_of_float32(tmp_path):
    _, found = run_tiny("tiny_yolov2.py", tmp_path / "run")
    cut = found["narrowest"][-1]
    assert cut["after"].startswith("conv5")
    assert cut["bytes"] == 9 * 9 * 256 * 4
    assert cut["less_than_input"]["float32"] == pytest.approx(1 - 82_944 / 995_328)
    assert round(100 * cut["less_than_input"]["float32"], 1) == 91.7
    assert round(100 * cut["less_than_input"]["uint8"], 1) == 66.7


def test_qdmp_speed_py_finds_equal_costs(tmp_path):
    _, found = run_tiny("qdmp_speed.py", tmp_path / "run")
    assert [row["layers"] for row in found["rows"]] == [34, 50, 100]
    for row in found["rows"]:
        assert row["gap"] < 1e-6
        assert row["ratio"] == row["dads_s"] / row["qdmp_s"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("inptu=uint8", "did you mean 'input'"),
        ("input", "must be key=value"),
        ("exit=1", r"exit must be a number in \[0, 1\)"),
        ("memory_mb=x", "memory_mb must be a number >= 0"),
        ("features=int9", "did you mean 'int8'"),
    ],
)
def test_wrong_cases_are_named(case, message):
    with pytest.raises(ValueError, match=message):
        grid.compare(Grid(models=("alexnet",), cases=(case,)))


def test_an_early_exit_halves_what_comes_behind_it():
    fields = {"models": ("alexnet",), "links": ("wifi",), "objectives": ("latency",)}
    plain, early = grid.compare(Grid(cases=("input=uint8", "exit=0.5"), **fields))
    assert early.end < plain.end
    assert early.end > plain.end * 0.5


def test_where_the_time_goes_adds_up():
    config, found = found_for(model="alexnet", solver="exact", topology="phone,lte_4g,cloud_gpu")
    report = report_of(config, *found)
    (section,) = [s for s in report.sections if s.title == "Where the time goes"]
    (figure,) = section.figures
    (table,) = section.tables
    assert len(table.rows) == 3
    for name, *parts in zip(figure.categories, *figure.series.values()):
        plan = {p.name: p for p in found[3]} | {"best plan": found[2][0].plan}
        assert sum(parts) == pytest.approx(plan[name].latency_s.mean())


def test_what_is_alive_crosses():
    _, (source, topology, *_) = found_for(model="resnet18")
    counts = alive(source.graph)
    for i in (0, 1, 7, 20):
        plan = partition.price(source.graph, topology, [0] * i + [2] * (21 - i))
        assert counts[i] == plan.link_bytes["end", "edge"]


def test_a_measured_profile_has_the_graph_of_its_model(monkeypatch, tmp_path):
    (tmp_path / "residual_of_mine.py").write_text(
        "import jax\nimport jax.numpy as jnp\n"
        "def net():\n"
        "    def apply(p, x):\n"
        "        for a, b in p['blocks']:\n"
        "            x = x + jnp.tanh(x @ a) @ b\n"
        "        return x\n"
        "    w = jax.ShapeDtypeStruct((8, 8), 'float32')\n"
        "    return apply, {'blocks': [(w, w)] * 3}, jax.ShapeDtypeStruct((1, 8), 'float32')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for granularity, layers in (("operator", 6), ("block", 3)):
        config = Partition(model="residual_of_mine:net", granularity=granularity)
        measured = profile_model(config, "here", repeats=2)
        profile = partition.from_profile(measured.profile)
        source, *_ = find_plans(config)
        assert profile.graph == source.graph
        assert len(profile.graph.layers) == layers
        np.testing.assert_array_equal(profile.seconds["here"], measured.seconds)
        assert measured.whole > 0
