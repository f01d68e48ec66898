"""The contract of federated training: a new algorithm joins by adding a row to ALGORITHMS.

Every algorithm comes with the pseudo-code of its paper as plain Python, what a client does and what
the server does; the compiled engines must reproduce it over any mesh and in any order of clients,
with equal and with unequal numbers of local steps.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import trees
from eejax.core import FederatedAlgorithm
from eejax.cotrain.federated import (
    Epochs,
    Rows,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fednova,
    fedprox,
    fedsgd,
    fedyogi,
    flat,
    hierfavg,
    place,
    replicate,
    rows_of,
    scaffold,
)
from eejax.data import client_batches, pack
from eejax.tiers import three_tier, tier_mesh
from eejax.wire import affine, topk

LR, K1, BATCH, ROUNDS = 0.1, 3, 4, 3
COUNTS = (5, 9, 1, 12, 7, 3, 8, 6)  # Less than a batch, and more than an epoch in a round.
KEY = jax.random.key(7)


def loss(w, batch):
    logits = batch["x"] @ w["kernel"] + w["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def grad_fn(w, batch, key):
    del key
    value, grads = jax.value_and_grad(loss)(w, batch)
    return grads, {"loss": value}


def make_data():
    rng = np.random.default_rng(0)
    n = sum(COUNTS)
    return {
        "x": rng.normal(size=(n, 6)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }


def make_params():
    rng = np.random.default_rng(1)
    return {
        "kernel": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
        "bias": jnp.zeros(3),
    }


def make_rows(edges, counts=COUNTS):
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    return rows_of(three_tier(len(counts), edges), pack(parts))


host_batches = jax.jit(client_batches, static_argnums=(4, 5))


def batches_of(rows, data, client, start, steps=K1):
    """The batches of one client, on the host; the order of samples is the data room's business."""
    (where,) = np.argwhere(np.asarray(rows.ids) == client)
    table, count = np.asarray(rows.table)[*where], np.asarray(rows.counts)[*where]
    if isinstance(steps, Epochs):
        epoch = int(np.ceil(count / BATCH))
        start, steps = start * epoch, steps.epochs * epoch
    order_key = jax.random.split(jax.random.fold_in(KEY, client), 3)[0]
    picked = np.asarray(host_batches(order_key, table, count, start, steps, BATCH))
    return [{name: a[step] for name, a in data.items()} for step in picked]


def tree(fn, *trees_):
    return jax.tree.map(fn, *trees_)


def mean(uploads, weights):
    """The weighted mean of trees."""
    share = np.array(weights) / np.sum(weights)
    return tree(lambda *u: sum(a * b for a, b in zip(share, u)), *uploads)


def add(a, b):
    return tree(np.add, a, b)


def sub(a, b):
    return tree(np.subtract, a, b)


def zeros(params):
    return tree(np.zeros_like, params)


