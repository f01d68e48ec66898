"""How quick the solvers for two tiers are, from one table of costs on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eejax import partition
from eejax.experiment.context import Context
from eejax.experiment.figures import Lines
from eejax.experiment.report import Report, Section, print_report, save_report
from eejax.experiment.runs.partition.config import Partition
from eejax.experiment.runs.partition.source import load_source
from eejax.experiment.tables import Table, si
from eejax.partition import Costs, Layer, LayerGraph, Tensor
from eejax.partition.dads import cut as dads_cut
from eejax.partition.qdmp import cut as qdmp_cut
from eejax.partition.two_tiers import between
from eejax.tiers import load


@dataclass
class Speed:
    """What to time.

    Attributes:
      models: networks, as for `Partition`.
      nodes: numbers of layers of random graphs.
      width: layers of a block of these.
      topology: what `tiers.load` takes; the lowest and the highest tier count.
      repeats: of which the quickest counts.
      seed: of the random graphs.
    """

    models: tuple[str, ...] = ("resnet18", "resnet50", "googlenet", "densenet121")
    nodes: tuple[int, ...] = (200, 2000, 20000)
    width: int = 20
    topology: str = "raspberry_pi_3,wifi,cloud_gpu"
    repeats: int = 5
    seed: int = 0


def random_dag(nodes: int, seed: int = 0) -> LayerGraph:
    """Makes a graph of layers that read the one before and up to two of the 30 before.

    Args:
      nodes: number of layers.
      seed: of its edges and costs.

    Returns:
      The graph.
    """
    rng = np.random.default_rng(seed)
    readers: list[set[int]] = [set() for _ in range(nodes)]
    for i in range(1, nodes):
        sources = rng.integers(max(0, i - 30), i, rng.integers(0, 3))
        for j in {i - 1, *sources.tolist()}:
            readers[j].add(i)
    flops, nbytes = rng.lognormal(17, 1.5, nodes), rng.lognormal(10, 1.5, nodes)
    layers = tuple(Layer(f"l{i}", f, 1e5, 1000) for i, f in enumerate(flops.tolist()))
    tensors = [Tensor("input", -1, (0,), 3e5)]
    tensors += [
        Tensor(f"t{i}", i, tuple(sorted(mine)), size)
        for i, (mine, size) in enumerate(zip(readers, nbytes.tolist()))
    ]
    return LayerGraph(layers, tuple(tensors), "random")


def blocks_dag(nodes: int, width: int = 20, seed: int = 0) -> LayerGraph:
    """Makes a chain of blocks, such as those of residual networks.

    Args:
      nodes: number of layers.
      width: layers of a block; all paths go through its last one.
      seed: of its edges and costs.

    Returns:
      The graph.
    """
    graph = random_dag(nodes, seed)
    tensors = []
    for tensor in graph.tensors:
        end = (tensor.producer // width + 1) * width
        readers = {min(i, end) for i in tensor.consumers}
        tensors.append(tensor._replace(consumers=tuple(sorted(readers))))
    return graph._replace(tensors=tuple(tensors), granularity="random blocks")


def random_seconds(nodes: int, tiers: int) -> np.ndarray:
    """Draws seconds so that each layer has a favourite tier of its own: a hard case.

    Args:
      nodes: number of layers.
      tiers: number of tiers.

    Returns:
      ``[layers, tiers]``.
    """
    return np.random.default_rng(1).lognormal(-6, 1.5, (nodes, tiers))


def least(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Times a call.

    Args:
      call: without arguments.
      repeats: how often.

    Returns:
      Seconds of the quickest, and what it gave.
    """
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - began)
    return best, result


def compare(config: Speed) -> list[dict[str, Any]]:
    """Times DADS and QDMP on all graphs.

    Args:
      config: the fields.

    Returns:
      ``graph``, ``layers``, ``blocks`` (parts between cut vertices), measured ``dads_s`` and
      ``qdmp_s``, their ``ratio``, and the relative ``gap`` of the costs that they found.

    Raises:
      ValueError: a field is wrong; names it.
    """
    topology = load(config.topology)
    tables: list[tuple[str, LayerGraph, Costs]] = []
    for name in config.models:
        graph = load_source(Partition(model=name), topology).graph
        tables.append((name, graph, partition.tabulate(partition.rates_of(graph, topology))))
    for nodes in config.nodes:
        graph = blocks_dag(nodes, config.width, config.seed)
        seconds = random_seconds(nodes, len(topology.tiers))
        rates = partition.rates_of(graph, topology, layer_seconds=seconds)
        tables.append((f"random blocks {nodes}", graph, partition.tabulate(rates)))
    rows = []
    for name, graph, costs in tables:
        two = between(costs, 0, len(topology.tiers) - 1)
        dads_s, (_, dads_cost) = least(lambda two=two: dads_cut(two), config.repeats)
        qdmp_s, (_, qdmp_cost) = least(lambda two=two: qdmp_cut(two), config.repeats)
        rows.append(
            {
                "graph": name,
                "layers": len(graph.layers),
                "blocks": len(partition.to_blocks(graph).layers),
                "dads_s": dads_s,
                "qdmp_s": qdmp_s,
                "ratio": dads_s / qdmp_s,
                "gap": abs(qdmp_cost - dads_cost) / dads_cost,
            }
        )
    return rows


def run(config: Speed, context: Context) -> dict[str, Any]:
    """Times all, and writes ``summary.json`` and ``report.html``.

    Args:
      config: the fields.
      context: folder and display.

    Returns:
      What ``summary.json`` holds: ``rows``.

    Raises:
      ValueError: a field is wrong; names it.
    """
    rows = compare(config)
    table = Table(
        "Seconds measured here, from the table of costs to the placement; both find the same cost.",
        ["graph", "layers", "blocks", "DADS", "QDMP", "DADS / QDMP", "gap of costs"],
        [
            [r["graph"], r["layers"], r["blocks"], si(r["dads_s"], "s"), si(r["qdmp_s"], "s"),
             f"{r['ratio']:.1f}", f"{r['gap']:.0e}"]
            for r in rows
        ],
    )  # fmt: skip
    random = [r for r in rows if r["graph"].startswith("random")]
    figures = ()
    if random:
        x = [r["layers"] for r in random]
        series = {
            name: (x, [r[key] for r in random])
            for name, key in (("DADS", "dads_s"), ("QDMP", "qdmp_s"))
        }
        title = "Time to solve random graphs of blocks."
        figures = (
            Lines(title, "layers", "time to solve", series, logx=True, logy=True, yunit="s"),
        )
    fastest = max(rows, key=lambda r: r["ratio"])
    report = Report(
        "QDMP beside DADS",
        f"QDMP is at most {fastest['ratio']:.1f} times as quick as DADS ({fastest['graph']}), and "
        f"at least {min(r['ratio'] for r in rows):.2f} times. DADS is one minimum cut of the whole "
        "graph, compiled; QDMP looks for cut vertices first and cuts only blocks that may matter.",
        (Section("Speed", "", (table,), figures),),
    )
    summary = {"rows": rows}
    context.workdir.write_json("summary.json", summary)
    page = save_report(context.workdir, report)
    print_report(context.progress.console, report)
    context.progress.say(f"\nreport: {page}")
    return summary
