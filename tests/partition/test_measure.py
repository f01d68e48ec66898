"""Measuring: against a clock that the test turns, and end to end in small."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import staged_mlp
from eejax.models.staged import init, run
from eejax.partition import from_staged, price
from eejax.partition import measure as measure_module
from eejax.partition.estimate import prefix_seconds
from eejax.partition.measure import (
    chain_of,
    measure_device,
    measured_on,
    prefix_times,
    profile_chain,
    profile_staged,
    read_device,
    time_calls,
    write_device,
)
from eejax.partition.profile import from_profile, layer_seconds
from eejax.tiers import DEVICES, three_tier

IMAGES = jnp.zeros((4, 28, 28, 1), jnp.uint8)
MODEL = staged_mlp(classes=10, widths=(16, 8))
PARAMS = init(MODEL, jax.random.key(0), IMAGES)


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still unless a test moves it on."""
    now = [0.0]
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: now[0])
    return now


def test_calls_are_timed_in_turns_after_warm_up(clock):
    order = []

    def call(name, first, then):
        def run():
            order.append(name)
            clock[0] += first if order.count(name) == 1 else then

        return run

    seconds = time_calls([call("a", 100, 1), call("b", 100, 2)], repeats=3, warmup=1)
    assert order == ["a", "b"] * 4
    np.testing.assert_array_equal(seconds, [[1, 2]] * 3)


def test_results_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(measure_module.jax, "block_until_ready", waited.append)
    time_calls([lambda: "result"], repeats=2, warmup=1)
    assert waited == ["result"] * 3


@pytest.mark.parametrize(
    ("keywords", "field"), [({"repeats": 0}, "repeats"), ({"warmup": -1}, "warm")]
)
def test_numbers_of_rounds_are_checked(keywords, field):
    with pytest.raises(ValueError, match=field):
        time_calls([], **keywords)


def test_profile_of_a_staged_model_is_its_graph_with_seconds():
    data = profile_staged(MODEL, PARAMS, IMAGES, device="here", repeats=3, warmup=1)
    profile = from_profile(json.loads(json.dumps(data)))
    assert profile.graph == from_staged(MODEL, PARAMS, IMAGES)
    assert (profile.seconds["here"] > 0).all()
    assert profile.source.startswith("measured on ")
    assert profile.source.endswith("median of 3 runs of one sample")
    # And prices a plan: all on the end device, at its measured seconds.
    topology = three_tier()
    seconds = layer_seconds(profile, topology, factors={"end": 1, "edge": 0.1, "cloud": 0.1})
    plan = price(profile.graph, topology, ["end", "end"], layer_seconds=seconds)
    np.testing.assert_allclose(plan.latency_s, profile.seconds["here"].sum())


def test_profile_of_a_chain():
    w = jnp.ones((8, 3))
    chain = {"cast": (lambda _, x: x / 2, ()), "dense": (lambda w, x: x @ w, w)}
    data = profile_chain(chain, jnp.ones((1, 8)), repeats=2, warmup=0)
    graph = from_profile(data).graph
    assert [(layer.name, layer.parameter_bytes) for layer in graph.layers] == [
        ("cast", 0),
        ("dense", 4 * 24),
    ]
    assert graph.layers[1].flops == 2 * 24
    assert [tuple(t) for t in graph.tensors] == [("input", -1, (0,), 32), ("cast", 0, (1,), 32)]


def test_layers_are_timed_as_compiled_programs():
    runs = []

    def apply(params, x):
        runs.append(x)
        return x + 1

    profile_chain({"add": (apply, ())}, jnp.ones((1, 8)), repeats=5, warmup=5)
    # Traced to count its work, for its output, and to compile it; never run in Python.
    assert len(runs) <= 3
    assert all(isinstance(x, jax.core.Tracer) for x in runs)


def test_a_staged_model_as_a_chain_gives_its_answer():
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    value = x
    for apply, own in chain_of(MODEL, PARAMS).values():
        value = apply(own, value)
    np.testing.assert_array_equal(value[1], run(MODEL, PARAMS, x)[1][-1])


def test_prefixes_run_all_layers_before():
    chain = {
        "a": (lambda w, x: x + w, jnp.float32(1)),
        "b": (lambda w, x: x * w, jnp.float32(2)),
    }
    seconds = prefix_times(chain, jnp.ones((1, 4)), repeats=4, warmup=1)
    assert seconds.shape == (4, 2)
    assert (seconds > 0).all()


def test_prefix_times_become_layer_times():
    totals = prefix_times(chain_of(MODEL, PARAMS), IMAGES[:1], repeats=3)
    estimate = prefix_seconds(from_staged(MODEL, PARAMS, IMAGES), totals)
    assert estimate.seconds.sum() == pytest.approx(np.median(totals, 0).max())
    assert estimate.errors.samples == 6


def test_the_device_file_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module, "_SIDE", 64)
    monkeypatch.setattr(measure_module, "_SWEEP", 2**16)
    device = measure_device("mine", idle_w=5, busy_w=20, repeats=2)
    assert device.source == f"{measured_on()}; power as given"
    assert device.flops_per_s > 1e6
    assert device.memory_bytes > 2**28
    for name in ("mine.toml", "mine.json"):
        write_device(device, tmp_path / name)
        assert read_device(tmp_path / name) == device


def test_speeds_are_work_over_time(clock, monkeypatch):
    took = iter([1.0, 2.0, 0.25])
    monkeypatch.setattr(
        measure_module, "time_calls", lambda calls, repeats: np.array([[next(took) for _ in calls]])
    )
    monkeypatch.setattr(measure_module, "_SWEEP", 2**10)
    device = measure_device("mine", idle_w=0, busy_w=0)
    assert device.flops_per_s == 2 * 1024**3
    assert device.memory_bandwidth_bytes_per_s == 2 * 4 * 1024 / 2
    assert device.overhead_s == 0.25


def test_faults_of_device_files(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.toml or \.json, got 'a\.yaml'"):
        write_device(DEVICES["phone"], "a.yaml")
    with pytest.raises(ValueError, match="must be a single one"):
        write_device(three_tier().tiers[0].devices, tmp_path / "a.toml")
    path = tmp_path / "a.toml"
    write_device(DEVICES["phone"], path)
    whole = path.read_text()
    path.write_text(whole.replace("idle_w", "idel_w"))
    with pytest.raises(ValueError, match=r"a\.toml: .*idel_w"):
        read_device(path)
    path.write_text(whole.replace("busy_w = ", "busy_w = -"))
    with pytest.raises(ValueError, match=r"a\.toml: busy_w must be"):
        read_device(path)
    path.write_text(whole + "[")
    with pytest.raises(ValueError, match=r"a\.toml: "):
        read_device(path)
