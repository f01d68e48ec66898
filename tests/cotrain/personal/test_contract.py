"""The contract of personalised training: a new method joins by adding a row to METHODS.

As with federated algorithms, the pseudo-code of each paper is beside it as plain Python, and the
engines must reproduce it in any order of clients and over any mesh: the server, and the model of
every client, by what `evaluator` says of it.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from eejax import trees
from eejax.cotrain.federated import (
    Epochs,
    FederatedState,
    Rows,
    fedavg,
    fedsgd,
    flat,
    hierfavg,
    place,
    population,
    replicate,
    rows_of,
    sampled,
    samplers,
)
from eejax.cotrain.federated.clients import ClientStack
from eejax.cotrain.personal import (
    Personal,
    by_client,
    ditto,
    evaluator,
    fedfomo,
    fedper,
    fedrecon,
    fedrep,
    fine_tune,
    local_only,
    maml,
    meta_sgd,
    mocha,
    per_fedavg,
    pfedsd,
    pfldyn,
    reptile,
    seated,
)
from eejax.cotrain.personal.maml import meta_gradient
from eejax.cotrain.personal.seats import Seat, renew_stack
from eejax.data import client_batches, pack
from eejax.tiers import three_tier, tier_mesh

LR, ALPHA, K1, BATCH, ROUNDS = 0.2, 0.3, 2, 6, 4
COUNTS = (7, 9, 1, 12, 8, 3, 10, 6)
N = len(COUNTS)
KEY = jax.random.key(5)
SGD = optax.sgd(LR)
HEAD, EPOCH = ["^head/"], Epochs(1)


def logits(w, x):
    if "head" not in w:
        return x @ w["kernel"] + w["bias"][None]
    hidden = jnp.tanh(x @ w["body"]["kernel"] + w["body"]["bias"][None])
    return hidden @ w["head"]["kernel"] + w["head"]["bias"][None]


def losses(w, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits(w, batch["x"]), batch["y"])


def loss(w, batch):
    return losses(w, batch).mean()


def grad_fn(w, batch, key):
    del key
    value, grads = jax.value_and_grad(loss)(w, batch)
    return grads, {"loss": value}


def metric_fn(w, samples):
    found = logits(w, samples["x"])
    return {
        "loss": losses(w, samples),
        "accuracy": found.argmax(-1) == samples["y"],
        "logit": found[:, 0],
    }


def make_data():
    """Points of the plane whose classes each client names differently."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sum(COUNTS), 2)).astype(np.float32)
    turn = np.repeat(np.arange(N) % 3, COUNTS)
    y = (np.floor((np.arctan2(x[:, 1], x[:, 0]) / np.pi + 1) * 1.499) + turn) % 3
    return {"x": x, "y": y.astype(np.int32)}


def make_params(linear=False):
    rng = np.random.default_rng(1)

    def dense(n, m):
        return {
            "kernel": rng.normal(size=(n, m)).astype(np.float32),
            "bias": np.zeros(m, np.float32),
        }

    return dense(2, 3) if linear else {"body": dense(2, 4), "head": dense(4, 3)}


def make_rows(edges=2, counts=COUNTS):
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    return rows_of(three_tier(len(counts), edges), pack(parts))


host_batches = jax.jit(client_batches, static_argnums=(4, 5))


@functools.cache
def table():
    return pack(np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1]))


def batches_of(client, start, steps, data=None):
    count = COUNTS[client]
    if isinstance(steps, Epochs):
        epoch = int(np.ceil(count / BATCH))
        start, steps = start * epoch, steps.epochs * epoch
    order_key = jax.random.split(jax.random.fold_in(KEY, client), 3)[0]
    picked = host_batches(order_key, table().table[client], count, start, steps, BATCH)
    return [
        {name: a[step] for name, a in (data or make_data()).items()} for step in np.asarray(picked)
    ]


# Arithmetic of trees on the host.


def tree(fn, *trees_):
    return jax.tree.map(fn, *trees_)


def mean(uploads, weights=None):
    share = np.ones(len(uploads)) if weights is None else np.array(weights, float)
    share = share / share.sum()
    return tree(lambda *u: sum(a * b for a, b in zip(share, u)), *uploads)


def add(a, b, scale=1.0):
    return tree(lambda a, b: a + scale * b, a, b)


def sub(a, b):
    return add(a, b, -1.0)


def zeros(params):
    return tree(np.zeros_like, params)


