"""Competitors of ``federated.py`` in JAX: the engine of eejax, and a scan without any framework."""

import argparse

import federated_work as fw
import numpy as np


def max_pool(x):
    """Halves height and width."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def apply(conv, pool, padding, pools, params, x):
    """Logits ``[batch, 10]`` of any of the models."""
    import jax

    kernels = [layer for layer in params if layer[0].ndim == 4]
    for i, (kernel, bias) in enumerate(kernels):
        x = jax.nn.relu(conv(x, kernel, padding) + bias[None, None, None])
        x = pool(x) if i in pools else x
    x = x.reshape(x.shape[0], -1)
    for kernel, bias in params[len(kernels) : -1]:
        x = jax.nn.relu(x @ kernel + bias[None])
    kernel, bias = params[-1]
    return x @ kernel + bias[None]


def im2col(x, kernel, padding):
    """A convolution by one matrix product."""
    import jax.numpy as jnp

    kh, kw, channels, features = kernel.shape
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    n, height, width = x.shape[0], x.shape[1] - kh + 1, x.shape[2] - kw + 1
    slices = [x[:, i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
    patches = jnp.concatenate(slices, -1).reshape(-1, kh * kw * channels)
    return (patches @ kernel.reshape(-1, features)).reshape(n, height, width, features)


def make_loss(model, conv, pool=max_pool):
    """Mean cross-entropy ``(params, x, y) -> scalar``, with ``conv(x, kernel, padding)``."""
    import functools

    import jax
    import jax.numpy as jnp

    padding, pools = ("VALID", {1}) if model == "cifar" else ("SAME", {0, 1})
    logits = functools.partial(apply, conv, pool, padding, pools)

    def loss(params, x, y):
        log_p = jax.nn.log_softmax(logits(params, x))
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean()

    return loss


def norm_of(params):
    """L2 norm of a tree."""
    import jax

    return float(np.sqrt(sum(np.square(np.float64(p)).sum() for p in jax.tree.leaves(params))))


def scan(work, seed):
    """Hand-written FedAvg: two scans, clients and steps; batches are chosen beforehand."""
    import jax
    import jax.numpy as jnp

    del seed
    grad, rate = jax.grad(make_loss(work.model, im2col)), work.shape.rate

    def run(params, x, y, picks):
        def client(total, rows):
            def step(w, row):
                g = grad(w, x[row], y[row])
                return jax.tree.map(lambda w, g: w - rate * g, w, g), None

            w, _ = jax.lax.scan(step, params, rows)
            return jax.tree.map(lambda t, w, p: t + (w - p), total, w, params), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, _ = jax.lax.scan(client, zeros, picks)
        return jax.tree.map(lambda p, t: p + t / picks.shape[0], params, total)

    run = jax.jit(run, donate_argnums=0)
    x, y = jax.device_put((work.x, work.y))
    box = [jax.device_put(work.params)]

    def run_round(r):
        box[0] = jax.block_until_ready(run(box[0], x, y, work.picks[r]))

    return run_round, lambda: norm_of(box[0])


def engine(model, shape, data, index, seed, keeps=0):
    """The engine of eejax and what its rounds take: ``(run, state, rows, data, key)``.

    With ``keeps`` every client has a state of so many bytes, which each of its rounds changes.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from eejax.cotrain import federated
    from eejax.models import conv
    from eejax.models import max_pool as pool
    from eejax.tiers import tier_mesh

    grad = jax.grad(make_loss(model, lambda x, w, padding: conv(x, w, padding=padding), pool))
    algorithm = federated.fedavg(lambda w, b, key: (grad(w, *b), {}), optax.sgd(shape.rate))
    if keeps:

        def local_update(params, client_state, *rest, **tau):
            upload, _, metrics = train(params, (), *rest, **tau)
            return upload, client_state + 1, metrics

        train = algorithm.local_update
        algorithm = algorithm._replace(
            client_init=lambda params: jnp.zeros(keeps // 4), local_update=local_update
        )
    mesh = tier_mesh(1, len(jax.devices()))
    made = federated.sampled(
        algorithm, mesh, federated.samplers.uniform(shape.cohort),
        steps=shape.samples // shape.batch, batch=shape.batch,
    )  # fmt: skip
    rows = federated.population(index)
    state = made.init(fw.init_params(model, shape.image), rows)
    return made.run, state, *federated.replicate(mesh, (rows, data)), jax.random.key(seed)


def index_of(shape):
    """Samples of each client, which lie together."""
    from eejax.data import ClientIndex

    table = np.arange(shape.clients * shape.samples).reshape(shape.clients, -1)
    return ClientIndex(table, np.full(shape.clients, shape.samples))


def eejax(work, seed):
    """FedAvg by the engine; it draws cohorts and batches itself, in the compiled round."""
    made = engine(work.model, work.shape, (work.x, work.y), index_of(work.shape), seed)
    return rounds_of(*made)


def rounds_of(run, state, *args):
    """One call a round, as `fw.serve` has it."""
    import jax

    box = [state]

    def run_round(r):
        del r
        box[0], _ = jax.block_until_ready(run(box[0], *args))

    return run_round, lambda: norm_of(box[0].server.params)


def crowd(clients, cohort, keeps, seed, pool=fw.SHAPES["mnist"]):
    """Logistic regression of very many clients, whose samples are drawn from one pool."""
    from eejax.data import ClientIndex

    x, y = fw.make_data(pool)
    table = np.random.default_rng(1).integers(len(y), size=(clients, pool.samples), dtype=np.int32)
    shape = pool._replace(clients=clients, cohort=cohort)
    index = ClientIndex(table, np.full(clients, pool.samples))
    return rounds_of(*engine("lr", shape, (x, y), index, seed, keeps))


def record(shape, rounds, seed):
    """The cohorts and batches that the engine will draw: of clients that only note their samples.

    Returns:
      ``[rounds, cohort]`` and ``[rounds, cohort, steps, batch]``, by the clients' numbers.
    """
    import jax
    import jax.numpy as jnp

    from eejax.core import FederatedAlgorithm
    from eejax.cotrain import federated
    from eejax.tiers import tier_mesh

    steps, nothing = shape.samples // shape.batch, jnp.zeros(())
    algorithm = FederatedAlgorithm(
        init=lambda params: params,
        client_init=lambda params: jnp.full((steps, shape.batch), -1, jnp.int32),
        local_update=lambda b, state, batches, key, tau=None: (nothing, batches, {}),
        server_update=lambda params, mean: params,
        broadcast=lambda params: params,
    )
    mesh = tier_mesh(1, 1, jax.devices()[:1])
    made = federated.sampled(
        algorithm, mesh, federated.samplers.uniform(shape.cohort), steps=steps, batch=shape.batch
    )
    rows = federated.replicate(mesh, federated.population(index_of(shape)))
    data = jnp.arange(shape.clients * shape.samples, dtype=jnp.int32)
    state, cohorts, picks = made.init(nothing, rows), [], []
    for _ in range(rounds):
        state = state._replace(clients=jax.tree.map(lambda x: x * 0 - 1, state.clients))
        state, _ = made.run(state, rows, data, jax.random.key(seed))
        noted = np.asarray(state.clients.state)[0]
        (cohort,) = np.nonzero(noted[:, 0, 0] >= 0)
        cohorts.append(cohort)
        picks.append(noted[cohort])
    return np.stack(cohorts).astype(np.int32), np.stack(picks)


def main():
    """One competitor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("eejax", "scan", "crowd"))
    parser.add_argument("work", help="folder of the work")
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--clients", type=int, help="of a crowd")
    parser.add_argument("--cohort", type=int, help="of a crowd")
    parser.add_argument("--keeps", type=int, default=0, help="bytes of the state of each, in one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fw.pin(args.cores)
    import jax

    from eejax.experiment.threads import spare_threads

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    spare_threads(args.devices)
    if args.name == "crowd":
        fw.serve(*crowd(args.clients, args.cohort, args.keeps, args.seed))
    else:
        make = {"eejax": eejax, "scan": scan}[args.name]
        fw.serve(*make(fw.load(args.work), args.seed))


if __name__ == "__main__":
    main()
