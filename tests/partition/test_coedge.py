"""CoEdge against every route through the edge and every allocation of the layers."""

import dataclasses
import itertools

import numpy as np
import pytest

from eejax.partition import Layer, LayerGraph, Tensor, exhaustive, objective, price
from eejax.partition.coedge import coedge
from eejax.partition.two_tiers import pair
from eejax.tiers import DEVICES, LINKS, make_tier, make_topology, three_tier


def random_chain(rng, layers):
    return LayerGraph(
        tuple(
            Layer(f"l{i}", 10 ** rng.uniform(8, 11), 1e5, int(rng.integers(1, 100)))
            for i in range(layers)
        ),
        tuple(Tensor(f"t{i}", i - 1, (i,), 10 ** rng.uniform(3, 6)) for i in range(layers)),
        "layer",
    )


def random_system(rng, edges, memory):
    def server():
        return dataclasses.replace(
            DEVICES["edge_server"],
            flops_per_s=10 ** rng.uniform(10, 12.5),
            memory_bytes=float(rng.integers(60, 300)) if memory else 1e9,
        )

    def link(low, high):
        bps = 10 ** rng.uniform(low, high)
        return dataclasses.replace(LINKS["lan"], bandwidth_up_bps=bps, bandwidth_down_bps=bps)

    system = make_topology(
        make_tier("end", DEVICES["raspberry_pi_3"], LINKS["wifi"], [1, 0]),
        make_tier("edge", [server() for _ in range(edges)], [link(5, 7)] * edges, 0),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )
    pairs = itertools.permutations(range(edges), 2)
    return system, {p: link(6, 9) for p in pairs if rng.random() < 0.8}


def all_routes(system, peers, first):
    """Every route from the first server, as a topology of its own."""
    edge = system.tiers[1]
    others = [p for p in range(edge.nodes) if p != first]
    for count in range(len(others) + 1):
        for rest in itertools.permutations(others, count):
            route = (first, *rest)
            hops = list(itertools.pairwise(route))
            if not all(hop in peers for hop in hops):
                continue
            links = [*(peers[hop] for hop in hops), edge.link(route[-1])]
            end = system.tiers[0]
            yield (
                route,
                make_topology(
                    make_tier("end", end.device(0), end.link(0), 0),
                    *(make_tier(f"e{p}", edge.device(p), link, 0) for p, link in zip(route, links)),
                    make_tier("cloud", system.tiers[2].device(0)),
                ),
            )


@pytest.mark.parametrize("seed", range(10))
def test_never_below_the_best_and_exact_for_its_route(seed):
    rng = np.random.default_rng(seed)
    graph = random_chain(rng, 5)
    system, peers = random_system(rng, 3, memory=seed % 2)
    goal = ("latency", "end_energy", "latency")[seed % 3]
    keywords = {"reach": [1, 1, 0.7, 0.7, 0.5]} if seed % 4 == 3 else {}
    found = coedge(graph, system, goal, peers=peers, **keywords)
    least = {}
    for route, topology in all_routes(system, peers, first=1):
        plans = exhaustive(graph, topology, goal, **keywords)
        least[route] = min(objective(p, goal) for p in plans if p.feasible)
    cost = objective(found.plan, goal)
    assert found.plan.feasible
    assert cost == pytest.approx(least[found.route])
    assert cost >= min(least.values()) * (1 - 1e-9)
    # No server more makes it better, so it is the best of the single ones at least.
    single = [value for route, value in least.items() if len(route) <= 2]
    assert cost <= min(single) * (1 + 1e-9)
    same = price(graph, found.topology, found.plan.assignment, **keywords)
    assert objective(same, goal) == cost
    alone = coedge(graph, system, goal, peers={}, **keywords)
    assert alone.route == (1,)
    assert objective(alone.plan, goal) == pytest.approx(least[1,])


def test_greedy_is_often_the_best():
    hits, longer = 0, 0
    for seed in range(20, 40):
        rng = np.random.default_rng(seed)
        graph = random_chain(rng, 4)
        system, peers = random_system(rng, 3, memory=True)
        found = coedge(graph, system, peers=peers)
        best = np.inf
        for _, topology in all_routes(system, peers, first=1):
            plans = exhaustive(graph, topology)
            best = min(best, min(objective(p, "latency") for p in plans if p.feasible))
        hits += objective(found.plan, "latency") <= best * (1 + 1e-9)
        longer += len(found.route) > 1
    assert hits >= 16
    assert longer >= 5