_gradient = jax.jit(jax.grad(loss))
_loss = jax.jit(loss)


def gradient(w, batch):
    return jax.device_get(_gradient(w, batch))


def cut(batch, *sizes):
    at = np.cumsum((0, *sizes))
    return [tree(lambda x, a=a, b=b: x[a:b], batch) for a, b in itertools.pairwise(at)]


def halves(batch):
    return cut(batch, BATCH // 2, BATCH // 2)


def descend(w, batches, direction=gradient, lr=LR):
    for batch in batches:
        w = add(w, direction(w, batch), -lr)
    return w


@functools.cache
def _hessian():
    def of(flat, like, batch):
        return loss(jax.flatten_util.ravel_pytree(like)[1](flat), batch)

    return jax.jit(jax.hessian(of))


def hessian_times(w, batch, v):
    """By the whole matrix."""
    flat, unravel = jax.flatten_util.ravel_pytree(w)
    matrix = np.asarray(_hessian()(flat, w, batch))
    product = matrix @ np.asarray(jax.flatten_util.ravel_pytree(v)[0])
    return jax.device_get(unravel(jnp.asarray(product)))


# What each paper says: a client, the server, and the personal model.


def model_of(server):
    return server["w"]


def fedavg_client(server, memory, batches, c, direction=gradient):
    return sub(descend(server["w"], batches, direction), server["w"]), memory


def average(server, uploads, n):
    return {**server, "w": add(server["w"], mean(uploads, n))}


def average_alike(server, uploads, n, scale=1.0):
    return {**server, "w": add(server["w"], mean(uploads), scale)}


def tuned(lr):
    return lambda server, memory, batches, c: descend(server["w"], batches, lr=lr)


def remembered(server, memory, batches, c):
    return memory


def local_client(server, w, batches, c):
    return (), descend(w, batches)


def per_fedavg_direction(variant):
    def direction(w, batch):
        """Fallah et al., Algorithm 1, lines 9 to 12."""
        if variant == "fo":
            d, d1 = halves(batch)
            return gradient(add(w, gradient(w, d), -ALPHA), d1)
        d, d1, d2 = cut(batch, 2, 2, 2)
        v = gradient(add(w, gradient(w, d), -ALPHA), d1)
        return sub(v, tree(lambda h: ALPHA * h, hessian_times(w, d2, v)))

    return direction


def maml_direction(theta, batch):
    """Chen et al., Algorithm 1, ModelTrainingMAML, with two inner steps: products of I - a H."""
    support, query = halves(batch)
    first = add(theta, gradient(theta, support), -ALPHA)
    second = add(first, gradient(first, support), -ALPHA)
    g = gradient(second, query)
    g = add(g, hessian_times(first, support, g), -ALPHA)
    return add(g, hessian_times(theta, support, g), -ALPHA)


def maml_client(server, memory, batches, c):
    return mean([maml_direction(server["w"], b) for b in batches]), memory


def meta_sgd_client(server, memory, batches, c):
    """Chen et al., Algorithm 1, ModelTrainingMetaSGD."""
    grads = []
    for batch in batches:
        support, query = halves(batch)
        g_s = gradient(server["w"], support)
        theta = tree(lambda t, a, g: t - a * g, server["w"], server["alpha"], g_s)
        g = gradient(theta, query)
        scaled = tree(np.multiply, server["alpha"], g)
        of_theta = sub(g, hessian_times(server["w"], support, scaled))
        grads.append((of_theta, tree(lambda s, g: -s * g, g_s, g)))
    return mean(grads), memory


def meta_sgd_server(server, uploads, n):
    of_theta, of_alpha = mean(uploads)
    return {"w": add(server["w"], of_theta, -LR), "alpha": add(server["alpha"], of_alpha, -LR)}


def meta_sgd_model(server, memory, batches, c):
    theta = server["w"]
    for batch in batches:
        theta = tree(lambda t, a, g: t - a * g, theta, server["alpha"], gradient(theta, batch))
    return theta


def ditto_client(server, v, batches, c, lam=0.7):
    """Li et al., Algorithm 1."""
    upload, _ = fedavg_client(server, (), batches, c)

    def direction(v, batch):
        return add(gradient(v, batch), sub(v, server["w"]), lam)

    return upload, descend(v, batches, direction)


def with_head(server, head):
    return {"body": server["w"]["body"], "head": head}


def joined(server, head, batches, c):
    return with_head(server, head)


def fedper_client(server, head, batches, c):
    """Arivazhagan et al., Algorithm 1."""
    w = descend(with_head(server, head), batches)
    return {"body": sub(w["body"], server["w"]["body"])}, w["head"]


def fit_head(body, head, batches):
    for batch in batches:
        head = add(head, gradient({"body": body, "head": head}, batch)["head"], -LR)
    return head


def fit_body(body, head, batches):
    for batch in batches:
        body = add(body, gradient({"body": body, "head": head}, batch)["body"], -LR)
    return body


def fedrep_client(server, head, batches, c):
    """Collins et al., Algorithm 1, ClientUpdate and GRD, with two passes for the head."""
    body = server["w"]["body"]
    head = fit_head(body, fit_head(body, head, batches), batches)
    return {"body": sub(fit_body(body, head, batches), body)}, head


def fedrep_model(server, head, batches, c):
    return with_head(server, fit_head(server["w"]["body"], head, batches))


def fedrecon_client(server, memory, batches, c):
    """Singhal et al., Algorithm 1."""
    body, head = server["w"]["body"], make_params()["head"]
    head = fit_head(body, head, [halves(b)[0] for b in batches])
    return {"body": sub(fit_body(body, head, [halves(b)[1] for b in batches]), body)}, memory


def fedrecon_model(server, memory, batches, c):
    return fedrep_model(server, make_params()["head"], batches, c)


def pfedsd_client(server, v, batches, c, lam=0.5, temperature=2.0):
    """Jin et al., Algorithm 1; the divergence as written, from teacher to student."""

    def divergence(w, batch, v):
        p, q = (jax.nn.softmax(logits(m, batch["x"]) / temperature) for m in (v, w))
        return temperature**2 * (p * jnp.log(p / q)).sum(1).mean()

    def direction(w, batch):
        g = gradient(w, batch)
        return g if v is None else add(g, jax.device_get(_pull(divergence)(w, batch, v)), lam)

    w = descend(server["w"], batches, direction)
    return sub(w, server["w"]), w


_pulls = {}


def _pull(divergence):
    return _pulls.setdefault("pull", jax.jit(jax.grad(divergence)))


def pfldyn_client(server, lam, batches, c, alpha=0.4):
    """Acar et al., Algorithm 1, lines 5 to 9."""
    theta = server["w"]

    def direction(w, batch):
        g = maml_direction(w, batch)
        return tree(lambda g, m, w, t: g - m + alpha * (w - t), g, lam, w, theta)

    w = descend(theta, batches, direction)
    return (w, add(lam, sub(w, theta), -alpha)), add(lam, sub(w, theta), -alpha)


def pfldyn_server(server, uploads, n, alpha=0.4):
    """... lines 11 to 12, with all clients taking part: h is the mean of their gradients."""
    models, lams = zip(*uploads)
    return {"w": add(mean(models), mean(lams), -1 / alpha), "mean": mean(models)}


def fedfomo_client(server, own, batches, c):
    """Zhang et al., equations 5 to 7."""
    train, held = zip(*map(halves, batches))

    def validate(theta):
        return np.mean([float(_loss(theta, b)) for b in held])

    weights = []
    for theta in server["models"]:
        norm = np.sqrt(sum((d**2).sum() for d in jax.tree.leaves(sub(theta, own))))
        weights.append(max(validate(own) - validate(theta), 0) / norm if norm > 0 else 0.0)
    mixed = own
    for weight, theta in zip(weights, server["models"]):
        mixed = add(mixed, sub(theta, own), weight / max(sum(weights), 1e-30))
    w = descend(mixed, train)
    return w, w


def stack_server(server, uploads, n):
    return {"models": list(uploads)}


def mocha_client(server, memory, batches, c, lam=0.3):
    """Smith et al., Algorithm 1, in the primal: the gradient of lam/2 tr(W Omega W^T) for w_t."""
    omega, models = server["omega"], server["models"]
    rest = zeros(models[c])
    for s in range(N):
        if s != c:
            rest = add(rest, models[s], omega[c, s])

    def direction(w, batch):
        return add(gradient(w, batch), add(rest, w, omega[c, c]), lam)

    return descend(models[c], batches, direction, lr=0.1), memory


def mocha_server(server, uploads, n, eps=0.5):
    """... line 12; Zhang and Yeung, equation 14."""
    w = np.stack([np.concatenate([x.ravel() for x in jax.tree.leaves(u)]) for u in uploads], 1)
    root = scipy.linalg.sqrtm(w.astype(float).T @ w).real
    covariance = (1 - eps) * root / np.trace(root) + eps * np.eye(N) / N
    return {"models": list(uploads), "omega": np.linalg.inv(covariance)}


def fedfomo_start(params):
    return {"models": [params] * N}


class Row(NamedTuple):
    method: Personal
    client: Callable  # (server, memory, batches, client) -> (upload, memory)
    server: Callable  # (server, uploads, samples) -> server
    personal: Callable  # (server, memory, batches, client) -> params
    memory: Callable = lambda params: ()
    start: Callable = lambda params: {"w": params}
    shared: Callable | None = model_of  # (server) -> params
    linear: bool = False
    seats: bool = False
    tolerance: float = 1e-5


def itself(params):
    return params


PARTIAL = {"memory": lambda params: params["head"], "shared": None}
PARTIAL["start"] = lambda params: {"w": {"body": params["body"]}}
METHODS = {
    "fine_tune": Row(
        fine_tune(fedavg(grad_fn, SGD), grad_fn, optax.sgd(0.1)), fedavg_client, average, tuned(0.1)
    ),
    "local_only": Row(
        local_only(grad_fn, SGD), local_client, lambda server, *_: server, remembered, itself,
        lambda params: {}, None,
    ),
    "per_fedavg_fo": Row(
        per_fedavg(grad_fn, LR, ALPHA, "fo"),
        functools.partial(fedavg_client, direction=per_fedavg_direction("fo")), average,
        tuned(ALPHA),
    ),
    "per_fedavg_hf": Row(  # A difference of float32 for a second derivative.
        per_fedavg(grad_fn, LR, ALPHA, "hf", delta=0.03),
        functools.partial(fedavg_client, direction=per_fedavg_direction("hf")), average,
        tuned(ALPHA), tolerance=2e-4,
    ),
    "maml": Row(
        maml(grad_fn, ALPHA, SGD, inner_steps=2), maml_client,
        functools.partial(average_alike, scale=-LR), tuned(ALPHA),
    ),
    "meta_sgd": Row(
        meta_sgd(grad_fn, ALPHA, SGD), meta_sgd_client, meta_sgd_server, meta_sgd_model,
        start=lambda params: {
            "w": params, "alpha": tree(lambda x: np.full_like(x, ALPHA), params)
        },
    ),
    "reptile": Row(
        reptile(grad_fn, SGD, optax.sgd(0.5)), fedavg_client,
        functools.partial(average_alike, scale=0.5), tuned(LR),
    ),
    "ditto": Row(ditto(grad_fn, SGD, 0.7), ditto_client, average, remembered, itself),
    "fedper": Row(fedper(grad_fn, SGD, HEAD), fedper_client, average, joined, **PARTIAL),
    "fedrep": Row(
        fedrep(grad_fn, SGD, HEAD, head_passes=2), fedrep_client, average, fedrep_model, **PARTIAL
    ),
    "fedrecon": Row(
        fedrecon(grad_fn, SGD, SGD, HEAD, make_params()), fedrecon_client, average, fedrecon_model,
        **PARTIAL | {"memory": lambda params: ()},
    ),
    "pfedsd": Row(
        pfedsd(grad_fn, lambda w, b: logits(w, b["x"]), SGD, 0.5, 2.0), pfedsd_client, average,
        remembered, lambda params: None,
    ),
    "pfldyn": Row(
        pfldyn(grad_fn, SGD, 0.4, ALPHA, inner_steps=2), pfldyn_client, pfldyn_server,
        lambda server, *rest: tuned(ALPHA)({"w": server["mean"]}, *rest), zeros,
        shared=lambda server: server["mean"],
    ),
    "fedfomo": Row(
        fedfomo(grad_fn, SGD, N, validation=0.5), fedfomo_client, stack_server, remembered, itself,
        fedfomo_start, None, seats=True,
    ),
    "mocha": Row(
        mocha(grad_fn, optax.sgd(0.1), N, 0.3, eps=0.5), functools.partial(mocha_client),
        mocha_server, lambda server, memory, batches, c: server["models"][c],
        start=lambda params: fedfomo_start(params) | {"omega": N * np.eye(N)},
        shared=None, linear=True, seats=True,
    ),
}  # fmt: skip


@functools.cache
def loop_result(name, steps):
    """Every round, every client; then their models, by what those say of all samples."""
    row = METHODS[name]
    params = make_params(row.linear)
    server, start = row.start(params), 0
    memory = [row.memory(params) for _ in range(N)]
    for _ in range(ROUNDS):
        uploads = []
        for c in range(N):
            upload, memory[c] = row.client(server, memory[c], batches_of(c, start, steps), c)
            uploads.append(upload)
        server = row.server(server, uploads, COUNTS)
        start += steps.epochs if isinstance(steps, Epochs) else steps
    models = {}
    if row.shared:
        models["global"] = [row.shared(server)] * N
    own = [row.personal(server, memory[c], batches_of(c, 0, K1), c) for c in range(N)]
    models["personal"] = own
    return {kind: [jax.device_get(says(m)) for m in models[kind]] for kind in models}


@jax.jit
def says(w):
    return {name: v.astype(jnp.float32).sum() for name, v in metric_fn(w, make_data()).items()}


def everything(edges=2):
    """Rows by which every client judges all samples: nothing of its model is hidden."""
    rows = make_rows(edges)
    n = sum(COUNTS)
    shape = rows.counts.shape
    return Rows(
        np.broadcast_to(np.arange(n, dtype=np.int32), (*shape, n)),
        np.full(shape, n, np.int32),
        rows.ids,
    )


def mesh_of(devices):
    return tier_mesh(2, 4, jax.devices()[:devices])


@functools.cache
def engine_of(name, devices=1, order="scan", steps=EPOCH):
    row = METHODS[name]
    engine = flat(row.method.algorithm, mesh_of(devices), steps=steps, batch=BATCH, clients=order)
    return seated(engine) if row.seats else engine


def train(engine, mesh, linear=False, ruin=lambda state: state):
    rows = place(mesh, make_rows())
    state = ruin(engine.init(make_params(linear), rows))
    return engine.run(state, rows, replicate(mesh, make_data()), KEY, rounds=ROUNDS)[0]


@functools.cache
def judge_of(name):
    """One compiled program a method."""
    return evaluator(
        METHODS[name].method, metric_fn, mesh_of(2), steps=K1, batch=BATCH, clients="vmap"
    )


def judge(name, state):
    """Of the state of any mesh."""
    mesh, state = mesh_of(2), jax.device_get(state)
    clients = place(mesh, state.clients)
    state = replicate(mesh, state._replace(clients=()))._replace(clients=clients)
    rows, held = place(mesh, (make_rows(), everything()))
    return jax.device_get(judge_of(name)(state, rows, held, replicate(mesh, make_data()), KEY))


WAYS = [(name, *way) for name in METHODS for way in [(2, "vmap", K1), (1, "scan", EPOCH)]]
WAYS += [("fedrecon", 8, "scan", K1)]


@pytest.mark.parametrize(("name", "devices", "order", "steps"), WAYS)
def test_loop_equals_scan_vmap_and_shard_map(name, devices, order, steps):
    row = METHODS[name]
    engine = engine_of(name, devices, order, steps)
    ours = judge(name, train(engine, mesh_of(devices), row.linear))
    theirs = loop_result(name, steps)
    assert ours.keys() == theirs.keys()
    for kind, of_clients in theirs.items():
        for metric in ("loss", "logit"):
            expected = [says[metric] for says in of_clients]
            n = sum(COUNTS)
            np.testing.assert_allclose(
                ours[kind][metric].total / n, np.array(expected) / n, rtol=row.tolerance,
                atol=row.tolerance, err_msg=f"{kind} {metric}",
            )  # fmt: skip


def stack_of(trees_):
    return tree(lambda *x: np.stack(x), *trees_)


# Special cases, in the simplest engine there is.


def by_hand(algorithm, rounds=ROUNDS, linear=False, data=None):
    """Returns the state of the server and those of the clients, all of whom take part."""
    params = jax.tree.map(jnp.asarray, make_params(linear))
    local_update, server_update = map(jax.jit, (algorithm.local_update, algorithm.server_update))
    server, own = algorithm.init(params), [algorithm.client_init(params)] * N
    if isinstance(own[0], Seat):
        own = [seat._replace(number=jnp.array(c, jnp.int32)) for c, seat in enumerate(own)]
    shares = {"samples": np.array(COUNTS) / sum(COUNTS)}
    shares["uniform"] = shares["population"] = np.ones(N) / N

    def mean_of(how, *trees_):
        return tree(lambda *u: sum(np.float32(a) * b for a, b in zip(shares[how], u)), *trees_)

    for t in range(rounds):
        sent, uploads = algorithm.broadcast(server), []
        for c in range(N):
            batches = stack_of(batches_of(c, t * K1, K1, data))
            upload, own[c], _ = local_update(sent, own[c], batches, None)
            uploads.append(jax.device_get(upload))
        server = server_update(server, tree(mean_of, algorithm.weighting, *uploads))
    return jax.device_get((server, own))


def grad_of(part):
    """The gradient on a part of each batch."""
    return lambda w, batch, key: grad_fn(w, part(batch), key)


def alike(algorithm):
    return algorithm._replace(weighting="uniform")


QUERY = grad_of(lambda b: halves(b)[1])
SPECIAL = {
    "Ditto: its global model is that of FedAvg": (
        METHODS["ditto"].method, fedavg(grad_fn, SGD),
    ),
    "FedPer with nothing local is FedAvg": (
        fedper(grad_fn, SGD, []), fedavg(grad_fn, SGD),
    ),
    "FedRep too": (fedrep(grad_fn, SGD, []), fedavg(grad_fn, SGD)),
    "FedRecon too, on query sets": (
        fedrecon(grad_fn, SGD, SGD, [], make_params()), fedavg(QUERY, SGD),
    ),
    "Per-FedAvg with alpha = 0 is FedAvg on D'": (
        per_fedavg(grad_fn, LR, 0.0, "fo"), fedavg(QUERY, SGD),
    ),
    "... Hessian-free too": (
        per_fedavg(grad_fn, LR, 0.0, "hf"),
        fedavg(grad_of(lambda b: cut(b, 2, 2, 2)[1]), SGD),
    ),
    "MAML with alpha = 0 is FedSGD on query sets": (
        maml(grad_fn, 0.0, SGD), alike(fedsgd(QUERY, SGD)),
    ),
    "Reptile with a step of 1 is FedAvg of clients alike": (
        reptile(grad_fn, SGD, optax.sgd(1.0)), alike(fedavg(grad_fn, SGD)),
    ),
    "pFedSD with lam = 0 is FedAvg": (
        pfedsd(grad_fn, lambda w, b: logits(w, b["x"]), SGD, 0.0), fedavg(grad_fn, SGD),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECIAL)
def test_special_case_of_the_global_model(case):
    method, algorithm = SPECIAL[case]
    (ours, _), (theirs, _) = by_hand(method.algorithm), by_hand(algorithm)
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-5, atol=1e-6)


@functools.cache
def trained(name, rounds=ROUNDS):
    return by_hand(METHODS[name].method.algorithm, rounds, METHODS[name].linear)


def distance(a, b):
    return np.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(*map(jax.tree.leaves, (a, b)))))


