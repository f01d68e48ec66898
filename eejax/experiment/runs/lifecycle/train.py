"""Co-training, and the two baselines beside it: all data in one place, and each device alone."""

from typing import Any

import jax
import numpy as np
import optax

from eejax import coinfer, cotrain, coupdate, models, tiers, trees, wire
from eejax.experiment.runs.lifecycle.setup import Samples, Setting
from eejax.experiment.steps import RunState

PyTree = Any


def first_arrays(setting: Setting) -> dict[str, PyTree]:
    """Makes all arrays of a run, as they are before its first step.

    Args:
      setting: what never changes.

    Returns:
      ``"federated"`` and ``"central"`` training states, and parameters on the path of each end
      device: ``"alone"`` and one for each way of updating.
    """
    params = initial_params(setting)
    paths = coupdate.as_paths(params, setting.ends)
    engine, rows, _ = _federation(setting)
    return {
        "federated": engine.init(params, rows),
        "central": _central(setting).init(params),
        **dict.fromkeys(("alone", "centralised", "local", "collaborative"), paths),
    }


def initial_params(setting: Setting) -> PyTree:
    """Draws the parameters from which every training starts."""
    return models.init(setting.model, setting.key("init"), setting.test["x"][:1])


def cotrain_step(setting: Setting):
    """Makes the steps of hierarchical FedAvg: ``(rounds) -> step``."""
    config = setting.config.cotrain
    engine, rows, samples = _federation(setting)
    price = price_of_round(setting)

    def of(rounds: int):
        def step(state: RunState, write) -> tuple[RunState, str]:
            federated, metrics = engine.run(
                state.arrays["federated"], rows, samples, setting.key("cotrain"), rounds=rounds
            )
            done = int(federated.steps) // (config.k1 * config.k2)
            accuracy = exit_accuracies(setting, federated.server.params, setting.test)
            row = {f"test_accuracy_exit{i + 1}": a for i, a in enumerate(accuracy)}
            row |= {f"train_{name}": float(x[-1]) for name, x in metrics.items()}
            ledger = state.ledger
            for _ in range(rounds):
                ledger = tiers.ledger.merge(ledger, price.ledger)
            row["modelled_s"] = done * price.seconds
            row["modelled_j"] = done * sum(price.joules.values())
            write(done, row)
            arrays = state.arrays | {"federated": federated}
            found = _longer(state, "cotrain", done, accuracy)
            found |= {"modelled_s": row["modelled_s"], "modelled_j": row["modelled_j"]}
            results = state.results | {"cotrain": found}
            return RunState(arrays, results, ledger), f"accuracy {accuracy[-1]:.3f}"

        return step

    return of


def central_step(setting: Setting):
    """Makes the steps of training on all devices' samples in one place, as many as those took."""
    config = setting.config.cotrain
    learner = _central(setting)

    def of(rounds: int):
        def step(state: RunState, write) -> tuple[RunState, str]:
            steps = rounds * config.k1 * config.k2 * setting.ends
            central, metrics = learner.run(
                state.arrays["central"],
                setting.past.samples,
                setting.key("central"),
                steps=steps,
                batch=config.batch,
            )
            accuracy = exit_accuracies(setting, central.params, setting.test)
            row = {f"test_accuracy_exit{i + 1}": a for i, a in enumerate(accuracy)}
            done = int(central.step) // (config.k1 * config.k2 * setting.ends)
            write(done, row | {"train_loss": float(metrics["loss"])})
            results = state.results | {"central": _longer(state, "central", done, accuracy)}
            arrays = state.arrays | {"central": central}
            return RunState(arrays, results, state.ledger), f"accuracy {accuracy[-1]:.3f}"

        return step

    return of


def alone_step(setting: Setting):
    """Makes the step in which every device trains by itself, as many steps as it did together."""
    config = setting.config.cotrain

    def step(state: RunState, write) -> tuple[RunState, str]:
        past = setting.past
        alive = np.arange(past.index.table.shape[1]) < past.index.counts[:, None]
        paths = coupdate.train_nodes(
            coupdate.joint_loss_fn(setting.model),
            initial_params(setting),
            coupdate.rows_of_ends(past),
            coupdate.by_node(alive, np.arange(setting.ends)),
            coupdate.Recipe(
                _optimiser(setting), config.rounds * config.k1 * config.k2, config.batch, replay=0
            ),
            setting.key("alone"),
        )
        of_devices = [
            exit_accuracies(setting, jax.tree.map(lambda x, e=e: x[e], paths), setting.test)
            for e in range(setting.ends)
        ]
        accuracy = np.mean(of_devices, 0).tolist()
        write(0, {f"test_accuracy_exit{i + 1}": a for i, a in enumerate(accuracy)})
        results = state.results | {
            "alone": {"accuracy": accuracy, "of_devices": [a[-1] for a in of_devices]}
        }
        arrays = state.arrays | {"alone": paths}
        return RunState(arrays, results, state.ledger), f"accuracy {accuracy[-1]:.3f}"

    return step


def _longer(state: RunState, name: str, done: int, accuracy: list[float]) -> dict[str, Any]:
    """Adds a measurement to the history of a training."""
    history = state.results.get(name, {}).get("history", [])
    return {"accuracy": accuracy, "history": [*history, [done, *accuracy]]}


def exit_accuracies(setting: Setting, params: PyTree, samples: Samples) -> list[float]:
    """Tells how often each exit is right when all samples reach it."""
    answers = coinfer.make_full(setting.model, _no_exits(setting), batch=250)
    logits, _ = answers(params, samples["x"])
    return (logits.argmax(-1) == samples["y"]).mean(-1).tolist()


def price_of_round(setting: Setting) -> cotrain.RoundPrice:
    """Prices one round of the cloud on the modelled system."""
    config = setting.config.cotrain
    params = trees.abstract(initial_params(setting))
    batch = {
        name: jax.ShapeDtypeStruct((config.batch, *x.shape[1:]), x.dtype)
        for name, x in setting.test.items()
    }
    codec = wire.from_name(config.codec)
    work = tiers.work_of(coinfer.joint_grad_fn(setting.model), params, batch, None)
    return cotrain.price_round(
        setting.topology, work, params, k1=config.k1, k2=config.k2, codec=codec, edge_codec=codec
    )


def _no_exits(setting: Setting):
    return coinfer.normalised_entropy([-1.0] * (len(setting.model.exits) - 1))


def _optimiser(setting: Setting, learning_rate: float | None = None):
    config = setting.config.cotrain
    return optax.sgd(
        config.learning_rate if learning_rate is None else learning_rate, config.momentum
    )


def _central(setting: Setting) -> coupdate.Learner:
    rate = setting.config.cotrain.central_learning_rate
    return coupdate.learn(coupdate.joint_loss_fn(setting.model), _optimiser(setting, rate))


def _federation(setting: Setting):
    """Makes engine, client rows and samples, laid over the accelerators at hand."""
    config = setting.config.cotrain
    rows = cotrain.rows_of(setting.topology, setting.past.index)
    mesh = tiers.tier_mesh(*rows.counts.shape)
    algorithm = cotrain.fedavg(coinfer.joint_grad_fn(setting.model), _optimiser(setting))
    codec = wire.from_name(config.codec)
    engine = cotrain.hierfavg(
        algorithm, mesh, k1=config.k1, k2=config.k2, batch=config.batch, codec=codec,
        edge_codec=codec, clients=config.clients,
    )  # fmt: skip
    return engine, cotrain.place(mesh, rows), cotrain.replicate(mesh, setting.past.samples)
