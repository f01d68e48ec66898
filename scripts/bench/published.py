"""Puts what papers claim of tensor and pipeline parallelism beside what our theory says.

Bytes are those that tests hold against compiled programs, to the byte. Memory is theory, and read
from compiled programs on eight fake CPU devices in small. Time is modelled: a device computes, then
sends, and each tier has one effective bandwidth, in FLOP that a device does in the time of a byte.
One published row fits each tier, the other rows are predictions:

- within a node: Megatron-LM on 8 GPUs of a DGX-2H, 79.6 % of linear scaling (version 1.0, at
  nv-adlr.github.io/MegatronLMV1; hidden sizes are assumed to be those of the paper's models);
- the network: Optimus against Megatron-LM on 64 GPUs, training 1.48 times as fast. Rings of 64 and
  of 8 devices leave nodes of 4, so that node links play no part.

Layers run again in the backward pass, as in the papers. All other claims are from abstracts, which
give neither sizes nor machines: all rows of 64 devices share the sizes given here, and the network
of Optimus. Tesseract's weak scaling and PipeDream's time to accuracy are left out for that reason.

  python scripts/bench/published.py [--devices 64] [--hidden 3072] [--batch 16] [--seq 512] [--json]
"""

import argparse
import functools
import json
import math
from typing import NamedTuple

import jax

from eejax.cotrain import tensor
from eejax.cotrain.pipeline import SCHEDULES, bubble, weight_versions
from eejax.cotrain.tensor import Shape, layout, theory
from eejax.experiment.threads import spare_threads
from eejax.tiers import make_mesh

BYTES = 2  # Of a number in half precision.


class Cost(NamedTuple):
    """What a device does for one layer: FLOP, and bytes that it sends."""

    flop: float
    nbytes: float


def layer_cost(scheme, grid, shape, tokens, *, training=True):
    """Cost of one layer on a device, in a training step with recomputation or in inference."""
    lo, passes = layout(scheme), 4 if training else 1
    traffic = theory.layer(lo, dict(zip(lo.axes, grid)), tokens, shape, "full")
    flop = (24 * shape.hidden + 4 * shape.seq) * tokens * shape.hidden / math.prod(grid)
    return Cost(passes * flop, BYTES * (traffic.total if training else traffic.forward))


def seconds(cost, per_byte):
    """Modelled time, in the time of a FLOP."""
    return cost.flop + per_byte * cost.nbytes


def fit(ratio, slow, fast):
    """FLOP that a device does in the time of a byte, so that ``slow`` takes ``ratio`` as long."""
    return (ratio * fast.flop - slow.flop) / (slow.nbytes - ratio * fast.nbytes)