def test_ditto_without_a_pull_is_local_training():
    _, ours = by_hand(ditto(grad_fn, SGD, 0.0).algorithm)
    chex.assert_trees_all_equal(ours, trained("local_only")[1])


def test_ditto_with_a_strong_pull_stays_near_the_global_model():
    """lam = 1 / lr puts v on w before each gradient step."""
    server, near = by_hand(ditto(grad_fn, SGD, 1 / LR).algorithm)
    far = trained("local_only")[1]
    apart = [[distance(v, server.params) for v in of] for of in (near, far)]
    assert np.mean(apart[0]) < 0.6 * np.mean(apart[1])


def test_fine_tuning_by_no_step_is_the_global_model_and_by_some_it_is_better_at_home():
    row, mesh, rows = METHODS["fine_tune"], mesh_of(1), make_rows()
    state = FederatedState(trained("fine_tune")[0], ClientStack((), ()), (), jnp.array(0))
    at_home = {}
    for steps in (0, Epochs(10)):
        evaluate = evaluator(row.method, metric_fn, mesh, steps=steps, batch=BATCH)
        scores = evaluate(state, place(mesh, rows), place(mesh, rows), make_data(), KEY)
        at_home[steps] = {kind: by_client(s["loss"]) for kind, s in scores.items()}
    np.testing.assert_array_equal(at_home[0]["personal"], at_home[0]["global"])
    assert (at_home[Epochs(10)]["personal"] < at_home[0]["global"]).all()


