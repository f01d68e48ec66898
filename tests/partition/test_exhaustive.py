"""Exhaustive search against an independent one that follows single samples."""

import itertools
import math

import numpy as np
import pytest

from eejax.partition import (
    LINEAR,
    OBJECTIVES,
    Layer,
    LayerGraph,
    Tensor,
    best,
    exhaustive,
    objective,
    rates_of,
    summary,
    tabulate,
    total,
)
from eejax.tiers import (
    Device,
    Link,
    make_tier,
    make_topology,
    roofline,
    three_tier,
    transfer_joules,
    transfer_seconds,
)


def random_graph(rng, layers):
    """Each layer reads one or two of the tensors before it; some tensors have many readers."""
    readers = {j: set() for j in range(-1, layers)}
    for i in range(layers):
        for j in rng.choice(
            np.arange(-1, i), size=min(i + 1, int(rng.integers(1, 3))), replace=False
        ):
            readers[int(j)].add(i)
    rows = [
        Layer(f"l{i}", *rng.uniform(1e6, 1e9, 2), int(rng.integers(150))) for i in range(layers)
    ]
    tensors = [
        Tensor(f"t{j}", j, tuple(sorted(read)), int(rng.integers(1, 100_000)))
        for j, read in readers.items()
        if read
    ]
    return LayerGraph(tuple(rows), tuple(tensors), "random")


def random_topology(rng, tiers, ends=3):
    def some(kind, nodes, **ranges):
        values = {field: rng.uniform(low, high, nodes) for field, (low, high) in ranges.items()}
        return kind(name="random", source="drawn for this test", **values)

    def tier(k):
        nodes = 1 if k == tiers - 1 else (ends if k == 0 else 2)
        above = 1 if k >= tiers - 2 else 2
        devices = some(
            Device,
            nodes,
            flops_per_s=(10**k * 1e9, 10**k * 3e9),
            memory_bandwidth_bytes_per_s=(10**k * 1e9, 10**k * 3e9),
            memory_bytes=(100, 1000),
            idle_w=(1, 2),
            busy_w=(2, 9),
            overhead_s=(0, 0.01),
        )
        links = some(
            Link,
            nodes,
            bandwidth_up_bps=(1e6, 1e7),
            bandwidth_down_bps=(1e6, 1e7),
            rtt_s=(0, 0.1),
            jitter_s=(0, 0.01),
            loss=(0, 0.1),
            joules_per_byte_up=(0, 1e-5),
            joules_per_byte_down=(0, 1e-5),
        )
        top = k == tiers - 1
        parent = None if top else rng.integers(0, above, nodes)
        return make_tier(f"tier{k}", devices, None if top else links, parent, nodes)

    return make_topology(*map(tier, range(tiers)))


def slow_costs(graph, topology, tier, reach, answer, setup_s, usd_per_hour, usd_per_gb):
    """Follows one sample of each fate and each end device; expected values of all objectives."""
    latency, energy, end_energy, money, carried, period = [], [], [], [], [], []
    leaves = [a - b for a, b in zip(reach, [*reach[1:], 0])]
    for end in range(topology.tiers[0].nodes):
        path = topology.path(end)
        nodes = [t.device(n) for t, n in zip(topology.tiers, path)]
        links = [t.link(n) for t, n in zip(topology.tiers[:-1], path)]
        seconds = joules = above = moved = usd = 0.0
        busy = {}
        for last, p in enumerate(leaves):
            own = rest = 0.0
            for layer, k in list(zip(graph.layers, tier))[: last + 1]:
                s = roofline(nodes[k], layer.flops, layer.bytes_moved)
                busy["node", k] = busy.get(("node", k), 0) + p * s
                own, rest = (own + s, rest) if k == 0 else (own, rest + s)
                joules += p * nodes[k].busy_w * s
                above += p * nodes[k].busy_w * s * (k > 0)
                usd += p * usd_per_hour[k] * s / 3600
            rest += sum(setup_s[k] for k in range(max(tier[: last + 1])))
            for k in range(max(tier[: last + 1])):
                busy["link", k] = busy.get(("link", k), 0) + p * setup_s[k]
            hops = [(answer, k, "down") for k in range(tier[last])]
            for tensor in graph.tensors:
                read = [tier[i] for i in tensor.consumers if i <= last]
                made = tier[tensor.producer] if tensor.producer >= 0 else 0
                hops += [(tensor.nbytes, k, "up") for k in range(made, max(read, default=0))]
                hops += [(tensor.nbytes, k, "down") for k in range(min(read, default=made), made)]
            for nbytes, k, way in hops:
                s = transfer_seconds(links[k], nbytes, way)
                rest += s
                busy["link", k] = busy.get(("link", k), 0) + p * s
                joules += p * transfer_joules(links[k], nbytes, way)
                above += p * transfer_joules(links[k], nbytes, way) * (k > 0)
                moved += p * nbytes
                usd += p * usd_per_gb[k] * nbytes / 1e9
            seconds += p * (own + rest)
            joules += p * nodes[0].idle_w * rest
        latency.append(seconds)
        energy.append(joules)
        end_energy.append(joules - above)
        money.append(usd)
        carried.append(moved)
        period.append(max(busy.values()))
    kept = (latency, energy, end_energy, money, carried, period)
    mean = [float(np.mean(values)) for values in kept]
    return dict(zip(OBJECTIVES, [mean[0], max(latency), *mean[1:]]))


