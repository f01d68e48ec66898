"""Compares tensor-parallel layouts of a transformer layer by what the compiled program sends.

Each scheme gets the grid that sends least, by theory, of all grids without an axis of one device.
Nothing runs: bytes are read from the compiled training step (forward and backward) of one layer on
fake CPU devices. The face ``shard_map`` writes collectives by hand, ``jit`` leaves them to XLA.

  python scripts/bench/tensor.py [--devices 8] [--tokens 1024] [--hidden 128] [--heads 8] [--json]
"""

import argparse
import functools
import itertools
import json
import math

import jax

from eejax.cotrain import tensor
from eejax.experiment.threads import spare_threads
from eejax.tiers import collectives, make_mesh


def grids(layout, devices):
    """All ways to lay a number of devices over the axes of a layout; Tesseract is square."""
    divisors = [d for d in range(2, devices + 1) if devices % d == 0]
    for grid in itertools.product(divisors, repeat=len(layout.axes)):
        if math.prod(grid) == devices and (layout.name != "2.5d" or grid[1] == grid[2]):
            yield dict(zip(layout.axes, grid))


def best_grid(layout, devices, tokens, shape):
    """The grid that sends least, or None if the sizes cannot be split."""
    options = {}
    for sizes in grids(layout, devices):
        try:
            tensor.check(layout, sizes, tokens=tokens, sequences=tokens // shape.seq, **shape.sizes)
        except ValueError:
            continue
        options[tuple(sizes.items())] = tensor.theory.layer(layout, sizes, tokens, shape).total
    return dict(min(options, key=options.get)) if options else None


def measure(layout, sizes, tokens, shape, face):
    """One row of the table."""
    mesh, specs = make_mesh(tuple(sizes.values()), tuple(sizes)), tensor.layer_specs(layout)
    body = functools.partial(tensor.layer, shape=shape)
    fn = tensor.spread(body, layout, mesh, (specs, layout.act), layout.act, face)

    def forward_and_backward(params, x, dy):
        y, vjp = jax.vjp(fn, params, x)
        return y, vjp(dy)

    params = jax.eval_shape(lambda: tensor.layer_init(jax.random.key(0), shape))
    x = jax.ShapeDtypeStruct((tokens, shape.hidden), "float32")
    lies = tensor.shardings(mesh, (specs, layout.act, layout.act))
    compiled = jax.jit(forward_and_backward, in_shardings=lies).lower(params, x, x).compile()
    found = collectives(compiled, mesh)
    theory = 4 * tensor.theory.layer(layout, sizes, tokens, shape).total
    return {
        "scheme": layout.name,
        "grid": sizes,
        "face": face,
        "bytes": found.total,
        "theory": theory,
        "ratio": found.total / theory,
        "params_bytes": 4 * tensor.theory.local_size(params, specs, sizes),
        "input_bytes": 4 * tensor.theory.layer_input(layout, sizes, tokens, shape.hidden),
        "count": found.count,
    }


def main():
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--seq", type=int, default=16)
    parser.add_argument("--face", choices=("shard_map", "jit", "both"), default="both")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    spare_threads(args.devices)
    shape = tensor.Shape(
        args.hidden, 4 * args.hidden, args.heads, args.heads, args.seq, layers=1, causal=True
    )
    faces = ("shard_map", "jit") if args.face == "both" else (args.face,)
    rows, left_out = [], []
    for scheme in tensor.SCHEMES[1:]:
        layout = tensor.layout(scheme)
        sizes = best_grid(layout, args.devices, args.tokens, shape)
        if sizes is None:
            left_out.append(scheme)
            continue
        rows += [measure(layout, sizes, args.tokens, shape, face) for face in faces]
    products = ((args.hidden, 3 * args.hidden), (args.hidden, args.hidden)) + 2 * (
        (args.hidden, 4 * args.hidden),
    )
    bound = 4 * sum(tensor.lower_bound(args.tokens, n, k, args.devices) for n, k in products)
    if args.json:
        print(json.dumps({"rows": rows, "left_out": left_out, "forward_lower_bound": bound}))
        return
    print(
        f"one layer, forward and backward, float32 bytes of a device; {args.devices} devices, "
        f"{args.tokens} tokens, {args.hidden} hidden"
    )
    print(
        f"{'scheme':8}{'grid':16}{'face':11}{'bytes':>11}{'theory':>11}{'ratio':>7}"
        f"{'params':>10}{'input':>9}"
    )
    for row in rows:
        grid = " x ".join(map(str, row["grid"].values()))
        print(
            f"{row['scheme']:8}{grid:16}{row['face']:11}{row['bytes']:11.0f}{row['theory']:11.0f}"
            f"{row['ratio']:7.3f}{row['params_bytes']:10}{row['input_bytes']:9}"
        )
    for scheme in left_out:
        print(f"{scheme:8}cannot split these sizes over {args.devices} devices")
    print(f"lower bound of the four products, forward only: {bound:.0f}")


if __name__ == "__main__":
    main()
