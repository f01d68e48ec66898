"""Times a training step of one convolution as it is, and with the patches of the whole batch.

`eejax.models.conv` makes the patches of a few images at a time where those of all would not stay in
a cache, and makes them again for the gradient. Ratios are processor seconds of the whole batch at
once over those of `conv`, median of turns with quartiles, in a ``lax.scan``: above 1, `conv` is
faster. Where patches are few the two are the same program. Run:

  taskset -c 0 python scripts/bench/conv_blocks.py [--turns 7] [--json]
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from federated_ours import im2col

from eejax.models import conv

STEPS = 4
SHAPES = (  # Batch, height and width, channels in and out, size of the kernel.
    (10, 28, 32, 64, 3),
    (20, 14, 16, 32, 3),
    (32, 32, 3, 16, 3),
    (32, 32, 16, 16, 3),
    (64, 28, 32, 32, 3),
    (64, 28, 1, 32, 5),
    (64, 12, 6, 16, 5),
    (16, 32, 64, 64, 3),
    (16, 14, 128, 128, 3),
    (8, 56, 64, 64, 3),
)


def training(convolve, kernel, scale, images):
    """Compiles some steps of SGD on a convolution whose input depends on a parameter, too."""

    def loss(params, x):
        return jnp.square(jax.nn.relu(convolve(x * params[1], params[0], padding="SAME"))).mean()

    def step(params, x):
        grads = jax.grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), None

    run = jax.jit(lambda params, images: jax.lax.scan(step, params, images)[0])
    jax.block_until_ready(run((kernel, scale), images))
    return lambda: jax.block_until_ready(run((kernel, scale), images))


def compare(shape, turns):
    """Ratios of one shape, turn by turn."""
    batch, side, channels, features, size = shape
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(0.05 * rng.normal(size=(size, size, channels, features)), jnp.float32)
    images = jnp.asarray(rng.normal(size=(STEPS, batch, side, side, channels)), jnp.float32)
    ways = [training(way, kernel, jnp.ones(channels), images) for way in (im2col, conv)]
    seconds = np.zeros((turns, 2))
    for turn in range(turns):
        for i in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            ways[i]()
            seconds[turn, i] = time.process_time() - start
    low, middle, high = np.percentile(seconds[:, 0] / seconds[:, 1], (25, 50, 75)).tolist()
    return {
        "shape": shape,
        "patches_mb": 4 * size**2 * channels * side**2 * batch / 2**20,
        "ms": (seconds.min(0) / STEPS * 1e3).tolist(),
        "ratio": {"median": middle, "quartiles": [low, high]},
    }


def main(argv=None):
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="one small shape, to see that all runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    shapes = ((2, 8, 2, 3, 3),) if args.tiny else SHAPES
    rows = [compare(shape, args.turns) for shape in shapes]
    if args.json:
        print(json.dumps({"backend": jax.default_backend(), "rows": rows}))
        return
    print(f"{'batch, side, in, out, kernel':30}{'patches, MB':>12}{'whole, ms':>11}{'conv, ms':>10}"
          f"{'whole / conv':>22}")  # fmt: skip
    for row in rows:
        whole, ours = row["ms"]
        low, high = row["ratio"]["quartiles"]
        ratio = f"{row['ratio']['median']:.2f} ({low:.2f}-{high:.2f})"
        print(f"{row['shape']!s:30}{row['patches_mb']:12.1f}{whole:11.2f}{ours:10.2f}{ratio:>22}")


if __name__ == "__main__":
    main()