def test_servers_that_are_too_small_alone_share_the_layers():
    layers = tuple(Layer(f"l{i}", 1e11, 0, 100) for i in range(4))
    tensors = tuple(Tensor(f"t{i}", i - 1, (i,), 1e5) for i in range(4))
    small = dataclasses.replace(DEVICES["edge_server"], memory_bytes=200)
    slow = dataclasses.replace(LINKS["wan"], bandwidth_up_bps=1e5)
    system = make_topology(
        make_tier("edge", [small] * 3, slow, 0), make_tier("cloud", DEVICES["cloud_gpu"])
    )
    found = coedge(
        LayerGraph(layers, tensors, "layer"), system, peers={(0, 2): LINKS["lan"]}, end=0
    )
    assert found.route == (0, 2)
    assert found.plan.name == "edge:l0+l1 | edge[2]:l2+l3"
    lan = LINKS["lan"]
    work = 4 * (1e11 / small.flops_per_s + small.overhead_s)
    there = lan.rtt_s / 2 + 8e5 / lan.bandwidth_up_bps / (1 - lan.loss)
    back = lan.rtt_s / 2 + 32 / lan.bandwidth_down_bps / (1 - lan.loss)
    assert found.plan.latency_s[0] == pytest.approx(work + there + back)
    alone = coedge(LayerGraph(layers, tensors, "layer"), system, peers={}, end=1)
    assert alone.route == (1,)
    assert alone.plan.latency_s[0] > found.plan.latency_s[0]


def test_a_server_is_added_where_it_helps():
    layers = tuple(Layer(f"l{i}", 1e11, 0, 100) for i in range(6))
    tensors = tuple(Tensor(f"t{i}", i - 1, (i,), 1e5) for i in range(6))
    small = dataclasses.replace(DEVICES["edge_server"], memory_bytes=200)
    slow = dataclasses.replace(LINKS["wan"], bandwidth_up_bps=1e5)
    # The uplink of server 1 is better, so it comes first, and 2 has its place behind it.
    better = dataclasses.replace(slow, bandwidth_up_bps=2e5)
    system = make_topology(
        make_tier("edge", [small] * 3, [slow, better, slow], 0),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )
    peers = {(0, 1): LINKS["lan"], (1, 2): LINKS["lan"]}
    # What nobody reads does not cross.
    unread = (Tensor("aside", 1, (), 1e9), Tensor("last", 5, (), 1e9))
    graph = LayerGraph(layers, (*tensors, *unread), "layer")
    found = coedge(graph, system, peers=peers, end=0)
    assert found.route == (0, 1, 2)
    assert found.plan.name == "edge:l0+l1 | edge[1]:l2+l3 | edge[2]:l4+l5"


def test_keywords_of_the_edge_hold_for_its_servers():
    rng = np.random.default_rng(0)
    graph, (system, peers) = random_chain(rng, 3), random_system(rng, 2, memory=False)
    seconds = [[9, 1, 9], [9, 1, 9], [9, 9, 1]]
    found = coedge(graph, system, peers=peers, layer_seconds=seconds)
    assert found.plan.assignment == (1, 1, len(found.topology.tiers) - 1)
    found = coedge(
        graph,
        system,
        peers=peers,
        layer_seconds=seconds,
        forbidden=[(f"l{i}", "edge") for i in range(3)],
    )
    assert not {1, len(found.route)} & set(found.plan.assignment)


def test_without_peers_it_is_the_best_cut_of_two_tiers():
    rng = np.random.default_rng(7)
    graph = random_chain(rng, 6)
    system = make_topology(
        make_tier("edge", DEVICES["raspberry_pi_4"], LINKS["wan"], 0),
        make_tier("cloud", DEVICES["cloud_gpu"]),
    )
    choice = pair(graph, system, "latency", None, {})
    least = min(choice.price(np.arange(6) >= cut).latency_s[0] for cut in range(7))
    assert coedge(graph, system, peers={}).plan.latency_s[0] == pytest.approx(least)


def test_what_it_cannot_do_is_refused():
    graph, topology = random_chain(np.random.default_rng(0), 3), three_tier(ends=2, edges=2)
    lan = LINKS["lan"]
    for keywords, message in (
        ({"two_way": True}, "coedge sends data up only"),
        ({"setup_s": 0.1}, "knows no set-up costs"),
        ({"end": 2}, r"end must be in \[0, 2\)"),
        ({"peers": {(0, 2): lan}}, r"\(0, 2\) must be two different nodes of 'edge'"),
        ({"peers": {(1, 1): lan}}, "two different nodes"),
        ({"forbidden": [("l0", t) for t in (0, 1, 2)]}, "no allocation is feasible"),
        ({"objective": "worst_latency"}, "no sum over layers"),
    ):
        with pytest.raises(ValueError, match=message):
            coedge(graph, topology, **({"peers": {(0, 1): lan}} | keywords))
    skip = graph._replace(tensors=(*graph.tensors, Tensor("skip", 0, (2,), 9)))
    with pytest.raises(ValueError, match="coedge cuts chains only"):
        coedge(skip, topology, peers={})
    with pytest.raises(ValueError, match="two tiers or more"):
        coedge(graph, make_topology(make_tier("cloud", DEVICES["cloud_gpu"])), peers={})
