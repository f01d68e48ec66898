"""Plans through changing conditions, against planners that know more or less."""

import itertools

import jax
import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, Tensor, objective, price
from eejax.partition.adaptive import adapt, conditions, foresee
from eejax.tiers import Trace, constant, markov, three_tier

GRAPH = LayerGraph(
    (Layer("conv", 3e7, 1e5, 400), Layer("conv2", 2e8, 1e5, 400), Layer("dense", 2e9, 1e6, 5000)),
    (
        Tensor("image", -1, (0,), 300_000),
        Tensor("features", 0, (1,), 60_000),
        Tensor("more", 1, (2,), 4_000),
    ),
    "layer",
)
SYSTEM = three_tier(ends=3, edges=1)
TIMES = np.arange(0, 60, 2.0)


def under(**traces):
    return lambda t: conditions(SYSTEM, t, **traces)


def noisy(seed):
    stay = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    wifi = markov([5e7, 6e6, 1e6], stay, 2.0, 60.0, jax.random.key(seed))
    return under(bandwidth={"end": wifi}, load={"edge": constant(0.3)})


def test_conditions_change_what_they_name_and_nothing_else():
    now = conditions(
        SYSTEM, 7, bandwidth={"edge": Trace([0, 5], [1e8, 0])}, load={"cloud": constant(0.75)}
    )
    assert (now.tiers[1].links.bandwidth_down_bps == 1).all()
    same = SYSTEM.tiers[2].devices
    np.testing.assert_allclose(now.tiers[2].devices.flops_per_s, same.flops_per_s / 4)
    assert now.tiers[0] == SYSTEM.tiers[0]
    assert now.tiers[2].devices.memory_bytes == same.memory_bytes


def test_steady_conditions_need_one_plan():
    run = adapt(GRAPH, lambda t: SYSTEM, TIMES)
    assert not run.switches.any()
    assert (run.cost == run.best).all()
    assert foresee(GRAPH, lambda t: SYSTEM, TIMES).total == pytest.approx(run.total)


def test_the_cut_moves_down_as_the_link_gets_slower():
    slower = Trace([0, 20, 40], [1e9, 5e6, 1e3])
    run = adapt(GRAPH, under(bandwidth={"end": slower}), TIMES)
    lowest = (run.assignments == 0).sum(1)
    assert (np.diff(lowest) >= 0).all()
    assert lowest[0] < lowest[-1] == 3
    assert TIMES[run.switches].tolist() == [20, 40]
    assert (run.cost == run.best).all()


@pytest.mark.parametrize("seed", range(4))
def test_nobody_beats_the_one_who_knows_the_future(seed):
    future = foresee(GRAPH, noisy(seed), TIMES, switch_cost=0.02)
    runs = [
        adapt(GRAPH, noisy(seed), TIMES, switch_cost=0.02, hysteresis=h, delay=d)
        for h, d in itertools.product((0, 0.2, np.inf), (0, 2))
    ]
    for run in runs:
        assert run.total >= future.total - 1e-12
        assert (run.cost >= run.best - 1e-12).all()
    fixed = runs[-1]
    assert not fixed.switches.any()
    # Without delay and cost of switching, following blindly is the best there is.
    free = adapt(GRAPH, noisy(seed), TIMES)
    assert free.total == pytest.approx(foresee(GRAPH, noisy(seed), TIMES).total)
    assert free.total < adapt(GRAPH, noisy(seed), TIMES, hysteresis=np.inf).total


def test_foresight_is_the_best_of_all_sequences():
    times, world = TIMES[:5] * 4, noisy(1)
    found = foresee(GRAPH, world, times, switch_cost=0.05)
    plans = {tuple(a) for a in adapt(GRAPH, world, times).assignments.tolist()}
    table = {
        (i, a): objective(price(GRAPH, world(t), a), "latency")
        for i, t in enumerate(times)
        for a in plans
    }
    least = min(
        sum(table[i, a] for i, a in enumerate(path))
        + 0.05 * sum(a != b for a, b in itertools.pairwise(path))
        for path in itertools.product(plans, repeat=5)
    )
    assert len(plans) > 1
    assert found.total == pytest.approx(least)


def test_hysteresis_stops_going_back_and_forth():
    # Around the point where two cuts cost the same.
    bps = [6.5e7 if i % 2 else 4e7 for i in range(30)]
    flicker = under(bandwidth={"end": Trace(TIMES, bps)})
    nervous = adapt(GRAPH, flicker, TIMES, delay=1, switch_cost=0.01)
    calm = adapt(GRAPH, flicker, TIMES, delay=1, switch_cost=0.01, hysteresis=0.2)
    assert nervous.switches.sum() > 20
    assert not calm.switches.any()
    assert calm.total < nervous.total


def test_nodes_may_come_and_go():
    def world(t):
        return three_tier(ends=2 if t < 30 else 9, edges=1 if t < 30 else 3)

    run = adapt(GRAPH, world, TIMES)
    assert np.isfinite(run.cost).all()
    assert run.total >= foresee(GRAPH, world, TIMES).total


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adapt(GRAPH, noisy(0), TIMES, hysteresis=-0.1), "hysteresis must be >= 0"),
        (lambda: adapt(GRAPH, noisy(0), TIMES, delay=-1), "delay must be >= 0"),
        (lambda: adapt(GRAPH, noisy(0), []), "times must hold"),
        (lambda: under(bandwidth={"cloud": constant(1)})(0), "'cloud' is the top"),
        (lambda: under(load={"edge": constant(1)})(0), "load of 'edge' must be below 1"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