def test_pfedsd_uses_its_last_personal_model_or_before_any_the_global_one():
    method = METHODS["pfedsd"].method
    params = make_params()
    fresh = method.algorithm.client_init(tree(np.zeros_like, params))
    chex.assert_trees_all_equal(method.personalise(params, fresh, None, None), params)
    server, own = trained("pfedsd")
    found = method.personalise(server.params, own[0], None, None)
    chex.assert_trees_all_equal(found, own[0].params)
    plain = pfedsd(grad_fn, lambda w, b: logits(w, b["x"]), SGD, 0.0)
    assert distance(by_hand(plain.algorithm, 1)[0], trained("pfedsd", 1)[0]) < 1e-6
    assert distance(by_hand(plain.algorithm, 2)[0], trained("pfedsd", 2)[0]) > 1e-3


def test_the_first_round_of_meta_sgd_is_that_of_maml():
    ours, _ = trained("meta_sgd", 1)
    theirs, _ = by_hand(maml(grad_fn, ALPHA, SGD).algorithm, 1)
    chex.assert_trees_all_close(ours.params.theta, theirs.params, rtol=1e-5, atol=1e-6)
    assert all(np.abs(a - ALPHA).max() > 1e-4 for a in jax.tree.leaves(ours.params.alpha))


def test_pfldyn_begins_as_averaging_and_keeps_h_the_mean_of_the_gradients():
    ours, _ = by_hand(pfldyn(grad_fn, SGD, 1e-7, ALPHA).algorithm, 1)
    theirs, _ = by_hand(alike(fedavg(meta_gradient(grad_fn, ALPHA), SGD)), 1)
    chex.assert_trees_all_close(ours.mean, theirs.params, rtol=1e-5, atol=1e-6)
    server, own = trained("pfldyn")
    chex.assert_trees_all_close(server.h, mean(own), atol=1e-6)
    assert distance(server.h, zeros(server.h)) > 0.01


