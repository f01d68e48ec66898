"""Puts what papers claim of tensor and pipeline parallelism beside what our theory of bytes says.

The theory is the one that tests hold against compiled programs, to the byte. Times are not
modelled: a ratio of bytes bounds a speed-up only where the network is what hurts. Run:

  python scripts/bench/published.py [--devices 64] [--hidden 3072] [--batch 16] [--seq 512] [--json]
"""

import argparse
import json
import math

from eejax.cotrain.pipeline import SCHEDULES, bubble, weight_versions
from eejax.cotrain.tensor import Shape, layout, theory

BYTES = 2  # Of a number in half precision, as in the papers.


def layer_bytes(scheme, grid, shape, tokens):
    """Bytes that a device sends for one layer, forward and backward, gathering operands again."""
    lo = layout(scheme)
    traffic = theory.layer(lo, dict(zip(lo.axes, grid)), tokens, shape, "gathers")
    return BYTES * (traffic.forward + traffic.backward)


def kept_bytes(scheme, grid, shape, tokens):
    """Bytes of the input of a layer on a device: what full recomputation keeps."""
    lo = layout(scheme)
    return BYTES * theory.layer_input(lo, dict(zip(lo.axes, grid)), tokens, shape.hidden)


def measure(devices, hidden, batch, seq):
    """Rows ``{claim, ours}``; ``devices`` must be a square and a cube, such as 64."""
    q, c = math.isqrt(devices), round(devices ** (1 / 3))
    if q * q != devices or c**3 != devices:
        raise SystemExit(f"--devices must be a square and a cube, such as 64, got {devices}")
    heads, tokens = hidden // 48, batch * seq
    shape = Shape(hidden, 4 * hidden, heads, heads, seq=seq, layers=1, causal=False)
    grids = {"1d": (devices,), "2d": (q, q), "2.5d": (c, c, c), "3d": (c, c, c), "2d_opt": (q, q)}
    sent = {name: layer_bytes(name, grid, shape, tokens) for name, grid in grids.items()}
    kept = {name: kept_bytes(name, grid, shape, tokens) for name, grid in grids.items()}
    rows = [
        ("Optimus (2-D) against Megatron (1-D), 64 GPUs: training 1.48 times as fast",
         f"{sent['1d'] / sent['2d']:.2f} times fewer bytes"),
        ("Optimus: 8 times the batch of Megatron",
         f"{kept['1d'] / kept['2d']:.0f} times less kept of a layer"),
        ("Tesseract (2.5-D) against 1-D, strong scaling: 1.38 times",
         f"{sent['1d'] / sent['2.5d']:.2f} times fewer bytes"),
        ("Tesseract (2.5-D) against 2-D, strong scaling: 1.53 times",
         f"{sent['2d'] / sent['2.5d']:.2f} times fewer bytes"),
        ("3-D against 1-D and 2-D",
         f"{sent['1d'] / sent['3d']:.2f} and {sent['2d'] / sent['3d']:.2f} times fewer bytes"),
        ("ours, 2d_opt (the largest operand stays), against 2-D and 3-D",
         f"{sent['2d'] / sent['2d_opt']:.2f} and {sent['3d'] / sent['2d_opt']:.2f} times fewer"),
        ("GPipe: bubble negligible from M = 4 S micro-batches on",
         f"{100 * bubble(SCHEDULES['gpipe'](4, 16)):.1f} % idle at S = 4, M = 16"),
        ("PipeDream: no bubble, S - s weight versions",
         f"{weight_versions(SCHEDULES['pipedream'](4, 16)).slots.tolist()} at S = 4, executed"),
    ]  # fmt: skip
    return [{"claim": claim, "ours": ours} for claim, ours in rows]


def main():
    """Parses the arguments and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    rows = measure(args.devices, args.hidden, args.batch, args.seq)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print("| published | ours, by theory |\n|---|---|")
    for row in rows:
        print(f"| {row['claim']} | {row['ours']} |")


if __name__ == "__main__":
    main()