def gradient(w, batch):
    """That of `grad_fn`, by hand."""
    logits = batch["x"] @ w["kernel"] + w["bias"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    error = (odds / odds.sum(1, keepdims=True) - np.eye(3)[batch["y"]]) / len(logits)
    return {"kernel": batch["x"].T @ error, "bias": error.sum(0)}


def average(server, uploads, n):
    """McMahan et al., Algorithm 1: the server side of FedAvg, on changes of models."""
    return {**server, "w": add(server["w"], mean(uploads, n))}


def fedavg_client(server, memory, batches, mu=0.0):
    """McMahan et al., Algorithm 1, ClientUpdate; Li et al., Algorithm 2, with the proximal term."""
    w = server["w"]
    for batch in batches:
        g = gradient(w, batch)
        w = tree(lambda w, g, w_0: w - LR * (g + mu * (w - w_0)), w, g, server["w"])
    return sub(w, server["w"]), memory


def fedsgd_client(server, memory, batches):
    """McMahan et al., section 2: g_k at w_t."""
    return mean([gradient(server["w"], b) for b in batches], np.ones(len(batches))), memory


def fedsgd_server(server, uploads, n):
    return {"w": tree(lambda w, g: w - LR * g, server["w"], mean(uploads, n))}


def fednova_client(server, memory, batches, rho=0.5, mu=0.1):
    """Wang et al., section 3: a_i of momentum and of a proximal term, as explicit vectors."""
    w, v, a = server["w"], zeros(server["w"]), np.zeros(0)
    momentum = np.zeros(0)
    for batch in batches:
        v = tree(lambda v, g: rho * v + g, v, gradient(w, batch))
        w = tree(lambda w, v, w_0: w - LR * v - LR * mu * (w - w_0), w, v, server["w"])
        momentum = np.append(rho * momentum, 1.0)  # How much each gradient is in v.
        a = np.append((1 - LR * mu) * a, 0.0) + momentum
    norm = np.abs(a).sum()
    d = tree(lambda w_0, w: (w_0 - w) / (LR * norm), server["w"], w)
    return (d, norm), memory


def fednova_server(server, uploads, n):
    """Wang et al., equation 8."""
    d, norms = zip(*uploads)
    p = np.array(n) / np.sum(n)
    tau_eff = float((p * norms).sum())
    return {"w": tree(lambda w, d: w - tau_eff * LR * d, server["w"], mean(d, n))}


def fedavgm_server(server, uploads, n):
    """Hsu et al., section 4.3, with a learning rate."""
    v = tree(lambda v, d: 0.9 * v + d, server["v"], mean(uploads, n))
    return {"w": tree(lambda w, v: w + 0.5 * v, server["w"], v), "v": v}


def adaptive_server(second, b1=0.9, eta=0.1, tau=0.01):
    def server_update(server, uploads, n):
        """Reddi et al., Algorithm 2."""
        delta = mean(uploads, n)
        m = tree(lambda m, d: b1 * m + (1 - b1) * d, server["m"], delta)
        v = tree(second, server["v"], delta)
        w = tree(lambda w, m, v: w + eta * m / (np.sqrt(v) + tau), server["w"], m, v)
        return {"w": w, "m": m, "v": v}

    def start(params):
        return {"w": params, "m": zeros(params), "v": tree(lambda x: x + tau**2, zeros(params))}

    return start, server_update


def scaffold_client(server, c_i, batches, option=2):
    """Karimireddy et al., Algorithm 1, lines 7 to 14."""
    x, c = server["w"], server["c"]
    y = x
    for batch in batches:
        g = gradient(y, batch)
        y = tree(lambda y, g, c_i, c: y - LR * (g - c_i + c), y, g, c_i, c)
    if option == 1:
        new = mean([gradient(x, b) for b in batches], np.ones(len(batches)))
    else:
        new = tree(lambda c_i, c, x, y: c_i - c + (x - y) / (len(batches) * LR), c_i, c, x, y)
    return (sub(y, x), sub(new, c_i)), new


def scaffold_server(server, uploads, n):
    """Karimireddy et al., Algorithm 1, lines 16 to 17, with all clients taking part: |S| = N."""
    dy, dc = (mean(u, np.ones(len(n))) for u in zip(*uploads))
    x = tree(lambda x, d: x + 0.9 * d, server["w"], dy)
    return {"w": x, "c": add(server["c"], dc)}


class Row(NamedTuple):
    algorithm: FederatedAlgorithm
    client: Callable  # (server, memory, batches) -> (upload, memory)
    server: Callable  # (server, uploads, samples) -> server
    start: Callable = lambda params: {"w": params}
    memory: Callable = lambda params: ()
    linear: bool = True  # The server is linear in the mean, so one edge round is a flat round.
    by_samples: bool = True


SGD = optax.sgd(LR)
ADAGRAD, ADAM, YOGI = (
    adaptive_server(lambda v, d: v + d**2, b1=0.0),
    adaptive_server(lambda v, d: 0.99 * v + 0.01 * d**2),
    adaptive_server(lambda v, d: v - 0.01 * d**2 * np.sign(v - d**2)),
)
SCAFFOLD = {
    "server": scaffold_server,
    "start": lambda params: {"w": params, "c": zeros(params)},
    "memory": zeros,
    "by_samples": False,
}
ALGORITHMS = {
    "fedavg": Row(fedavg(grad_fn, SGD), fedavg_client, average),
    "fedsgd": Row(fedsgd(grad_fn, SGD), fedsgd_client, fedsgd_server),
    "fedprox": Row(fedprox(grad_fn, SGD, 0.5), functools.partial(fedavg_client, mu=0.5), average),
    "fednova": Row(fednova(grad_fn, LR, 0.5, 0.1), fednova_client, fednova_server),
    "fedavgm": Row(
        fedavgm(grad_fn, SGD, 0.5, 0.9), fedavg_client, fedavgm_server,
        lambda params: {"w": params, "v": zeros(params)},
    ),
    "fedadagrad": Row(
        fedadagrad(grad_fn, SGD, 0.1, tau=0.01), fedavg_client, *ADAGRAD[::-1], linear=False
    ),
    "fedadam": Row(fedadam(grad_fn, SGD, 0.1, tau=0.01), fedavg_client, *ADAM[::-1], linear=False),
    "fedyogi": Row(fedyogi(grad_fn, SGD, 0.1, tau=0.01), fedavg_client, *YOGI[::-1], linear=False),
    "scaffold": Row(scaffold(grad_fn, LR, 0.9), scaffold_client, **SCAFFOLD),
    "scaffold_option_1": Row(
        scaffold(grad_fn, LR, 0.9, option=1), functools.partial(scaffold_client, option=1),
        **SCAFFOLD,
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", ALGORITHMS)
LINEAR = pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.linear])

# What the engines do alike for all is tested with those that differ most in what they keep.
FEW = pytest.mark.parametrize("name", ["fedavg", "fednova", "fedadam", "scaffold"])
STATEFUL = pytest.mark.parametrize("name", ["fedadam", "scaffold"])


@functools.cache
def loop_result(name, edges=1, rounds=ROUNDS, k2=1, steps=K1):
    """Every round of the cloud, every round of an edge, every client: nothing but loops."""
    row, rows, data = ALGORITHMS[name], make_rows(edges), make_data()
    params = jax.device_get(make_params())
    cloud, start = row.start(params), 0
    memory = {c: row.memory(params) for c in range(len(COUNTS))}
    seats = [[int(c) for c in seat if c >= 0] for seat in np.asarray(rows.ids)]
    for _ in range(rounds):
        servers = [cloud for _ in seats]
        for _ in range(k2):
            for e, clients in enumerate(seats):
                uploads = []
                for c in clients:
                    batches = batches_of(rows, data, c, start, steps)
                    upload, memory[c] = row.client(servers[e], memory[c], batches)
                    uploads.append(upload)
                servers[e] = row.server(servers[e], uploads, [COUNTS[c] for c in clients])
            start += steps.epochs if isinstance(steps, Epochs) else steps
        samples = [sum(COUNTS[c] for c in seat) for seat in seats]
        cloud = mean(servers, samples if row.by_samples else list(map(len, seats)))
    return tree(np.float32, cloud["w"])


def mesh_of(devices=8):
    mesh = tier_mesh(2, 4, jax.devices()[:devices])
    assert mesh.size == devices
    return mesh


@functools.cache
def flat_engine(name, devices=8, clients="scan", steps=K1):
    algorithm = ALGORITHMS[name].algorithm
    return flat(algorithm, mesh_of(devices), steps=steps, batch=BATCH, clients=clients)


@functools.cache
def hierarchical_engine(name, devices=8, k2=2):
    return hierfavg(ALGORITHMS[name].algorithm, mesh_of(devices), k1=K1, k2=k2, batch=BATCH)


def train(engine, rows, rounds=ROUNDS, calls=1, data=None, mesh=None):
    mesh = tier_mesh(*rows.counts.shape) if mesh is None else mesh
    data = replicate(mesh, make_data() if data is None else data)
    state = engine.init(make_params(), place(mesh, rows))
    for _ in range(calls):
        state, metrics = engine.run(state, place(mesh, rows), data, KEY, rounds=rounds // calls)
    return state, metrics


def params_after(*args, **kwargs):
    return jax.device_get(train(*args, **kwargs)[0].server.params)


def assert_close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


MOST = [(name, "scan", 1) for name in ALGORITHMS] + [(name, "vmap", 8) for name in ALGORITHMS]
MORE = [("fedavg", "vmap", 1), ("fedavg", "chunk:2", 2), ("fedavg", "scan", 8)]


@pytest.mark.parametrize(("name", "clients", "devices"), MOST + MORE)
def test_loop_equals_scan_vmap_and_shard_map(name, clients, devices):
    engine = flat_engine(name, devices, clients)
    ours = params_after(engine, make_rows(edges=2), mesh=mesh_of(devices))
    assert_close(ours, loop_result(name))


@pytest.mark.parametrize(
    ("name", "clients", "devices"),
    [(name, "scan", 1) for name in ALGORITHMS]
    + [(name, "chunk:2", 2) for name in ("fedavg", "fednova", "scaffold")],
)
def test_loop_equals_engine_with_unequal_numbers_of_steps(name, clients, devices):
    """Two epochs are 2 to 6 steps here."""
    engine = flat_engine(name, devices, clients, Epochs(2))
    ours = params_after(engine, make_rows(edges=2), mesh=mesh_of(devices))
    assert_close(ours, loop_result(name, steps=Epochs(2)))
    assert int(np.ceil(max(COUNTS) / BATCH)) > int(np.ceil(min(COUNTS) / BATCH))


@pytest.mark.parametrize(("name", "devices"), [("fedavg", 1), *((name, 8) for name in ALGORITHMS)])
def test_hierarchical_equals_its_loop(name, devices):
    ours = params_after(
        hierarchical_engine(name, devices), make_rows(edges=2), mesh=mesh_of(devices)
    )
    assert_close(ours, loop_result(name, 2, k2=2))


@LINEAR
def test_hierarchical_with_k2_of_one_is_flat(name):
    rows = make_rows(edges=2)
    assert_close(
        params_after(hierarchical_engine(name, k2=1), rows),
        params_after(flat_engine(name, clients="vmap"), rows),
    )


@STATEFUL
def test_hierarchical_with_one_edge_is_flat(name):
    rows = make_rows(edges=1)
    mesh = tier_mesh(1, 8)
    algorithm = ALGORITHMS[name].algorithm
    assert_close(
        params_after(hierfavg(algorithm, mesh, k1=K1, k2=3, batch=BATCH), rows, rounds=1),
        params_after(flat(algorithm, mesh, steps=K1, batch=BATCH), rows, rounds=3),
    )


@FEW
def test_one_compilation_and_no_difference_where_a_run_is_cut(name):
    rows = make_rows(2)
    engine = hierfavg(
        ALGORITHMS[name].algorithm, mesh_of(), k1=K1, k2=1, batch=BATCH, codec=topk(0.5)
    )
    whole, _ = train(engine, rows, rounds=4)
    compiled = engine.run._cache_size()
    cut, _ = train(engine, rows, rounds=4, calls=4)
    assert engine.run._cache_size() == compiled + 1  # Rounds of one call are static.
    chex.assert_trees_all_equal(jax.device_get(whole), jax.device_get(cut))
    residuals = jax.tree.leaves(jax.device_get(whole.clients.codec))
    like = ALGORITHMS[name].algorithm.upload(make_params())
    assert [r.shape for r in residuals] == [(2, 4, *x.shape) for x in jax.tree.leaves(like)]


@EVERY
def test_an_empty_row_and_a_row_of_no_weight_change_nothing(name):
    """Seven clients at two edges leave one seat empty; an eighth without samples is the same."""
    engine = hierarchical_engine(name)
    rows = make_rows(2, COUNTS[:7])
    assert np.asarray(rows.ids).min() == -1
    without = params_after(engine, rows)
    ids = np.where(rows.ids < 0, 7, rows.ids)
    with_empty = Rows(rows.table, rows.counts, ids.astype(np.int32))
    chex.assert_trees_all_equal(without, params_after(engine, with_empty))


@EVERY
@pytest.mark.parametrize("steps", [K1, Epochs(2)])
def test_a_client_without_weight_changes_nothing_and_may_hold_nan(name, steps):
    """Two rows more, one without samples: the same as without them, and be its data NaN."""
    rows = make_rows(2)
    counts = np.array(rows.counts)
    counts[0, 1] = 0
    poisoned = make_data()
    poisoned["x"][rows.table[0, 1]] = np.nan
    engine = flat_engine(name, 1, steps=steps)
    emptied = rows._replace(counts=counts)
    ours = params_after(engine, emptied, data=poisoned, mesh=mesh_of(1))
    chex.assert_tree_all_finite(ours)
    absent = rows._replace(counts=counts, ids=np.where(counts > 0, rows.ids, -1).astype(np.int32))
    chex.assert_trees_all_equal(ours, params_after(engine, absent, mesh=mesh_of(1)))


@EVERY
def test_the_order_of_clients_changes_nothing(name):
    rows = make_rows(2)
    turned = jax.tree.map(lambda x: np.ascontiguousarray(x[:, ::-1]), rows)
    engine = flat_engine(name, 1)
    assert_close(
        params_after(engine, rows, mesh=mesh_of(1)), params_after(engine, turned, mesh=mesh_of(1))
    )


@pytest.mark.parametrize("steps", [K1, Epochs(2)])
def test_metrics_are_means_over_samples_for_each_round(steps):
    rows = make_rows(2)
    _, metrics = train(flat_engine("fedavg", 1, steps=steps), rows, mesh=mesh_of(1))
    assert metrics["loss"].shape == (ROUNDS,)
    losses, n = [], np.array(COUNTS)
    for client in range(8):
        w, of_steps = jax.device_get(make_params()), []
        for batch in batches_of(rows, make_data(), client, 0, steps):
            of_steps.append(float(loss(w, batch)))
            w = tree(lambda a, g: a - LR * g, w, gradient(w, batch))
        losses.append(np.mean(of_steps))
    np.testing.assert_allclose(metrics["loss"][0], (losses * n).sum() / n.sum(), rtol=1e-5)


def test_uploads_pass_the_codec_and_its_residuals_are_kept():
    algorithm = ALGORITHMS["fedavg"].algorithm
    rows = make_rows(2)
    mesh = mesh_of()
    exact = params_after(flat_engine("fedavg"), rows)
    coarse = params_after(flat(algorithm, mesh, steps=K1, batch=BATCH, codec=affine(8)), rows)
    assert trees.size(exact) > 0
    error = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (exact, coarse))))
    assert 0 < error < 0.02
    state, _ = train(flat(algorithm, mesh, steps=K1, batch=BATCH, codec=topk(0.5)), rows)
    residual = jax.device_get(state.clients.codec)
    assert residual["kernel"].shape == (2, 4, 6, 3)
    assert np.abs(residual["kernel"]).max(axis=(2, 3)).min() > 0