def test_mocha_without_relations_is_local_training():
    ours, _ = by_hand(mocha(grad_fn, SGD, N, 0.0).algorithm, linear=True)
    _, theirs = by_hand(local_only(grad_fn, SGD).algorithm, linear=True)
    chex.assert_trees_all_close(ours.models, stack_of(theirs), rtol=1e-5, atol=1e-6)


def test_mocha_of_independent_tasks_draws_each_to_zero():
    def decayed(w, batch, key):
        grads, metrics = grad_fn(w, batch, key)
        return add(grads, w, 0.05 * N), metrics

    ours, _ = by_hand(mocha(grad_fn, SGD, N, 0.05, eps=1.0).algorithm, linear=True)
    _, theirs = by_hand(local_only(decayed, SGD).algorithm, linear=True)
    chex.assert_trees_all_close(ours.models, stack_of(theirs), rtol=1e-5, atol=1e-6)


def test_mocha_relates_clients_that_name_classes_alike():
    omega = trained("mocha", 20)[0].omega
    turn, big = np.arange(N) % 3, np.array(COUNTS) >= 6
    of_big = big[:, None] & big[None] & ~np.eye(N, dtype=bool)
    alike_ = turn[:, None] == turn[None]
    assert omega[alike_ & of_big].mean() < omega[~alike_ & of_big].mean() - 1


