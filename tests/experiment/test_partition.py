"""Partition runs: whatever a user names becomes plans, tables, figures and JSON."""

import json
import pathlib

import numpy as np
import pytest

from eejax import partition
from eejax.experiment.figures import Graph
from eejax.experiment.report import from_json, to_html, to_json
from eejax.experiment.runs.partition import SOLVERS, Partition, Sweep, find_plans
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
    _, (_, _, solved, _) = found_for(model=light("bvlc_alexnet"))
    plans = {row.solver: row.plan for row in solved}
    best = partition.objective(plans["exact"], "latency")
    for name in ("min_cut", "milp", "exhaustive", "neurosurgeon", "jointdnn", "dads", "qdmp"):
        assert partition.objective(plans[name], "latency") == pytest.approx(best)
    assert plans["pipedream"] is None
    _, (_, _, solved, _) = found_for(model=light("bvlc_alexnet"), objective="pipeline")
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
    _, (source, _, solved, fixed) = found_for(model=str(path))
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
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        found_for(**fields)


def test_all_names_of_the_zoo_are_known():
    assert Partition().model in zoo.NAMES
