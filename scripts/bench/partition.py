"""Times the partitioners as ratios, all in one run on this machine.

``plan`` is all that a user waits for: counting the layers of a traced network, tabulating costs,
the exact minimum cut over three tiers, and the priced plan. Against it:

- ``networkx``: DADS, over two tiers alone, with the arcs of `partition.dads` cut by networkx;
- ``loop``: the same with arcs that a plain loop over the layers adds one by one;
- ``same cut``: the network of three tiers that `partition.min_cut` cuts, cut by networkx;
- ``milp``: the integer programme for the same placement.

``dads`` and ``qdmp`` are our solvers of two tiers alone, from the table of costs on. A network's
costs are those of rooflines; so are those of the graph ``random``, where most placements are easily
told. In ``random*`` and ``blocks*`` each layer has a favourite tier of its own, which is hard. The
least of several repeats counts. What needs networkx is left out when it is not installed.

  python scripts/bench/partition.py [--nodes 200 2000 20000] [--traced 200 2000]
                                    [--most-networkx 2000] [--most-milp 400] [--json]
"""

import argparse
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np

from eejax import partition
from eejax.experiment.runs.partition.speed import blocks_dag, least, random_dag, random_seconds
from eejax.models import zoo
from eejax.partition.dads import cut as dads_cut
from eejax.partition.dads import network
from eejax.partition.function import RULES, _price
from eejax.partition.min_cut import _network
from eejax.partition.qdmp import cut as qdmp_cut
from eejax.partition.two_tiers import between
from eejax.tiers import three_tier

HAS_NETWORKX = importlib.util.find_spec("networkx") is not None


def plain_function(layers):
    """A function of many small products, with residuals."""

    def apply(params, x):
        for i in range(layers):
            x = jnp.tanh(x @ params[i]) + x
        return x

    params = [jax.ShapeDtypeStruct((4, 4), "float32")] * layers
    return apply, params, jax.ShapeDtypeStruct((1, 4), "float32")


def integers(capacity):
    """Capacities as networkx must have them: with floats its partition is wrong at times."""
    finite = capacity[np.isfinite(capacity)]
    scale = 2**30 / max(finite.max(initial=0), 1e-300)
    return [round(c * scale) if np.isfinite(c) else None for c in capacity.tolist()]


def networkx_cut(tail, head, capacity):
    """Cuts a network, given by its arcs, by networkx."""
    import networkx as nx

    graph = nx.DiGraph()
    for a, b, c in zip(tail.tolist(), head.tolist(), integers(capacity)):
        graph.add_edge(a, b, **({} if c is None else {"capacity": c}))
    return nx.minimum_cut(graph, 0, 1)


def networkx_loop(graph, costs):
    """DADS by networkx, built as one writes it first: named vertices, one arc at a time."""
    import networkx as nx

    scale = 2**30 / np.nanmax(np.where(np.isfinite(costs.layer), costs.layer, np.nan))
    g = nx.DiGraph()
    for layer, (low, high) in zip(graph.layers, costs.layer.tolist()):
        g.add_edge("edge", layer.name, capacity=round(high * scale))
        g.add_edge(layer.name, "cloud", capacity=round(low * scale))
    g.add_edge("edge", "input")
    tensors = [t for t in graph.tensors if t.consumers]
    for tensor, up in zip(tensors, costs.up[:, 0].tolist()):
        made = graph.layers[tensor.producer].name if tensor.producer >= 0 else "input"
        source, arc = made, {"capacity": round(up * scale)}
        if len(tensor.consumers) > 1:
            source = f"{tensor.name}'"
            g.add_edge(made, source, **arc)
            arc = {}
        for i in tensor.consumers:
            g.add_edge(source, graph.layers[i].name, **arc)
            g.add_edge(graph.layers[i].name, made)
    return nx.minimum_cut(g, "edge", "cloud")