def test_fedfomo_begins_as_local_training_and_then_follows_whoever_helps():
    """At first all models are one, and nobody is better."""
    alone = local_only(grad_of(lambda b: halves(b)[0]), SGD).algorithm
    ours, theirs = trained("fedfomo", 1)[1], by_hand(alone, 1)[1]
    chex.assert_trees_all_close([seat.own for seat in ours], theirs, rtol=1e-5, atol=1e-6)
    ours, theirs = trained("fedfomo")[1], by_hand(alone)[1]
    assert max(distance(seat.own, w) for seat, w in zip(ours, theirs)) > 0.01


def test_the_stack_holds_the_clients_models():
    models, own = trained("fedfomo")
    chex.assert_trees_all_close(models, stack_of([seat.own for seat in own]), rtol=1e-6)


def test_a_client_without_a_seat_sends_nan():
    algorithm = METHODS["fedfomo"].method.algorithm
    params = make_params()
    batches = stack_of(batches_of(0, 0, K1))
    upload, _, _ = algorithm.local_update(
        algorithm.init(params), algorithm.client_init(params), batches, None
    )
    assert all(np.isnan(x).all() for x in jax.tree.leaves(upload.models))
    assert all(np.isnan(x).all() for x in jax.tree.leaves(renew_stack(upload.models, upload)))