def megatron(gpus, hidden):
    """Cost of Megatron-LM in a node, and of its share of the work alone."""
    shape = Shape(hidden, 4 * hidden, hidden // 96, hidden // 96, seq=1024, layers=1, causal=True)
    cost = layer_cost("1d", (gpus,), shape, 8 * 1024)
    return cost, cost._replace(nbytes=0.0)


def node_byte():
    """FLOP in the time of a byte within a node, fitted."""
    return fit(1 / 0.796, *megatron(8, 3072))


def linear(gpus, hidden):
    """Modelled share of linear scaling of Megatron-LM in a node."""
    cost, alone = megatron(gpus, hidden)
    return seconds(alone, node_byte()) / seconds(cost, node_byte())


def kept_bytes(scheme, grid, shape, tokens):
    """Bytes of the input of a layer on a device: what full recomputation keeps."""
    lo = layout(scheme)
    return BYTES * theory.layer_input(lo, dict(zip(lo.axes, grid)), tokens, shape.hidden)


@functools.cache
def measured_bytes(scheme, grid, tokens=512, hidden=64):
    """Bytes that each further layer keeps on a device, float32, as the compiler allocates them."""
    lo = layout(scheme)
    mesh, lies = make_mesh(grid, lo.axes), (tensor.stack_specs(lo), lo.act)
    x = jax.ShapeDtypeStruct((tokens, hidden), "float32")

    def temp(layers):
        shape = Shape(hidden, 4 * hidden, 8, 8, seq=32, layers=layers, causal=True)
        body = functools.partial(tensor.stack, shape=shape, remat="full")
        fn = tensor.spread(body, lo, mesh, lies, lo.act, "shard_map")
        params = jax.eval_shape(lambda: tensor.stack_init(jax.random.key(0), shape))
        step = jax.jit(
            lambda params, x, dy: jax.vjp(fn, params, x)[1](dy),
            in_shardings=tensor.shardings(mesh, (*lies, lo.act)),
        )
        compiled = step.lower(params, x, x).compile({"xla_backend_optimization_level": 0})
        return compiled.memory_analysis().temp_size_in_bytes

    return (temp(8) - temp(4)) / 4


def vgg16_saving():
    """Share of bytes that PipeDream saves on VGG-16: 15 copies of the convolutions, 1 of the rest.

    Float32, 32 samples in a minibatch, gradients of copies in ring all-reduces.
    """
    convolutions, rest, features = 14_714_688, 123_642_856, 7 * 7 * 512
    replicated = 2 * 15 / 16 * (convolutions + rest)
    pipelined = 2 * 14 / 15 * convolutions + 2 * 32 * features
    return 1 - pipelined / replicated


def verdict(published, modelled):
    """Says whether the model shows a published advantage: within 10 %, some of it, or none."""
    if modelled >= 0.9 * published:
        return "yes"
    return "in part" if modelled > 1.02 else "no"


def tensor_rows(devices, hidden, batch, seq):
    """Rows on tensor parallelism; ``devices`` must be a square and a cube, such as 64."""
    q, c = math.isqrt(devices), round(devices ** (1 / 3))
    if q * q != devices or c**3 != devices:
        raise SystemExit(f"--devices must be a square and a cube, such as 64, got {devices}")
    tokens = batch * seq
    shape = Shape(hidden, 4 * hidden, hidden // 48, hidden // 48, seq=seq, layers=1, causal=False)
    grids = {"1d": (devices,), "2d": (q, q), "2.5d": (c, c, c), "3d": (c, c, c), "2d_opt": (q, q)}
    train, infer = (
        {n: layer_cost(n, grid, shape, tokens, training=t) for n, grid in grids.items()}
        for t in (True, False)
    )
    network = fit(1.48, train["1d"], train["2d"])
    # Only activations move along the columns of a 2.5-D grid: what is left at no tokens does not.
    other = layer_cost("2.5d", grids["2.5d"], shape, 2 * tokens).nbytes
    free_columns = train["2.5d"]._replace(nbytes=2 * train["2.5d"].nbytes - other)

    def row(claim, published, slow, fast, costs=train, fitted=False):
        times = seconds(costs[slow], network) / seconds(costs[fast], network)
        fewer = costs[slow].nbytes / costs[fast].nbytes
        shows = "fitted" if fitted else "" if published is None else verdict(published, times)
        said = "" if published is None else f"{published:.2f} times as fast"
        ours = f"{fewer:.2f} times fewer bytes"
        if fitted:
            ours += f"; {network:.0f} FLOP a byte of the network"
        return claim, said, f"{times:.2f}", shows, ours

    free = seconds(train["2d"], network) / seconds(free_columns, network)
    kept = kept_bytes("1d", (devices,), shape, tokens) / kept_bytes("2d", (q, q), shape, tokens)
    measured = [measured_bytes("1d", (g[0] * g[1],)) / measured_bytes("2d", g)
                for g in ((2, 2), (4, 2))]  # fmt: skip
    in_node = [("8 GPUs of a node", 79.6, 100 * linear(8, 3072)),
               ("4 GPUs", 86.5, 100 * linear(4, 2304)),
               ("2 GPUs", 90.7, 100 * linear(2, 1920))]  # fmt: skip
    return [
        *((f"Megatron-LM (1-D), {gpus}" if gpus[0] == "8" else f"... {gpus}",
           f"{said} % of linear", f"{ours:.1f} %",
           "fitted" if gpus[0] == "8" else "yes" if abs(ours - said) < 5 else "no",
           f"{node_byte():.0f} FLOP a byte in the node" if gpus[0] == "8" else "")
          for gpus, said, ours in in_node),
        row("Optimus (2-D) against 1-D, training", 1.48, "1d", "2d", fitted=True),
        row("... inference", 1.78, "1d", "2d", infer),
        ("... largest batch", "8 times", "", "yes" if kept >= 8 else "no",
         f"{kept:.0f} times less kept of a layer; compiled on 4 and 8 fake devices: "
         f"{measured[0]:.0f} and {measured[1]:.0f} times"),
        row("Tesseract (2.5-D) against 1-D", 1.38, "1d", "2.5d"),
        row("... against 2-D", 1.53, "2d", "2.5d"),
        (f"... if links within nodes of {c} took no time", "", f"{free:.2f}",
         verdict(1.53, free), ""),
        row("3-D against 1-D", 2.32, "1d", "3d"),
        row("... against 2-D", 1.57, "2d", "3d"),
        row("ours, 2d_opt (the largest operand stays), against 2-D", None, "2d", "2d_opt"),
        row("... against 3-D", None, "3d", "2d_opt"),
    ]  # fmt: skip


def pipeline_rows():
    """Rows on pipelines, by their executed schedules; messages take no time."""
    idle = bubble(SCHEDULES["gpipe"](4, 16))
    speedup = 8 * (1 - bubble(SCHEDULES["gpipe"](8, 32)))
    flush = bubble(SCHEDULES["one_f_one_b"](4, 4))
    steady = (1 - bubble(SCHEDULES["pipedream"](4, 1000))) / (1 - flush)
    versions = weight_versions(SCHEDULES["pipedream"](4, 16)).slots.tolist()
    saving = vgg16_saving()
    return [
        ("GPipe: almost linear speed-up", "", f"{speedup:.2f} on 8 stages, M = 32",
         verdict(8, speedup), ""),
        ("GPipe: bubble negligible from M = 4 S on", "", "", "no",
         f"{100 * idle:.1f} % idle at S = 4, M = 16"),
        ("PipeDream: no flush, S - s weight versions", "",
         f"{steady:.2f} times as fast as a flush every S minibatches, S = 4", "",
         f"versions {versions} at S = 4, executed"),
        ("PipeDream against data parallelism", "up to 95 % fewer bytes", "",
         "yes" if saving >= 0.9 * 0.95 else "in part",
         f"{100 * saving:.0f} % fewer for VGG-16 on 15 + 1 devices"),
    ]  # fmt: skip


COLUMNS = ("claim", "published", "modelled time", "shows", "bytes, memory, schedule")


def measure(devices, hidden, batch, seq):
    """All rows, as dicts of `COLUMNS`."""
    rows = tensor_rows(devices, hidden, batch, seq) + pipeline_rows()
    return [dict(zip(COLUMNS, row)) for row in rows]


def main():
    """Parses the arguments and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    spare_threads(8)
    rows = measure(args.devices, args.hidden, args.batch, args.seq)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


if __name__ == "__main__":
    main()