def measure(name, graph, topology, args, seconds=None, rebuild=None):
    """One row of the table: seconds by method; checks that all agree."""
    nodes, top = len(graph.layers), len(topology.tiers) - 1
    rates = partition.rates_of(graph, topology, layer_seconds=seconds)
    costs = partition.tabulate(rates)
    two = between(costs, 0, top)
    run = partition.pricer(rates)
    repeats = 10 if nodes < 1000 else 3 if nodes < 10000 else 1

    def latency(assignment):
        return partition.objective(run(assignment), "latency")

    def plan():
        return partition.min_cut(rebuild() if rebuild else graph, topology, layer_seconds=seconds)

    row = {"graph": name, "nodes": nodes, "reads": len(costs.message)}
    row["plan"], best = least(plan, repeats)
    row["dads"], (x, value) = least(lambda: dads_cut(two), repeats)
    row["qdmp"], (_, same) = least(lambda: qdmp_cut(two), repeats)
    assert abs(same - value) <= 1e-6 * value, (name, same, value)
    if HAS_NETWORKX and nodes <= args.most_networkx:
        slow = 3 if nodes < 1000 else 1
        arcs = network(two)[1:4]
        row["networkx"], (_, (side, _)) = least(lambda: networkx_cut(*network(two)[1:4]), slow)
        row["loop"], (_, (names, _)) = least(lambda: networkx_loop(graph, two), slow)
        row["same cut"], _ = least(lambda: networkx_cut(*_network(costs)[1:]), 1)
        row["arcs"] = len(arcs[0])
        for stay in (
            [2 + i in side for i in range(nodes)],
            [layer.name in names for layer in graph.layers],
        ):
            ours, theirs = latency(x * top), latency([0 if s else top for s in stay])
            assert abs(theirs - ours) <= 1e-5 * ours, (name, theirs, ours)
    if nodes <= args.most_milp:
        row["milp"], whole = least(
            lambda: partition.milp(graph, topology, layer_seconds=seconds), 1
        )
        a, b = latency(whole.assignment), latency(best.assignment)
        assert abs(a - b) <= 1e-6 * a, (name, a, b)
    for method in ("networkx", "loop", "same cut", "milp"):
        if method in row:
            row[f"{method}/plan"] = row[method] / row["plan"]
    row["dads/qdmp"] = row["dads"] / row["qdmp"]
    return row


def trace_row(layers, topology):
    """Seconds of all steps from a function to a plan."""
    apply, params, x = plain_function(layers)
    trace_s, traced = least(lambda: partition.from_function(apply, params, x), 1)
    plan_s, _ = least(lambda: partition.min_cut(traced.graph, topology), 3)
    return {"layers": len(traced.graph.layers), "trace": trace_s, "plan": plan_s}


def main(argv=None):
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[200, 2000, 20000])
    parser.add_argument("--traced", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--models", nargs="*", default=["resnet18", "densenet121"])
    parser.add_argument("--most-networkx", type=int, default=2000, help="nodes given to networkx")
    parser.add_argument("--most-milp", type=int, default=200, help="nodes given to the MILP")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    topology = three_tier()
    rows = []
    for name in args.models:
        net = zoo.model(name)
        params = jax.eval_shape(net.init, jax.random.key(0), net.example)
        traced = partition.from_function(net.apply, params, net.example.update(dtype="uint8"))
        # From the traced program to the plan, as when it is planned for another system.
        rebuild = lambda t=traced: _price(t.parts, t.samples, RULES)[0]  # noqa: E731
        rows.append(measure(name, traced.graph, topology, args, rebuild=rebuild))
    for nodes in args.nodes:
        rows.append(measure("random", random_dag(nodes), topology, args))
    for name, make in (("random*", random_dag), ("blocks*", blocks_dag)):
        for nodes in args.nodes:
            seconds = random_seconds(nodes, len(topology.tiers))
            rows.append(measure(name, make(nodes), topology, args, seconds))
    traced = [trace_row(n, topology) for n in args.traced]
    if args.json:
        print(json.dumps({"rows": rows, "traced": traced, "networkx": HAS_NETWORKX}))
        return
    columns = ["plan", "dads", "qdmp", "networkx", "loop", "same cut", "milp"]
    ratios = [f"{c}/plan" for c in columns[3:]] + ["dads/qdmp"]
    print("least milliseconds, and ratios")
    print(f"{'graph':13}{'nodes':>6}{'reads':>7}" + "".join(f"{c:>10}" for c in columns)
          + "".join(f"{r:>15}" for r in ratios))  # fmt: skip
    for row in rows:
        cells = [f"{1e3 * row[c]:10.2f}" if c in row else f"{'-':>10}" for c in columns]
        cells += [f"{row[r]:15.1f}" if r in row else f"{'-':>15}" for r in ratios]
        print(f"{row['graph']:13}{row['nodes']:6}{row['reads']:7}" + "".join(cells))
    for row in traced:
        print(
            f"a function of {row['layers']} layers: traced, grouped and counted in "
            f"{1e3 * row['trace']:.0f} ms, planned in {1e3 * row['plan']:.1f} ms"
        )


if __name__ == "__main__":
    main()