def test_seats_are_told_to_a_cohort_too():
    mesh = tier_mesh(1, N, jax.devices()[:1])
    method = METHODS["fedfomo"].method
    engine = sampled(
        method.algorithm, mesh, samplers.uniform(3), steps=K1, batch=BATCH, clients="scan"
    )
    engine = seated(engine)
    rows = replicate(mesh, population(table()))
    state = engine.init(make_params(), rows)
    state, _ = engine.run(state, rows, replicate(mesh, make_data()), KEY)
    apart = [distance(tree(lambda m, c=c: m[c], state.server), make_params()) for c in range(N)]
    assert np.count_nonzero(apart) == 3


# What a client keeps is its own.


STATEFUL = [
    name for name, row in METHODS.items() if row.method.algorithm.client_init(make_params()) != ()
]


@pytest.mark.parametrize("name", STATEFUL)
def test_no_client_sees_the_data_of_another_within_a_round(name):
    other = make_data()
    other["y"][: COUNTS[0]] = (other["y"][: COUNTS[0]] + 1) % 3
    row = METHODS[name]
    _, ours = trained(name, 1)
    _, theirs = by_hand(row.method.algorithm, 1, row.linear, other)
    chex.assert_trees_all_equal(ours[1:], theirs[1:])
    if name != "mocha":  # Whose clients keep their number only.
        assert distance(ours[0], theirs[0]) > 1e-3


