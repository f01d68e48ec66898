"""A small federated run on real digits that takes seconds to start, to be killed by tests."""

from dataclasses import dataclass

import jax
import numpy as np
import optax

from eejax import cotrain, data, tiers, trees
from eejax.experiment.steps import RunState, Step, run_steps
from eejax.wire import topk


@dataclass
class Toy:
    """Fields of the run.

    Attributes:
      rounds: rounds, each followed by a checkpoint.
      seed: of the parameters.
    """

    rounds: int = 40
    seed: int = 0


def get_config(arg=None):
    return Toy() if arg is None else Toy(rounds=int(arg))


def grad_fn(w, batch, key):
    def loss(w):
        x = batch["x"].reshape(len(batch["x"]), -1) / 255.0
        logits = x @ w["kernel"] + w["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

    value, grads = jax.value_and_grad(loss)(w)
    return grads, {"loss": value}


def make(config):
    """Makes the steps and the state before the first."""
    digits = data.load("digits")
    samples = {"x": digits.images, "y": digits.labels}
    topology = tiers.three_tier(ends=4, edges=2)
    parts = data.dirichlet(digits.labels, 4, seed=config.seed)
    rows = cotrain.rows_of(topology, data.pack(parts))
    mesh = tiers.tier_mesh(2, 2)
    engine = cotrain.hierfavg(
        cotrain.fedavg(grad_fn, optax.sgd(0.1)), mesh, k1=5, k2=2, batch=8, codec=topk(0.1)
    )
    rows, samples = cotrain.place(mesh, rows), cotrain.replicate(mesh, samples)
    key = jax.random.key(config.seed)
    params = {"kernel": jax.random.normal(key, (64, 10)) / 8, "bias": np.zeros(10, np.float32)}

    def step(state, write):
        federated, metrics = engine.run(state.arrays, rows, samples, key)
        done = len(state.results)
        write(done, {"loss": float(metrics["loss"][0])})
        ledger = tiers.record(state.ledger, "end", "edge", "information", "update", 10 + done)
        return RunState(federated, state.results | {f"round{done}": done / 3}, ledger), ""

    first = RunState(engine.init(params, rows), {}, ())
    return [Step("co-train", step)] * config.rounds, first


def run(config, context):
    """Runs the steps and writes the summary."""
    state = run_steps(*make(config), context)
    summary = {"params_sha256": trees.sha256(state.arrays), **state.results}
    context.workdir.write_json("summary.json", summary)
    return summary