def uniformly(algorithm):
    return algorithm._replace(weighting="uniform")


FEDAVG, TAU = ALGORITHMS["fedavg"].algorithm, 1e4
FEDSGD = uniformly(fedsgd(grad_fn, SGD))
SPECIAL_CASES = {
    "FedProx without the term is FedAvg": (fedprox(grad_fn, SGD, 0.0), FEDAVG, K1),
    "FedProx too, with partial work": (
        fedprox(grad_fn, SGD, 0.0), FEDAVG, Epochs(3, stragglers=0.5),
    ),
    "FedNova with equal steps is FedAvg": (fednova(grad_fn, LR), FEDAVG, K1),
    "... with momentum too": (
        fednova(grad_fn, LR, 0.5), fedavg(grad_fn, optax.sgd(LR, momentum=0.5)), K1,
    ),
    "... and with a proximal term": (
        fednova(grad_fn, LR, mu=0.5), fedprox(grad_fn, SGD, 0.5), K1,
    ),
    "FedAvgM without momentum is FedAvg": (fedavgm(grad_fn, SGD, 1.0, 0.0), FEDAVG, K1),
    "FedAdagrad hardly adaptive is FedAvg": (
        fedadagrad(grad_fn, SGD, 2 * TAU, tau=TAU), FEDAVG, K1,
    ),
    "so is FedAdam": (fedadam(grad_fn, SGD, 2 * TAU, 0.0, 1.0, TAU), FEDAVG, K1),
    "so is FedYogi": (fedyogi(grad_fn, SGD, 2 * TAU, 0.0, 0.9, TAU), FEDAVG, K1),
    "FedSGD with one batch is FedAvg with one step": (fedsgd(grad_fn, SGD), FEDAVG, 1),
    "SCAFFOLD with all clients and one step is FedSGD": (
        scaffold(grad_fn, LR), FEDSGD, 1,
    ),
    "... by option 1 too": (
        scaffold(grad_fn, LR, option=1), FEDSGD, 1,
    ),
}  # fmt: skip