def test_what_is_personal_is_not_uploaded():
    params = make_params()
    body = trees.size(params["body"])
    for name in ("fedper", "fedrep", "fedrecon"):
        algorithm = METHODS[name].method.algorithm
        assert trees.size(algorithm.upload(params)) == body
        assert trees.size(algorithm.broadcast(algorithm.init(params))) == body
    assert trees.size(METHODS["local_only"].method.algorithm.upload(params)) == 0


def test_a_ruined_personal_model_of_ditto_ruins_nothing_else():
    def ruin(state):
        own = jax.tree.map(lambda v: v.at[0, 1].set(jnp.nan), state.clients.state)
        return state._replace(clients=state.clients._replace(state=own))

    sound, ruined = (
        jax.device_get(train(engine_of("ditto"), mesh_of(1), **how)) for how in ({}, {"ruin": ruin})
    )
    chex.assert_trees_all_equal(ruined.server, sound.server)
    for a, b in zip(*map(jax.tree.leaves, (ruined.clients.state, sound.clients.state))):
        assert np.isnan(a[0, 1]).all()
        np.testing.assert_array_equal(np.delete(a[0], 1, 0), np.delete(b[0], 1, 0))
        np.testing.assert_array_equal(a[1], b[1])


def test_hierarchical_with_k2_of_one_is_flat():
    engine = hierfavg(METHODS["fedper"].method.algorithm, mesh_of(8), k1=EPOCH, k2=1, batch=BATCH)
    ours = jax.device_get(train(engine, mesh_of(8)))
    theirs = jax.device_get(train(engine_of("fedper"), mesh_of(1)))
    chex.assert_trees_all_close(
        (ours.server, ours.clients), (theirs.server, theirs.clients), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: per_fedavg(grad_fn, 0.1, 0.1, "ho"), "variant must be 'fo' or 'hf', got 'ho'"),
        (lambda: ditto(grad_fn, SGD, -1.0), "lam must be >= 0, got -1.0"),
        (lambda: pfedsd(grad_fn, None, SGD, -1.0), "lam must be >= 0"),
        (lambda: pfedsd(grad_fn, None, SGD, 1.0, 0.0), "temperature must be above 0"),
        (lambda: pfldyn(grad_fn, SGD, 0.0, 0.1), "alpha must be above 0"),
        (lambda: fedrep(grad_fn, SGD, HEAD, 0), "head_passes must be at least 1, got 0"),
        (lambda: mocha(grad_fn, SGD, 2, -1.0), "lam must be >= 0"),
        (lambda: mocha(grad_fn, SGD, 2, 1.0, eps=0.0), "eps must be in"),
        (
            lambda: fedper(grad_fn, SGD, ["haed"]).algorithm.client_init(make_params()),
            "rule 'haed' matches no parameter",
        ),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