def forward(graph, tier):
    return all(
        tier[i] >= tier[t.producer] for t in graph.tensors for i in t.consumers if t.producer >= 0
    )


def fits_memory(graph, topology, tier):
    for end in range(topology.tiers[0].nodes):
        for k, node in enumerate(topology.path(end)):
            held = sum(layer.parameter_bytes for layer, own in zip(graph.layers, tier) if own == k)
            if held > topology.tiers[k].device(node).memory_bytes:
                return False
    return True


@pytest.mark.parametrize("seed", range(12))
def test_best_is_the_least_of_an_independent_search(seed):
    rng = np.random.default_rng(seed)
    tiers = 2 + seed % 3
    graph = random_graph(rng, layers=6 - tiers + seed % 2)
    topology = random_topology(rng, tiers)
    reach = np.concatenate([[1], np.sort(rng.uniform(0, 1, len(graph.layers) - 1))[::-1]])
    two_way = seed % 4 > 1
    charges = {
        "setup_s": rng.uniform(0, 0.1, tiers - 1) * (seed % 2),
        "usd_per_hour": rng.uniform(0, 2, tiers),
        "usd_per_gb": rng.uniform(0, 1, tiers - 1),
    }
    expected = {
        tier: slow_costs(graph, topology, tier, reach.tolist(), answer=40, **charges)
        for tier in itertools.product(range(tiers), repeat=len(graph.layers))
        if two_way or forward(graph, tier)
    }
    keywords = {"reach": reach, "answer_nbytes": 40, "two_way": two_way} | charges
    fits = {tier for tier in expected if fits_memory(graph, topology, tier)}
    for target in OBJECTIVES:
        plans = exhaustive(graph, topology, target, **keywords)
        assert {plan.assignment for plan in plans} == set(expected)
        assert len(plans) == len(expected)
        least = min(expected[tier][target] for tier in fits)
        assert objective(best(plans), target) == pytest.approx(least, rel=1e-9, abs=1e-15)
    assert {plan.assignment for plan in plans if plan.feasible} == fits
    tables = {target: tabulate(rates_of(graph, topology, **keywords), target) for target in LINEAR}
    for plan in plans:
        assert summary(plan) == pytest.approx(expected[plan.assignment], rel=1e-9, abs=1e-15)
        for target, table in tables.items():
            assert total(table, plan.assignment) == pytest.approx(
                expected[plan.assignment][target], rel=1e-9, abs=1e-15
            )


def chain(count, parameter_bytes=10):
    return LayerGraph(
        tuple(Layer(f"l{i}", 1e6 * (i + 1), 0, parameter_bytes) for i in range(count)),
        tuple(Tensor(f"t{i}", i - 1, (i,), 1000 * (count - i)) for i in range(count)),
        "layer",
    )


@pytest.mark.parametrize(("layers", "tiers"), [(1, 2), (5, 2), (4, 3), (3, 4)])
def test_a_chain_has_as_many_placements_as_monotone_paths(layers, tiers):
    topology = random_topology(np.random.default_rng(0), tiers)
    plans = exhaustive(chain(layers, 0), topology)
    assert len(plans) == math.comb(layers + tiers - 1, tiers - 1)
    assert len({plan.name for plan in plans}) == len(plans)


@pytest.mark.parametrize("target", OBJECTIVES)
def test_plans_are_sorted_and_hold_the_baselines(target):
    plans = exhaustive(chain(4), three_tier(), target)
    values = [objective(plan, target) for plan in plans]
    assert values == sorted(values)
    names = {plan.name: plan for plan in plans}
    for k, tier in enumerate(("end", "edge", "cloud")):
        assert names[f"all-{tier}"].assignment == (k,) * 4


def test_what_fits_no_memory_comes_last():
    plans = exhaustive(chain(4, parameter_bytes=3 * 2**30), three_tier(), "bytes")
    fits = [plan.feasible for plan in plans]
    assert fits == sorted(fits, reverse=True)
    # A Raspberry Pi of 4 GiB holds one layer of 3 GiB, an edge server the others.
    assert best(plans).assignment == (0, 1, 1, 1)
    assert "all-end" in [plan.name for plan in plans if not plan.feasible]


def test_no_plan_fits():
    plans = exhaustive(chain(2, parameter_bytes=2**50), three_tier())
    with pytest.raises(ValueError, match=r"none of 6 plans is feasible; .*: \w+: .* do not fit"):
        best(plans)
    with pytest.raises(ValueError, match=r"none of 0 plans is feasible$"):
        best([])


def test_what_cannot_be_searched_is_refused_at_once():
    wide = LayerGraph(
        tuple(Layer(f"l{i}", 1, 1, 1) for i in range(40)),
        tuple(Tensor(f"t{i}", -1, (i,), 1) for i in range(40)),
        "layer",
    )
    with pytest.raises(ValueError, match="40 layers on 3 tiers have more than 100000 placements"):
        exhaustive(wide, three_tier())
    with pytest.raises(ValueError, match="66 placements for 1000000 end devices are more than"):
        exhaustive(chain(10), three_tier(ends=1_000_000))


def test_unknown_objective_names_the_nearest():
    with pytest.raises(ValueError, match=r"objective 'energie' .* did you mean 'energy'\?"):
        exhaustive(chain(2), three_tier(), "energie")
