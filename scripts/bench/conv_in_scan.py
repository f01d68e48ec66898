"""Times one training step of a small CNN with both convolutions, alone and inside ``lax.scan``.

On CPU the native convolution of XLA is slow inside compiled loops; see `eejax.models.conv`. Run:

  python scripts/bench/conv_in_scan.py [--batch 32] [--steps 20] [--repeats 3] [--json]
"""

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp

from eejax.models import conv, max_pool


def loss(params, x, *, impl):
    """Mean squared output of two convolutions and a dense layer on ``[batch, 28, 28, 1]``."""
    for kernel in params["kernels"]:
        x = max_pool(jax.nn.relu(conv(x, kernel, impl=impl)))
    return jnp.square(x.reshape(x.shape[0], -1) @ params["dense"]).mean()


def step(params, x, *, impl):
    """One step of SGD."""
    value, grads = jax.value_and_grad(loss)(params, x, impl=impl)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), value


def milliseconds(fn, repeats, steps):
    """Least time of a step over ``repeats`` calls of ``fn``, after one call to compile."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        times.append((time.perf_counter() - start) / steps * 1e3)
    return min(times[1:])


def measure(batch, steps, repeats):
    """Milliseconds a step as ``{implementation: {"loop": ..., "scan": ...}}``."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "kernels": [
            0.3 * jax.random.normal(keys[0], (3, 3, 1, 8)),
            0.1 * jax.random.normal(keys[1], (3, 3, 8, 16)),
        ],
        "dense": 0.03 * jax.random.normal(keys[2], (7 * 7 * 16, 10)),
    }
    x = jax.random.normal(keys[3], (steps, batch, 28, 28, 1))

    def loop(jit_step):
        p = params
        for i in range(steps):
            p, _ = jit_step(p, x[i])
        return p

    results = {}
    for impl in ("native", "im2col"):
        run = functools.partial(step, impl=impl)
        jit_step = jax.jit(run)
        scan = jax.jit(functools.partial(jax.lax.scan, run))
        results[impl] = {
            "loop": milliseconds(functools.partial(loop, jit_step), repeats, steps),
            "scan": milliseconds(functools.partial(scan, params, x), repeats, steps),
        }
    return results


def main():
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    results = measure(args.batch, args.steps, args.repeats)
    ratio = {how: results["native"][how] / results["im2col"][how] for how in results["native"]}
    if args.json:
        print(json.dumps({"backend": jax.default_backend(), "ms": results, "ratio": ratio}))
        return
    print(f"milliseconds a training step, batch {args.batch}, on {jax.default_backend()}")
    print(f"{'':8}{'loop of jitted steps':>24}{'one lax.scan':>16}")
    for impl, ms in results.items():
        print(f"{impl:8}{ms['loop']:24.2f}{ms['scan']:16.2f}")
    print(f"{'ratio':8}{ratio['loop']:24.2f}{ratio['scan']:16.2f}")


if __name__ == "__main__":
    main()