@functools.cache
def result_of(algorithm, steps):
    mesh = mesh_of(1)
    return params_after(flat(algorithm, mesh, steps=steps, batch=BATCH), make_rows(2), mesh=mesh)


@pytest.mark.parametrize("case", SPECIAL_CASES)
def test_special_case(case):
    general, special, steps = SPECIAL_CASES[case]
    assert_close(result_of(general, steps), result_of(special, steps))


def test_scaffold_begins_as_fedavg_with_all_clients_alike():
    """In the first round all control variates are zero; in the second they are not."""
    rows, mesh = make_rows(2), mesh_of(1)
    both = [
        flat(a, mesh, steps=Epochs(2), batch=BATCH)
        for a in (scaffold(grad_fn, LR), uniformly(FEDAVG))
    ]
    assert_close(*(params_after(e, rows, rounds=1, mesh=mesh) for e in both))
    ours, theirs = (params_after(e, rows, rounds=2, calls=2, mesh=mesh) for e in both)
    assert np.abs(ours["kernel"] - theirs["kernel"]).max() > 1e-3


def test_the_servers_control_variate_stays_the_mean_of_the_clients():
    """Of all clients, with unequal numbers of samples and of steps."""
    state, _ = train(flat_engine("scaffold", 1, steps=Epochs(2)), make_rows(2), mesh=mesh_of(1))
    control = jax.tree.map(lambda c: np.asarray(c).mean((0, 1)), state.clients.state)
    chex.assert_trees_all_close(jax.device_get(state.server.control), control, atol=1e-6)
    assert np.abs(control["kernel"]).max() > 0.01


def test_epochs_of_equal_clients_are_steps():
    rows, mesh = make_rows(2, (9,) * 8), mesh_of(1)
    data = jax.tree.map(lambda a: np.resize(a, (72, *a.shape[1:])), make_data())
    by_epochs, by_steps = (
        params_after(flat(FEDAVG, mesh, steps=s, batch=BATCH), rows, data=data, mesh=mesh)
        for s in (Epochs(2), 6)
    )
    assert_close(by_epochs, by_steps)


def test_dropped_stragglers_change_nothing_and_others_do():
    rows, mesh, after = make_rows(2), mesh_of(1), {}
    for work in (Epochs(2), Epochs(2, 1.0), Epochs(2, 1.0, drop=True), Epochs(2, 0.5, drop=True)):
        after[work] = params_after(flat(FEDAVG, mesh, steps=work, batch=BATCH), rows, mesh=mesh)
    chex.assert_trees_all_equal(after[Epochs(2, 1.0, drop=True)], jax.device_get(make_params()))
    kernels = [a["kernel"] for a in after.values()]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(kernels) for b in kernels[:i])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": Epochs(0)}, "epochs must be at least 1, got 0"),
        ({"steps": Epochs(1, 1.5)}, "stragglers must be a probability, got 1.5"),
        ({"algorithm": FEDAVG._replace(weighting="sample")}, "'sample' is none of samples"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    settings = {"algorithm": FEDAVG, "steps": 1} | settings
    with pytest.raises(ValueError, match=message):
        flat(settings.pop("algorithm"), mesh_of(1), batch=BATCH, **settings)


def test_training_leaves_the_callers_parameters_alone():
    params, mesh, rows = make_params(), mesh_of(1), make_rows(2)
    engine = flat_engine("fedavg", 1)
    state = engine.init(params, place(mesh, rows))
    engine.run(state, place(mesh, rows), replicate(mesh, make_data()), KEY, rounds=ROUNDS)
    chex.assert_trees_all_equal(params, make_params())


def test_hierarchical_edge_codec_keeps_one_residual_an_edge():
    rows = make_rows(2)
    engine = hierfavg(
        fedavg(grad_fn, optax.sgd(LR)), tier_mesh(2, 4), k1=K1, k2=2, batch=BATCH,
        edge_codec=topk(0.5),
    )  # fmt: skip
    state, _ = train(engine, rows)
    assert sorted(x.shape for x in jax.tree.leaves(state.edges)) == [(2, 3), (2, 6, 3)]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(jax.device_get(state.edges)))


def test_another_server_optimiser_is_fedopt():
    rows = make_rows(2)
    mesh = tier_mesh(2, 4)
    plain = flat(fedavg(grad_fn, optax.sgd(LR)), mesh, steps=K1, batch=BATCH)
    half = flat(fedavg(grad_fn, optax.sgd(LR), optax.sgd(0.5)), mesh, steps=K1, batch=BATCH)
    before = jax.device_get(make_params())
    full = params_after(plain, rows, rounds=1)
    chex.assert_trees_all_close(
        params_after(half, rows, rounds=1),
        jax.tree.map(lambda a, b: (a + b) / 2, before, full),
        rtol=1e-5,
        atol=1e-6,
    )


def test_adam_of_the_server_runs_hierarchically():
    """Its step counter is a whole number, which no mean may touch."""
    rows = make_rows(2)
    algorithm = fedavg(grad_fn, optax.sgd(LR), optax.adam(0.01))
    state, _ = train(hierfavg(algorithm, tier_mesh(2, 4), k1=K1, k2=2, batch=BATCH), rows, rounds=2)
    assert int(state.server.opt_state[0].count) == 4
